"""Median of the base models, per sample and gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.references.row_statistic import MiddleMean, RowStatistic
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class Median(Combiner):
    """Median over the models that predict the sample and gene; with an even number, the mean of the middle two."""

    name: ClassVar[str] = "median"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 1

    def fit(self, evidence: Evidence) -> RowStatistic:
        return RowStatistic(self.name, evidence.models, MiddleMean(0.5))
