"""Winsorised mean of the base models, per sample and gene (Jose and Winkler 2008, Int. J. Forecasting 24:163)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.references.row_statistic import Places, RowStatistic, Statistic, at_either_end
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class DrawnIn(Statistic):
    """Mean after the ``floor(cut * count)`` smallest values are set to the next larger one, and as many largest
    likewise.

    ``cut`` 0 is the mean, towards 0.5 the median; at least one value is kept as it is.
    """

    cut: float

    def places(self, count: int) -> Places:
        drop = at_either_end(self.cut, count)
        weights = np.ones(count, dtype=np.int64)
        weights[:drop] = weights[count - drop :] = 0
        weights[drop] += drop
        weights[count - 1 - drop] += drop
        return weights


@dataclass(frozen=True)
class WinsorisedMean(Combiner):
    """Mean after the share ``cut`` of models at either end was drawn in to the next value.

    If some models are missing, of those that are there.
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
