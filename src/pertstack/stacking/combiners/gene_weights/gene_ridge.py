"""Per-gene ridge, and per-gene ridge pulled towards global weights: same algebra, another centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.ridge import DEFAULT_STRENGTH, global_ridge
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import (
    STRENGTHS,
    RidgePath,
    cross_validated_error,
    penalty_scale,
    pick,
    ridge_path,
)
from pertstack.stacking.sums import Array, Sums

Choice = Literal["gene", "shared"]
ILL_CONDITIONED = 1e10


def choose_strengths(error: Array, choice: Choice) -> Array:
    """Position of the chosen strength, (n_genes,): each gene's own smallest error, or that of the sum over genes.

    Among equal errors the strongest penalty is taken.
    """
    last = error.shape[1] - 1
    if choice == "shared":
        at = last - int(np.argmin(error.sum(axis=0)[::-1]))
        return np.full(error.shape[0], at)
    return np.asarray(last - np.argmin(error[:, ::-1], axis=1))


def _fit_per_gene(
    evidence: Evidence, *, choice: Choice, shrink: bool
) -> tuple[Array, Array, dict[str, Any], list[str]]:
    """Weights (n_genes, M), intercepts (n_genes,), facts and cautions.

    ``shrink`` pulls towards global weights learned on the same rows (anew inside each inner split), else towards zero.
    """
    sums, splits = evidence.within, evidence.splits_within
    centre = global_centre(sums, shrink=shrink)
    scale = penalty_scale(sums)
    cautions: list[str] = []
    if splits:
        toward = (lambda learn: global_centre(learn, shrink=True)) if shrink else None
        error = cross_validated_error(splits, STRENGTHS, toward=toward, scale=scale)
        path = ridge_path(sums, STRENGTHS, toward=centre, scale=scale)
        at = choose_strengths(error, choice)
        weights, intercept = pick(path, at)
        strength: Any = float(STRENGTHS[at[0]]) if choice == "shared" else float(np.median(STRENGTHS[at]))
    else:
        path = ridge_path(sums, np.array([DEFAULT_STRENGTH]), toward=centre, scale=scale)
        weights, intercept = pick(path, 0)
        strength = DEFAULT_STRENGTH
        cautions.append(f"One fold and one cell line only: penalty strength set to {strength}, not chosen.")
    weights, intercept, more = repair(sums, path, weights, intercept=intercept)
    facts = {"strength": strength, "choice": choice, "condition": condition_facts(path)}
    return weights, intercept, facts, cautions + more


def global_centre(sums: Sums, *, shrink: bool) -> Array:
    """What per-gene weights are pulled to: global ridge weights near the plain mean, or zero."""
    if not shrink:
        return np.zeros(sums.n_models)
    return global_ridge(sums, [], "equal")[0]


def fit_per_gene_at(sums: Sums, strength: float) -> Array:
    """Weights (n_genes, M) at a fixed strength of the pull to the global weights."""
    path = ridge_path(sums, np.array([strength]), toward=global_centre(sums, shrink=True))
    return pick(path, 0)[0]


def repair(sums: Sums, path: RidgePath, weights: Array, *, intercept: Array) -> tuple[Array, Array, list[str]]:
    """Global weights and no intercept for genes whose own rows cannot say; with a caution that counts them.

    Parameters
    ----------
    sums : the rows the weights were learned from; genes with fewer than M + 1 of them are repaired.
    path : the same fit, for the condition of every gene; an ill-conditioned one is cautioned of, not repaired.
    weights : (n_genes, M); a gene with a value that is not finite is repaired. Copied, not changed.
    intercept : (n_genes,), delta units; likewise.
    """
    few = sums.count < sums.n_models + 1
    broken = ~np.isfinite(weights).all(axis=1) | ~np.isfinite(intercept)
    bad = few | broken
    cautions = []
    if bad.any():
        fallback = global_ridge(sums, [], "equal")[0]
        weights, intercept = weights.copy(), intercept.copy()
        weights[bad], intercept[bad] = fallback, 0.0
        cautions.append(
            f"{int(bad.sum()):,} of {bad.size:,} genes have too few rows ({int(few.sum()):,} with at most "
            f"{sums.n_models}) for separate weights and use the global weights."
        )
    ill = (path.condition > ILL_CONDITIONED) & ~bad
    if ill.any():
        cautions.append(
            f"{int(ill.sum()):,} of {ill.size:,} genes have (nearly) linearly dependent models (condition above "
            f"{ILL_CONDITIONED:.0e}); the penalty decides between them, so single weights mean little there."
        )
    return weights, intercept, cautions


def condition_facts(path: RidgePath) -> dict[str, float | None]:
    """Median and largest finite condition number over genes."""
    finite = path.condition[np.isfinite(path.condition)]
    if not finite.size:
        return {"median": None, "largest": None}
    return {"median": float(np.median(finite)), "largest": float(finite.max())}


@dataclass(frozen=True)
class GeneRidge(Combiner):
    """Ridge weights and intercept per gene; each gene's penalty is chosen by leaving folds out.

    Genes and rows that lack a model it uses fall back to the gene's best available model; a model that never predicts a
    gene has weight zero there.
    """

    name: ClassVar[str] = "gene_ridge"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 7
    choice: Choice = "gene"

    def fit(self, evidence: Evidence) -> LinearWeights:
        weights, intercept, facts, cautions = _fit_per_gene(evidence, choice=self.choice, shrink=False)
        return linear(self.name, evidence, weights, intercept=intercept, facts=facts, cautions=tuple(cautions))


@dataclass(frozen=True)
class GeneShrunken(Combiner):
    """Per-gene weights pulled towards global ones (Lindley and Smith 1972; Efron and Morris 1975).

    One strength for all genes, chosen by leaving folds out; a large one is the global answer, a small one gene_ridge.
    """

    name: ClassVar[str] = "gene_shrunken"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 6
    choice: Choice = "shared"

    def fit(self, evidence: Evidence) -> LinearWeights:
        weights, intercept, facts, cautions = _fit_per_gene(evidence, choice=self.choice, shrink=True)
        return linear(self.name, evidence, weights, intercept=intercept, facts=facts, cautions=tuple(cautions))
