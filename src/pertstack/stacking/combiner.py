"""What a combiner is: from evidence to weights, from a tile to one combined prediction.

A combiner is a thin frozen dataclass over a pure solve function, one file and one registry line each. What evidence
it may see is handled by ``evidence.py`` and ``nested.py``; whether it ships, by ``choose.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pertstack._base.errors import MisalignedError, first_few, unknown_name
from pertstack.data.rows import Float32
from pertstack.reduce.tile import Tile

if TYPE_CHECKING:
    from pertstack.stacking.evidence import Evidence

Family = Literal["reference", "global", "gene", "condition", "sample", "nonlinear"]
FLEXIBLE: frozenset[Family] = frozenset({"gene", "condition", "sample", "nonlinear"})
"""Families with enough freedom to read the scored fold's means out of out-of-fold predictions (decision 0005)."""

Need = Literal["gene_moments", "sample_moments", "slices", "rows", "embeddings"]


@dataclass(frozen=True)
class Combiner(ABC):
    """A way to combine base models. Fields are its hyper-parameters; equal fields and evidence give equal bits.

    ``complexity`` orders the no-harm ladder (0 = best single, 1 = plain averages, ... richer above).
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    needs: ClassVar[frozenset[Need]]
    complexity: ClassVar[int]
    candidate: ClassVar[bool] = True  # may ship; False for references that are only shown
    needs_nested: ClassVar[bool] = True  # a flexible one whose score is believed on nested fits only (decision 0005)
    default: ClassVar[bool] = True  # fitted when no combiners are named; False for slow ones and variants of others

    @abstractmethod
    def fit(self, evidence: Evidence) -> FittedCombiner:
        """Learn weights from what the evidence shows and nothing else.

        Parameters
        ----------
        evidence : sums, and rows where needed, of all folds but the one it will be scored on.
        """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Hyper-parameters by name, as scikit-learn's ``clone`` wants them.

        Parameters
        ----------
        deep : without effect; scikit-learn passes it.
        """
        del deep
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def with_params(self, **params: Any) -> Combiner:
        """A copy with other hyper-parameters.

        Parameters
        ----------
        **params : hyper-parameter -> value.
        """
        known = self.get_params()
        for name in params:
            if name not in known:
                raise unknown_name(f"parameter of combiner {self.name!r}", name, known or ["(it has none)"])
        return replace(self, **params)


class FittedCombiner(ABC):
    """A combiner that has learned. It is a ``Combine`` for ``reduce.score``."""

    name: str
    models: tuple[str, ...]
    cautions: tuple[str, ...] = ()

    @abstractmethod
    def combine(self, tile: Tile) -> Float32:
        """Combined prediction of the tile's rows in the treated scale, (n, n_genes); NaN where it cannot say."""

    def __call__(self, tile: Tile) -> Float32:
        """A fitted combiner is a ``Combine``."""
        return self.combine(tile)

    @abstractmethod
    def weights(self) -> dict[str, Any]:
        """What was learned, as plain JSON."""

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Large parts of what was learned, for ``weights.npz``; empty when ``weights`` says it all."""
        return {}

    def rows_of(self, tile: Tile) -> list[int]:
        """Positions of this combiner's models in the tile, matched by name."""
        at = {name: i for i, name in enumerate(tile.models)}
        missing = [m for m in self.models if m not in at]
        if missing:
            raise MisalignedError(
                f"Combiner {self.name!r} was learned on {len(self.models)} models; the rows to combine lack "
                f"{first_few(missing)}. Its weights mean nothing without them: provide these predictions too."
            )
        return [at[m] for m in self.models]


def availability(tile: Tile, rows: list[int]) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """(M, n, n_genes) where each model has a prediction; None when every model is complete (the common, fast case)."""
    available, genes = tile.available[rows], tile.gene_available[rows]
    if available.all() and genes.all():
        return None
    return np.asarray(available[:, :, None] & genes[:, None, :])
