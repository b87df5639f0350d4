"""Where blocks come from: a store on disk or arrays in memory, behind one small protocol.

``reduce/``, ``stack/`` and ``verdict/`` read only through ``BlockSource``, so the study path and ``ps.stack(arrays)``
run the same code. ``sound`` answers the one question that matters for honesty: which rows did this model truly not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class BlockSource(Protocol):
    """Aligned blocks of control, treated and predictions, all in the treated scale, rows in the plan's order."""

    @property
    def gene_names(self) -> Names: ...

    @property
    def models(self) -> tuple[str, ...]: ...

    def blocks(self) -> Sequence[Block]:
        """Blocks in their fixed order."""
        ...

    def obs(self, block: Block) -> pd.DataFrame:
        """Index = sample ids; columns perturbation, cell_line, group; log10_dose, time_h, plate, ... where known."""
        ...

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        """Some rows of a layer, float32 (rows, n_genes).

        Parameters
        ----------
        block : of the source.
        layer : "treated", "control", "effect" or a model.
        start, stop : rows [start, stop) of the block, in plan order.
        out : array to read into; None makes one. It may come back as the answer, or not.
        """
        ...

    def sound(self, block: Block, model: str) -> Mask:
        """(n,) rows the model predicted and did not see; False if not predicted or in-sample."""
        ...

    def genes_of(self, block: Block, model: str) -> Mask:
        """(n_genes,) genes the model predicts in this block."""
        ...

    def layer_digest(self, block: Block, layer: str) -> str:
        """Content digest of one layer, by which finished reductions are recognised."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source whose rows come from a slow place and can be asked for before they are needed."""

    def prefetch(self, block: Block, layer: str, *, start: int, stop: int) -> None:
        """Ask for some rows of a layer; returns at once, and what is wrong is said by ``read``.

        Parameters
        ----------
        block, layer, start, stop : as of ``BlockSource.read``.
        """
        ...
