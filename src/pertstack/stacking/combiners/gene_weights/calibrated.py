"""Calibrated: every model is first brought to the scale of the truth on the most responsive genes, then per-gene
ridge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.gene_weights.gene_ridge import choose_strengths, condition_facts, repair
from pertstack.stacking.combiners.global_weights.ridge import DEFAULT_STRENGTH
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import STRENGTHS, pick, ridge_path
from pertstack.stacking.sums import Array, Sums

LOWEST, HIGHEST = 0.5, 3.0


def scale_factors(sums: Sums, top: int) -> Array:
    """Root mean square of the truth over that of each model on the ``top`` genes of largest mean square truth, (M,).

    Clipped to [0.5, 3], so that a collapsed or exploding model cannot take over; 1 if a model never predicts them.
    """
    seen = np.flatnonzero(sums.count > 0)
    power = sums.raw_target()[seen] / sums.count[seen]
    genes = seen[np.argsort(-power, kind="stable")[:top]]
    there = sums.available[genes]
    own = np.einsum("gmm->gm", sums.raw_gram()[genes])
    truth = (sums.raw_target()[genes][:, None] * there).sum(axis=0)
    model = (own * there).sum(axis=0)
    ratio = np.sqrt(np.divide(truth, model, out=np.ones(sums.n_models), where=model > 0))
    return np.asarray(np.clip(ratio, LOWEST, HIGHEST))


def rescaled(sums: Sums, factors: Array) -> Sums:
    """The sums one would have collected had every model been multiplied by its factor (as seen from the reference)."""
    return replace(
        sums, mean_x=sums.mean_x * factors, xx=sums.xx * factors[:, None] * factors[None, :], xt=sums.xt * factors
    )


@dataclass(frozen=True)
class Calibrated(Combiner):
    """Top-gene scale factors clipped to [0.5, 3], then per-gene ridge: the founding project's ensemble, made leak-free.

    Factors and penalties are learned on the training rows of every split. Missing models: as gene_ridge.
    """

    name: ClassVar[str] = "calibrated"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 7
    top: int = 100

    def fit(self, evidence: Evidence) -> LinearWeights:
        factors = scale_factors(evidence.within, self.top)
        sums = rescaled(evidence.within, factors)
        cautions: list[str] = []
        if evidence.splits_within:
            error = np.zeros((sums.n_genes, len(STRENGTHS)))
            for learn, held in evidence.splits_within:
                inner = scale_factors(learn, self.top)
                path = ridge_path(rescaled(learn, inner), STRENGTHS)
                error += rescaled(held, inner).squared_error(path.weights, path.intercept)
            path = ridge_path(sums, STRENGTHS)
            at = choose_strengths(error, "gene")
        else:
            path, at = ridge_path(sums, np.array([DEFAULT_STRENGTH])), np.zeros(sums.n_genes, dtype=np.int64)
            cautions.append(f"One fold and one cell line only: penalty strength set to {DEFAULT_STRENGTH}, not chosen.")
        weights, intercept = pick(path, at)
        weights, intercept, more = repair(sums, path, weights, intercept=intercept)
        facts = {"scale_factors": factors.tolist(), "condition": condition_facts(path)}
        cautions += more + _clipped(factors, evidence.models)
        return linear(
            self.name, evidence, weights * factors, intercept=intercept, facts=facts, cautions=tuple(cautions)
        )


def _clipped(factors: Array, models: tuple[str, ...]) -> list[str]:
    at_edge = [m for m, f in zip(models, factors, strict=True) if f in (LOWEST, HIGHEST)]
    if not at_edge:
        return []
    return [
        f"Scale factor at its limit [{LOWEST}, {HIGHEST}] for {', '.join(at_edge)}: check the scale they predict in."
    ]
