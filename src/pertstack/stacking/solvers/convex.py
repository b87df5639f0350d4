"""Weights under constraints, exactly: the simplex (sum one, none negative) and the non-negative orthant.

Small problems in M models from sums; how the sums are made is handled by ``sums.py``.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from pertstack.stacking.sums import Array

MOST_MODELS_BY_ENUMERATION = 12


def kkt_residual_simplex(error_gram: Array, weights: Array) -> float:
    """How far weights are from the optimum of w'Ew on the simplex, relative to its value; 0 is optimal.

    At the optimum every gradient entry is at least w'Ew, with equality on the support, so the residual is
    ``max(w'Ew - min_m (Ew)_m, max_support |(Ew)_m - w'Ew|) / max |E|``, and it also counts broken constraints.
    """
    gradient = error_gram @ weights
    value = float(weights @ gradient)
    scale = max(float(np.abs(error_gram).max()), np.finfo(float).tiny)
    slack = max(value - float(gradient.min()), 0.0)
    active = weights > 1e-12
    tight = float(np.abs(gradient[active] - value).max()) if active.any() else np.inf
    broken = max(float(-weights.min()), abs(float(weights.sum()) - 1.0), 0.0)
    return max(slack / scale, tight / scale, broken)


def simplex_weights(error_gram: Array) -> Array:
    """Weights of least ``w'Ew`` with ``w >= 0`` and ``sum w = 1`` (methods F3; Bates and Granger 1969 with signs kept).

    Up to 12 models every support is tried and the result is exact; beyond, accelerated projected gradient (Beck and
    Teboulle 2009) with the projection of Duchi et al. (2008). With identical models the weights are not unique: the
    smallest support, and among equals the first, is taken; the prediction is unique all the same.

    Parameters
    ----------
    error_gram : array, shape (M, M)
        Sums of e_m e_l over rows, delta units squared; symmetric, positive semi-definite.
    """
    n_models = error_gram.shape[0]
    gram = (error_gram + error_gram.T) / 2
    scale = float(np.trace(gram)) / n_models
    if n_models == 1 or scale <= 0:
        best = np.zeros(n_models)
        best[int(np.argmin(np.diag(gram)))] = 1.0
        return best
    gram = gram / scale
    return _enumerate(gram) if n_models <= MOST_MODELS_BY_ENUMERATION else _projected_gradient(gram)


def _enumerate(gram: Array) -> Array:
    n_models = gram.shape[0]
    best, least = np.zeros(n_models), np.inf
    for size in range(1, n_models + 1):
        supports = np.array(list(combinations(range(n_models), size)))
        blocks = gram[supports[:, :, None], supports[:, None, :]]  # (n_supports, size, size)
        regular = np.linalg.eigvalsh(blocks)[:, 0] > 1e-11
        if not regular.any():
            continue
        supports, blocks = supports[regular], blocks[regular]
        solved = np.linalg.solve(blocks, np.ones((len(supports), size, 1)))[:, :, 0]
        total = solved.sum(axis=1)
        feasible = (total > 0) & (solved >= 0).all(axis=1)
        value = np.where(feasible, 1.0 / np.where(feasible, total, 1.0), np.inf)
        at = int(np.argmin(value))
        if value[at] < least * (1 - 1e-12):
            least = float(value[at])
            best = np.zeros(n_models)
            best[supports[at]] = solved[at] / total[at]
    vertex = int(np.argmin(np.diag(gram)))
    if gram[vertex, vertex] <= least:  # a perfect model has a singular block of its own
        best = np.eye(n_models)[vertex]
    return best


def project_to_simplex(point: Array) -> Array:
    """Nearest point of the simplex (Duchi et al. 2008).

    >>> project_to_simplex(np.array([2.0, 0.0]))
    array([1., 0.])
    """
    ordered = np.sort(point)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(point) + 1)
    last = int(np.nonzero(ordered > excess)[0][-1])
    return np.asarray(np.maximum(point - excess[last], 0.0))


def _projected_gradient(gram: Array, *, rounds: int = 20_000, tolerance: float = 1e-12) -> Array:
    step = 1.0 / float(np.linalg.eigvalsh(gram)[-1])
    weights = np.full(gram.shape[0], 1.0 / gram.shape[0])
    ahead, speed = weights, 1.0
    for _ in range(rounds):
        new = project_to_simplex(ahead - step * (gram @ ahead))
        if (ahead - new) @ (new - weights) > 0:  # restart when momentum points uphill (O'Donoghue and Candes 2015)
            ahead, speed = weights, 1.0
            new = project_to_simplex(ahead - step * (gram @ ahead))
        faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2
        ahead = new + (speed - 1) / faster * (new - weights)
        done = float(np.abs(new - weights).max()) < tolerance
        weights, speed = new, faster
        if done:
            break
    return np.asarray(weights)
