"""Best single: the one base model that scores highest on the primary metric inside the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence


@dataclass(frozen=True)
class BestSingle(Combiner):
    """The base model with the highest primary score on the evidence, chosen anew inside every fold.

    Where it is missing, the gene's best available model stands in (weights renormalised over one model are that model).
    """

    name: ClassVar[str] = "best_single"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "slices"})
    complexity: ClassVar[int] = 0

    def fit(self, evidence: Evidence) -> LinearWeights:
        scores = evidence.singles
        weights = np.eye(evidence.n_models)[scores.best]
        facts = {
            "chosen": evidence.models[scores.best],
            "metric": scores.metric,
            "goodness": {m: _plain(v) for m, v in zip(evidence.models, scores.goodness, strict=True)},
        }
        return linear(self.name, evidence, weights, facts=facts, cautions=scores.cautions)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
