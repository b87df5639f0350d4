"""Simplex: the convex mixture of least squared error, one set of weights for all genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.convex import kkt_residual_simplex, simplex_weights
from pertstack.stacking.sums import Array, Sums


def global_error_gram(sums: Sums) -> Array:
    """(M, M) sums of e e' over complete genes; if none is complete, over all, each pair if both predict.

    A model that predicts nothing gets an error no mixture would take.
    """
    if sums.complete.any():
        return np.asarray(sums.error_gram()[sums.complete].sum(axis=0))
    both = sums.available[:, :, None] & sums.available[:, None, :]
    rows = (both * sums.count[:, None, None]).sum(axis=0)
    total = np.where(both, sums.error_gram(), 0.0).sum(axis=0)
    mean = total / np.maximum(rows, 1.0)
    worst = 1e6 * max(float(mean.max()), 1.0)
    absent = np.diag(rows) == 0
    mean[absent, absent] = worst
    values, vectors = np.linalg.eigh(mean)  # pairwise sums need not be positive: take the nearest that is
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


@dataclass(frozen=True)
class Simplex(Combiner):
    """Non-negative weights of sum one with least squared error over all genes.

    Learned from genes that every model predicts; rows and genes that lack a model renormalise the weights of the
    others.
    """

    name: ClassVar[str] = "simplex"
    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 2

    def fit(self, evidence: Evidence) -> LinearWeights:
        gram = global_error_gram(evidence.sums)
        weights = simplex_weights(gram)
        facts = {"kkt_residual": kkt_residual_simplex(gram, weights)}
        return linear(self.name, evidence, weights, facts=facts)
