"""Trimmed mean of the base models, per sample and gene (Jose and Winkler 2008, Int. J. Forecasting 24:163)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pertstack._base.errors import InputError
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.references.row_statistic import MiddleMean, RowStatistic
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class TrimmedMean(Combiner):
    """Mean after dropping the share ``cut`` of models at either end (at least one value is always kept)."""

    name: ClassVar[str] = "trimmed_mean"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 1
    cut: float = 0.2

    def fit(self, evidence: Evidence) -> RowStatistic:
        if not 0 <= self.cut < 0.5:
            raise InputError(f"cut is {self.cut}; a trimmed mean drops a share from 0 to below 0.5 at either end.")
        return RowStatistic(self.name, evidence.models, MiddleMean(self.cut), {"cut": self.cut})
