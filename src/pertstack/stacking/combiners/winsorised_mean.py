"""Winsorised mean of the base models, per sample and gene (Jose and Winkler 2008, Int. J. Forecasting 24:163)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import Float32
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.row_statistic import RowStatistic
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class DrawnIn:
    """Mean after the ``floor(cut * count)`` smallest values are set to the next larger one, and as many largest
    likewise.

    ``cut`` 0 is the mean, towards 0.5 the median; at least one value is kept as it is.
    """

    cut: float

    def __call__(self, ordered: Float32, count: Any) -> Float32:
        shape = ordered.shape[1:]
        n_there = np.broadcast_to(np.asarray(count), shape)
        wanted = np.floor(self.cut * n_there + 1e-9).astype(np.int64)
        drop = np.minimum(wanted, (n_there - 1) // 2)
        place = np.arange(ordered.shape[0]).reshape(-1, *([1] * len(shape)))
        keep = (place >= drop) & (place < n_there - drop)
        total = np.where(keep, ordered, np.float32(0)).sum(axis=0, dtype=np.float64)
        lowest = np.take_along_axis(ordered, drop[None], axis=0)[0].astype(np.float64)
        highest = np.take_along_axis(ordered, (n_there - 1 - drop)[None], axis=0)[0].astype(np.float64)
        ends = drop * np.where(drop > 0, lowest + highest, 0.0)  # rows without any model are infinite here
        return np.asarray((total + ends) / n_there, dtype=np.float32)


@dataclass(frozen=True)
class WinsorisedMean(Combiner):
    """Mean after the share ``cut`` of models at either end was drawn in to the next value.

    Where some models are missing, of those that are there.
    """

    name: ClassVar[str] = "winsorised_mean"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 1
    cut: float = 0.2

    def fit(self, evidence: Evidence) -> RowStatistic:
        if not 0 <= self.cut < 0.5:
            raise InputError(f"cut is {self.cut}; a winsorised mean draws in a share from 0 to below 0.5 at each end.")
        return RowStatistic(self.name, evidence.models, DrawnIn(self.cut), {"cut": self.cut})
