"""Why a mean can beat its members: the ambiguity decomposition, and how many models a set of weights is worth.

References: Krogh and Vedelsby (1995), NIPS 7; Kish (1965); Wood et al. (2023), JMLR 24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError
from pertstack.reduce.sums.moments import GeneMoments


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """ensemble_error = mean_error - ambiguity: squared error of a mixture per row and gene.

    In squared units of the data.
    """

    ensemble_error: float  # mean of (y - f)^2
    mean_error: float  # sum_m w_m mean of (y - f_m)^2
    ambiguity: float  # sum_m w_m mean of (f_m - f)^2

    def to_json(self) -> dict[str, float]:
        return {"ensemble_error": self.ensemble_error, "mean_error": self.mean_error, "ambiguity": self.ambiguity}


@dataclass(frozen=True, slots=True)
class EffectiveNumber:
    """How many models' worth there is; each from 1 (all alike) to M. None if it is not defined."""

    kish: float | None  # 1 / sum w^2 of the weights
    entropy: float | None  # exp of the entropy of the weights; None with negative weights
    participation: float | None  # (sum l)^2 / sum l^2 over eigenvalues of the error correlation
    best_linear: float | None  # 1' R^-1 1, for errors of equal size; None if R is singular. May exceed M.
    equicorrelated: float | None  # M / (1 + (M - 1) rho) with rho the mean error correlation

    def to_json(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in self.__slots__}


def ambiguity(moments: GeneMoments, weights: Any, genes: Any = None) -> Ambiguity:
    """Decomposition of a mixture's error into the models' errors less their differences (Krogh and Vedelsby 1995).

    The three parts are computed apart: the first from mixed errors, the second from the models' errors, the third from
    differences between predictions. Their identity is a check on the sums.

    Parameters
    ----------
    moments : of the rows.
    weights : (M,), of sum one.
    genes : mask or positions; None for all that every model predicts.

    Raises
    ------
    InputError
        Weights of another number or sum.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (moments.n_models,) or abs(w.sum() - 1.0) > 1e-9:
        raise InputError(f"weights must be {moments.n_models} numbers of sum 1, not {w.shape} of sum {w.sum():.6g}.")
    chosen = moments.available.all(axis=1) & (moments.count > 0) if genes is None else genes
    m, n = moments.n_models, float(moments.count[chosen].sum())
    part = GeneMoments(moments.count[chosen], moments.mean[chosen], moments.scatter[chosen], moments.available[chosen])
    raw = part.raw().sum(axis=0) / n  # (D, D)

    def square(v: Float64) -> float:
        return float(v @ raw @ v)

    y, each = np.zeros(m + 2), np.eye(m + 2)[:m]
    y[m] = 1.0
    mixture = w @ each
    return Ambiguity(
        square(y - mixture),
        float(sum(w[j] * square(y - each[j]) for j in range(m))),
        float(sum(w[j] * square(each[j] - mixture) for j in range(m))),
    )


def effective_number(weights: Any, error_correlation: Float64) -> EffectiveNumber:
    """Effective number of models for weights (M,) and the correlation of errors (M, M).

    >>> e = effective_number([0.5, 0.5], np.eye(2))
    >>> e.kish, round(e.participation, 6), e.equicorrelated
    (2.0, 2.0, 2.0)
    """
    w = np.asarray(weights, dtype=np.float64)
    share = w[w > 0]
    kish = float(w.sum() ** 2 / (w @ w)) if (w @ w) > 0 else None
    entropy = float(np.exp(-(share * np.log(share)).sum())) if (w >= 0).all() and abs(w.sum() - 1) < 1e-9 else None
    if np.isnan(error_correlation).any():
        return EffectiveNumber(kish, entropy, None, best_linear=None, equicorrelated=None)
    m = len(w)
    values, vectors = np.linalg.eigh(error_correlation)
    ones = vectors.T @ np.ones(m)
    best = float((ones**2 / values).sum()) if values[0] > 1e-10 * values[-1] else None
    rho = (error_correlation.sum() - m) / (m * (m - 1)) if m > 1 else 0.0
    alike = 1.0 + (m - 1) * rho
    equal = float(m / alike) if alike > 1e-12 else None
    return EffectiveNumber(
        kish, entropy, float(values.sum() ** 2 / (values @ values)), best_linear=best, equicorrelated=equal
    )
