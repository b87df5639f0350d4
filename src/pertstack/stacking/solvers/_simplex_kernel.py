"""Numba kernel: the simplex problem of every gene, by a primal active-set walk on small dense matrices.

Its answers are checked against exact support enumeration (``stacking/solvers/convex.py``) in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pertstack._base.machine.compiled import kernel


@kernel
def _solve_ones(gram: Any, at: Any, size: int, factor: Any, out: Any) -> None:
    """out[:size] = gram[at, at]^-1 1 by Cholesky; a vanishing pivot is lifted, so that near-copies stay solvable."""
    for i in range(size):
        for j in range(i + 1):
            total = gram[at[i], at[j]]
            for q in range(j):
                total -= factor[i, q] * factor[j, q]
            if i == j:
                factor[i, i] = np.sqrt(max(total, 1e-13))
            else:
                factor[i, j] = total / factor[j, j]
    for i in range(size):
        total = 1.0
        for q in range(i):
            total -= factor[i, q] * out[q]
        out[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        total = out[i]
        for q in range(i + 1, size):
            total -= factor[q, i] * out[q]
        out[i] = total / factor[i, i]


@kernel
def _one(gram: Any, allowed: Any, weights: Any) -> None:
    m = gram.shape[0]
    factor, wanted, gradient = np.empty((m, m)), np.empty(m), np.empty(m)
    at, inside = np.empty(m, np.int64), np.zeros(m, np.bool_)
    for j in range(m):
        weights[j] = 0.0
    first = -1
    for j in range(m):
        if allowed[j] and (first < 0 or gram[j, j] < gram[first, first]):
            first = j
    if first < 0:
        return
    inside[first] = True
    weights[first] = 1.0
    for _ in range(20 * m):
        value = 0.0
        for i in range(m):  # a loop compiles in a third of the time of numba's products
            total = 0.0
            for j in range(m):
                total += gram[i, j] * weights[j]
            gradient[i] = total
            value += weights[i] * total
        enter, lowest = -1, value - 1e-12
        for j in range(m):
            if allowed[j] and not inside[j] and gradient[j] < lowest:
                enter, lowest = j, gradient[j]
        if enter < 0:
            return
        inside[enter] = True
        while True:
            size = np.int64(0)  # with a plain 0 ``_solve_ones`` would be compiled once more, for a constant
            for j in range(m):
                if inside[j]:
                    at[size] = j
                    size += 1
            _solve_ones(gram, at, size, factor, wanted)
            total = 0.0
            for i in range(size):
                total += wanted[i]
            step, leave = 1.0, -1
            for i in range(size):
                target = wanted[i] / total
                if target < 0.0:
                    here = weights[at[i]]
                    share = here / (here - target)
                    if share < step:
                        step, leave = share, at[i]
            for i in range(size):
                weights[at[i]] += step * (wanted[i] / total - weights[at[i]])
            if leave < 0:
                break
            weights[leave] = 0.0
            inside[leave] = False


@kernel
def simplex_batch(grams: Any, allowed: Any) -> Any:
    """Simplex weights of each gene, (n_genes, M), from error grams scaled to mean diagonal one; zeros where none is
    allowed."""
    n_genes, m = allowed.shape
    weights = np.zeros((n_genes, m))
    for g in range(n_genes):
        _one(grams[g], allowed[g], weights[g])
    return weights
