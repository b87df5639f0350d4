"""Mean: equal weights, nothing learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class Mean(Combiner):
    """Plain mean of the base models; where some are missing, of those that are there."""

    name: ClassVar[str] = "mean"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 1

    def fit(self, evidence: Evidence) -> LinearWeights:
        return linear(self.name, evidence, np.full(evidence.n_models, 1.0 / evidence.n_models), learned=False)
