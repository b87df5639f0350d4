"""Simplex weights per gene, with each gene's error sums pulled towards those of all genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.simplex import global_error_gram
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers._simplex_kernel import simplex_batch
from pertstack.stacking.solvers.convex import simplex_weights
from pertstack.stacking.sums import Array, Mask, Sums

PULLS: Array = np.array([0.0, 0.1, 0.3, 1.0, 3.0, 10.0])


def gene_simplex_weights(error_grams: Array, available: Mask, common: Array, *, pull: float) -> Array:
    """Per gene ``argmin w'(E_g + pull * c_g E)w`` on the simplex over available models, (n_genes, M), with c_g =
    trace(E_g) / trace(E). Genes without errors or models get the global weights.

    Parameters
    ----------
    error_grams : E_g, (n_genes, M, M), sums of products of errors, delta units squared.
    available : (n_genes, M), False where a model does not predict the gene.
    common : E, (M, M), the error gram of all genes.
    pull : >= 0, no unit; 0 is the gene alone, a large one the global simplex.
    """
    n_models = common.shape[0]
    trace = np.einsum("gmm->g", np.where(available[:, :, None] & available[:, None, :], error_grams, 0.0))
    whole = max(float(np.trace(common)), np.finfo(float).tiny)
    there = np.maximum(available.sum(axis=1), 1)
    scale = np.where(trace > 0, trace / there, 1.0)
    grams = (error_grams + pull * (trace / whole)[:, None, None] * common) / (scale * (1 + pull))[:, None, None]
    weights = np.asarray(simplex_batch(np.ascontiguousarray(grams), np.ascontiguousarray(available)))
    empty = ~available.any(axis=1) | (trace <= 0)
    weights[empty] = simplex_weights(common) if n_models > 1 else 1.0
    return weights


def kkt_residuals(grams: Array, weights: Array, available: Mask) -> Array:
    """Per gene the largest broken optimality condition of ``min w'Ew`` on the simplex, relative to the largest error,
    (n_genes,); 0 is optimal (Karush, Kuhn and Tucker).

    Parameters
    ----------
    grams : (n_genes, M, M) error grams that were minimised.
    weights : (n_genes, M), sum one.
    available : (n_genes, M); a gene without an available model has residual 0.
    """
    gradient = (grams @ weights[:, :, None])[:, :, 0]
    value = (weights * gradient).sum(axis=1)
    scale = np.maximum(np.einsum("gmm->gm", grams).max(axis=1), np.finfo(float).tiny)
    slack = value - np.where(available, gradient, np.inf).min(axis=1)
    tight = np.abs(np.where(weights > 1e-12, gradient - value[:, None], 0.0)).max(axis=1)
    return np.asarray(np.where(available.any(axis=1), np.maximum(slack, tight) / scale, 0.0))


@dataclass(frozen=True)
class GeneSimplex(Combiner):
    """Convex weights per gene; how far they are pulled to the global ones is chosen by leaving folds out, for all
    genes.

    Models that never predict a gene have no part in it; rows that lack one renormalise the weights of the others.
    """

    name: ClassVar[str] = "gene_simplex"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 6
    needs_nested: ClassVar[bool] = False
    pull: float | None = None  # None: chosen by leaving folds out

    def fit(self, evidence: Evidence) -> LinearWeights:
        sums, pull = evidence.sums, self.pull
        cautions: tuple[str, ...] = ()
        if pull is None:
            pull, cautions = _choose_pull(evidence)
        weights = _solve(sums, pull)
        residual = float(kkt_residuals(sums.error_gram(), weights, sums.available).max()) if pull == 0 else None
        facts = {"pull": pull, "kkt_residual": residual}
        return linear(self.name, evidence, weights, facts=facts, cautions=cautions)


def _solve(sums: Sums, pull: float) -> Array:
    return gene_simplex_weights(sums.error_gram(), sums.available, global_error_gram(sums), pull=pull)


def _choose_pull(evidence: Evidence) -> tuple[float, tuple[str, ...]]:
    if not evidence.inner_splits:
        return 1.0, ("One fold and one cell line only: the pull to global weights is set to 1, not chosen.",)
    error = np.zeros(len(PULLS))
    for learn, held in evidence.inner_splits:
        flat = np.zeros(held.n_genes)
        for i, pull in enumerate(PULLS):
            error[i] += held.squared_error(_solve(learn, float(pull)), flat).sum()
    return float(PULLS[len(PULLS) - 1 - int(np.argmin(error[::-1]))]), ()
