"""Numba kernel: mean R2 Top-k of weights that differ by gene, and its gradient by scatter-add (methods F8).

Its answers are checked against a plain loop and finite differences in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pertstack._base.machine.compiled import kernel


@kernel
def value_and_gradient(genes: Any, x: Any, t: Any, weights: Any, floor: float, gradient: Any) -> float:
    """Mean over samples of r |r|; adds its derivative to ``gradient`` (n_genes, M), which must come in as zeros.

    genes (n, k) int, x (n, M, k) predictions and t (n, k) centred truth on each sample's top genes, weights
    (n_genes, M). A prediction of variance sum below ``floor`` counts 0.
    """
    n, n_models, k = x.shape
    total = 0.0
    p = np.empty(k)
    for i in range(n):
        mean = 0.0
        for j in range(k):
            value = 0.0
            for m in range(n_models):
                value += weights[genes[i, j], m] * x[i, m, j]
            p[j] = value
            mean += value
        mean /= k
        pp, pt, tt = 0.0, 0.0, 0.0
        for j in range(k):
            p[j] -= mean
            pp += p[j] * p[j]
            pt += p[j] * t[i, j]
            tt += t[i, j] * t[i, j]
        if pp <= floor:
            continue
        root = np.sqrt(pp * tt)
        r = pt / root
        total += r * abs(r)
        steep = 2.0 * abs(r) / n
        for j in range(k):
            pull = steep * (t[i, j] / root - r * p[j] / pp)
            for m in range(n_models):
                gradient[genes[i, j], m] += pull * x[i, m, j]
    mean_value: float = total / max(n, 1)
    return mean_value
