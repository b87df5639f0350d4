"""Standardised mean: every model is first brought to the size of the measured effects, then all count the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, Sums, one_gene

_FLAT = 1e-12  # share of the truth's mean square below which a model says nothing


def standardising_scales(sums: Sums) -> Array:
    """Factor per model that brings its root mean square delta to that of the truth, over all complete genes, (M,).

    ``s_m = sqrt(sum t² / sum x_m²)``, both against the reference, unitless; 0 for a model whose deltas are all zero,
    1 for every model where the truth is all zero. Equal variance is what z-scored forecasts are averaged at
    (Timmermann 2006, Handbook of Economic Forecasting 1:135, section 2).
    """
    together = one_gene(sums)
    own, target = np.diag(together.xx[0]), float(together.tt[0])
    if target <= 0:
        return np.ones(sums.n_models)
    speaks = own > _FLAT * target
    return np.asarray(np.where(speaks, np.sqrt(target / np.where(speaks, own, 1.0)), 0.0))


@dataclass(frozen=True)
class StandardisedMean(Combiner):
    """Plain mean of the models' deltas, each scaled by one number to the spread of the measured deltas.

    A model that never departs from the reference is left out of the mean. Rows and genes that lack a model fall back
    to the gene's best available one, since the scaled weights do not sum to one.
    """

    name: ClassVar[str] = "standardised_mean"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 1

    def fit(self, evidence: Evidence) -> LinearWeights:
        scales = standardising_scales(evidence.sums)
        weights = scales / max(int((scales > 0).sum()), 1)
        facts = {"scales": scales.tolist()}
        return linear(self.name, evidence, weights, facts=facts)
