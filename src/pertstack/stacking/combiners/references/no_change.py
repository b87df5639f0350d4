"""No change: predicts the control. What a model must beat to have predicted anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class NoChange(Combiner):
    """The sample's own control: every delta is zero. A reference on the board, never a candidate."""

    name: ClassVar[str] = "no_change"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 0
    candidate: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> LinearWeights:
        return linear(self.name, evidence, np.zeros(evidence.n_models), reference="own", learned=False)
