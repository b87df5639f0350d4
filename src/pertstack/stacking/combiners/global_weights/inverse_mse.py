"""Inverse-MSE weights, for all genes or per gene: the diagonal form of optimal combination (Bates and Granger 1969)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.single_scores import mean_squared_errors
from pertstack.stacking.sums import Array


def inverse_error_weights(errors: Array) -> Array:
    """Weights proportional to 1 / error along the last axis, sum one; infinite errors get nothing, exact models share
    all.

    >>> inverse_error_weights(np.array([1.0, 3.0, np.inf]))
    array([0.75, 0.25, 0.  ])
    """
    exact = errors <= 0
    inverse = np.where(exact, 0.0, 1.0 / np.where(exact, 1.0, errors))
    inverse = np.where(exact.any(axis=-1, keepdims=True), exact.astype(float), inverse)
    total = inverse.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(total > 0, inverse / np.where(total > 0, total, 1.0), 1.0 / errors.shape[-1]))


@dataclass(frozen=True)
class InverseMse(Combiner):
    """Weights proportional to 1 / mean squared error over all genes; missing models renormalise the others."""

    name: ClassVar[str] = "inverse_mse"
    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 2

    def fit(self, evidence: Evidence) -> LinearWeights:
        return linear(self.name, evidence, inverse_error_weights(mean_squared_errors(evidence.sums)))


@dataclass(frozen=True)
class GeneInverseMse(Combiner):
    """Weights proportional to 1 / mean squared error of each gene; genes without rows use the weights of all genes."""

    name: ClassVar[str] = "gene_inverse_mse"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 3
    needs_nested: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> LinearWeights:
        sums = evidence.sums
        errors = np.einsum("gmm->gm", sums.error_gram()) / np.maximum(sums.count, 1.0)[:, None]
        weights = inverse_error_weights(np.where(sums.available, np.maximum(errors, 0.0), np.inf))
        weights[sums.count == 0] = inverse_error_weights(mean_squared_errors(sums))
        return linear(self.name, evidence, weights)
