"""Best informed: the base model that scores highest among those that do not say the same for every perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.constants import constant_models
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class BestInformed(Combiner):
    """The base model with the highest primary score whose predictions differ between perturbations.

    What ships in place of a constant that scores no better (docs/decisions/0011); fitted only if some model is one.
    """

    name: ClassVar[str] = "best_informed"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "slices"})
    complexity: ClassVar[int] = 0
    default: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> LinearWeights:
        constants = constant_models(evidence.reduction)
        left = [i for i, m in enumerate(evidence.models) if m not in constants]
        scores = evidence.singles
        said = () if left else ("Every base model says the same for every perturbation; none is better informed.",)
        best = max(left or range(evidence.n_models), key=lambda i: (scores.goodness[i], -i))
        facts = {"chosen": evidence.models[best], "metric": scores.metric, "constant": list(constants)}
        return linear(
            self.name, evidence, np.eye(evidence.n_models)[best], facts=facts, cautions=(*scores.cautions, *said)
        )
