"""Top-gene slices: the few genes per sample on which R2 Top-k is decided, with everything needed to compute it for
any weighting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.machine.scratch import space
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
    def concatenate(cls, parts: Sequence[TopSlices], scratch: Path | None = None) -> TopSlices:
        """All samples of the parts, in their order; mapped from nameless files in ``scratch`` if they are many."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(_one_after_the_other([getattr(p, f) for p in parts], scratch) for f in _FIELDS))


_FIELDS = ("genes", "y", "offset", "delta")


def _one_after_the_other(arrays: Sequence[Any], scratch: Path | None) -> Any:
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    return np.concatenate(arrays, out=space(shape, arrays[0].dtype, scratch))
