"""Top-gene slices: the few genes per sample on which R2 Top-k is decided, with everything needed to compute it for
any weighting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack.data.rows import Float32

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class TopSlices:
    """Per sample the k genes of largest |treated - reference|, ordered, so that a smaller k is a prefix.

    On them: y = treated - control, offset = control - reference (zero for the own control), delta = prediction -
    control of each model; so treated - reference = y + offset and prediction - reference = delta + offset. Float32.
    NaN where a model has no prediction. With fewer genes than k, all genes.
    """

    genes: np.ndarray[Any, np.dtype[np.int32]]  # (n, k)
    y: Float32  # (n, k)
    offset: Float32  # (n, k)
    delta: Float32  # (n, M, k)

    @property
    def n(self) -> int:
        return len(self.genes)

    @property
    def k(self) -> int:
        return int(self.genes.shape[1])

    def take(self, rows: Any) -> TopSlices:
        """The chosen samples (mask or positions)."""
        return TopSlices(self.genes[rows], self.y[rows], self.offset[rows], self.delta[rows])

    def complete(self) -> Mask:
        """(n,) samples whose slice every model predicts."""
        return np.asarray(np.isfinite(self.delta).all(axis=(1, 2)))

    @classmethod
    def concatenate(cls, parts: Sequence[TopSlices]) -> TopSlices:
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("genes", "y", "offset", "delta")))
