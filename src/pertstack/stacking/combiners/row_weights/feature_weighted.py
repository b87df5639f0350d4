"""Feature-weighted linear stacking over genes: weights are linear functions of what is known about a gene (Sill 2009).

The same with features of samples is in ``stacking/experimental/feature_weighted_sample.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.ridge import DEFAULT_STRENGTH
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import STRENGTHS, cross_validated_error, ridge_path
from pertstack.stacking.sums import Array, Sums


def gene_features(evidence: Evidence, sums: Sums) -> tuple[Array, tuple[str, ...]]:
    """Features (n_genes, J) from the training part: one, log mean square truth, agreement of the models; level if
    known.

    Standardised over genes; a feature that does not vary is zero.
    """
    count = np.maximum(sums.count, 1.0)
    power = sums.raw_target() / count
    floor = max(float(power.max(initial=0.0)), 1.0) * 1e-12
    columns = [np.log(np.maximum(power, floor))]
    names = ["one", "log_power"]
    own = np.einsum("gmm->gm", sums.raw_gram())
    together = sums.raw_gram().sum(axis=(1, 2))
    apart = sums.n_models * own.sum(axis=1)
    columns.append(np.divide(together, apart, out=np.zeros_like(apart), where=apart > 0))
    names.append("agreement")
    if evidence.references is not None:
        columns.append(np.mean([evidence.references.pooled(line) for line in evidence.cell_lines], axis=0))
        names.append("level")
    table = np.stack(columns, axis=1)
    spread = table.std(axis=0)
    table = np.where(spread > 1e-12, (table - table.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0), 0.0)
    return np.column_stack([np.ones(sums.n_genes), table]), tuple(names)


def expanded(sums: Sums, features: Array) -> Sums:
    """Sums of the regressors ``feature_j(gene) * x_m`` over all complete genes as one problem of J * M columns."""
    chosen = sums.complete if sums.complete.any() else sums.count > 0
    phi, gram, cross = features[chosen], sums.raw_gram()[chosen], sums.raw_cross()[chosen]
    size = phi.shape[1] * sums.n_models
    xx = np.einsum("gj,gk,gmn->jmkn", phi, phi, gram, optimize=True).reshape(size, size)
    xt = np.einsum("gj,gm->jm", phi, cross).reshape(size)
    return Sums(
        count=np.array([float(sums.count[chosen].sum())]),
        mean_x=np.zeros((1, size)),
        mean_t=np.zeros(1),
        xx=xx[None],
        xt=xt[None],
        tt=np.array([float(sums.raw_target()[chosen].sum())]),
        available=np.ones((1, size), dtype=bool),
    )


@dataclass(frozen=True)
class FeatureWeighted(Combiner):
    """``w_gm = sum_j v_jm feature_j(g)``: J * M numbers for all genes, ridge towards equal weights without features.

    Sill et al. (2009), "Feature-weighted linear stacking", arXiv:0911.0460. Missing models fall back to the gene's best
    available one.
    """

    name: ClassVar[str] = "feature_weighted"
    family: ClassVar[Family] = "condition"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 5
    needs_nested: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> LinearWeights:
        sums, n_models = evidence.sums, evidence.n_models
        features, names = gene_features(evidence, sums)
        centre = np.zeros(features.shape[1] * n_models)
        centre[:n_models] = 1.0 / n_models
        strength = DEFAULT_STRENGTH
        cautions: tuple[str, ...] = ()
        if evidence.inner_splits:
            halves = []
            for learn, held in evidence.inner_splits:
                inner, _ = gene_features(evidence, learn)
                halves.append((expanded(learn, inner), expanded(held, inner)))
            error = cross_validated_error(halves, STRENGTHS, toward=lambda _: centre)[0]
            strength = float(STRENGTHS[len(STRENGTHS) - 1 - int(np.argmin(error[::-1]))])
        else:
            cautions = (f"One fold and one cell line only: penalty strength set to {strength}, not chosen.",)
        path = ridge_path(expanded(sums, features), np.array([strength]), toward=centre)
        table = path.weights[0, 0].reshape(-1, n_models)  # (J, M)
        weights = features @ np.where(sums.available.any(axis=0), table, 0.0)
        weights = np.where(sums.available | (sums.count == 0)[:, None], weights, 0.0)
        facts = {"strength": strength, "features": {n: table[j].tolist() for j, n in enumerate(names)}}
        return linear(self.name, evidence, weights, facts=facts, cautions=cautions)
