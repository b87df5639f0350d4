"""Mean: equal weights, nothing learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stack.combiner import Combiner, Family, Need
from pertstack.stack.evidence import Evidence
from pertstack.stack.learned import linear
from pertstack.stack.linear_weights import LinearWeights


@dataclass(frozen=True)
class Mean(Combiner):
    """Plain mean of the base models; where some are missing, of those that are there."""

    name: ClassVar[str] = "mean"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 1

    def fit(self, evidence: Evidence) -> LinearWeights:
        return linear(self.name, evidence, np.full(evidence.n_models, 1.0 / evidence.n_models), learned=False)
