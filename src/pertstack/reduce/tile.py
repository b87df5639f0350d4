"""A tile: some rows of one block, every model's prediction side by side; the unit of every streamed pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block
from pertstack.predictions.sources.embedding import RowEmbeddings


@dataclass(frozen=True)
class Tile:
    """Rows of one block with all predictions in the treated scale.

    ``predictions`` holds NaN where a model is not available; ``available`` says so exactly. ``pooled`` is the mean
    control of the rows' cell line over development rows: known at prediction time, unlike ``treated``, which is not
    here.
    """

    block: Block
    models: tuple[str, ...]
    gene_names: Names  # (n_genes,)
    obs: pd.DataFrame  # (n rows) perturbation, cell_line, log10_dose, ...
    predictions: Float32  # (n_models, n, n_genes)
    control: Float32  # (n, n_genes)
    pooled: Float32  # (n_genes,)
    available: np.ndarray[Any, np.dtype[np.bool_]]  # (n_models, n)
    gene_available: np.ndarray[Any, np.dtype[np.bool_]]  # (n_models, n_genes)
    embed: Callable[[str], RowEmbeddings | None] | None = None  # reads a model's embeddings of these rows when asked

    @property
    def n(self) -> int:
        return len(self.obs)

    def take(self, rows: Any) -> Tile:
        """Some rows (positions); their embeddings cannot be asked for."""
        return replace(
            self,
            obs=self.obs.iloc[rows],
            predictions=self.predictions[:, rows],
            control=self.control[rows],
            available=self.available[:, rows],
            embed=None,
        )

    def embedding(self, model: str) -> RowEmbeddings | None:
        """The rows as the fit that predicted them describes them, in that fit's own frame; None when it does not.

        Read only now: combiners that do not ask cost nothing.
        """
        return None if self.embed is None else self.embed(model)


Combine = Callable[[Tile], Float32]
"""From a tile to one combined prediction in the treated scale, (n, n_genes); NaN where it cannot say."""
