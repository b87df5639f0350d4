"""Greedy selection on R2 Top-k by a plain loop over rows: every candidate is mixed, sliced and correlated anew."""

from __future__ import annotations

import numpy as np


def loop_mean_r2(mixed, t, tops):
    """Mean over samples of r |r| between the mixture (n, G) and the truth on each sample's top genes."""
    values = []
    for i, genes in enumerate(tops):
        p, y = mixed[i, genes], t[i, genes]
        p, y = p - p.mean(), y - y.mean()
        size = np.sqrt((p @ p) * (y @ y))
        r = p @ y / size if p.std() > 1e-10 else 0.0
        values.append(r * abs(r))
    return float(np.mean(values))


def loop_greedy_r2(x, t, k, rounds, start=1):
    """Counts (M,) of the best state; x (n, M, G) predictions and t (n, G) truth against one reference."""
    n_models = x.shape[1]
    tops = [np.argsort(-np.abs(row), kind="stable")[:k] for row in t]
    single = [loop_mean_r2(x[:, m], t, tops) for m in range(n_models)]
    order = sorted(range(n_models), key=lambda m: -single[m])
    taken, most = [], -np.inf
    for size in range(1, min(start, rounds, n_models) + 1):
        value = loop_mean_r2(x[:, order[:size]].mean(axis=1), t, tops)
        if value > most + 1e-12:
            taken, most = order[:size], value
    best = list(taken)
    while len(taken) < rounds:
        total = x[:, taken].sum(axis=1)
        values = [loop_mean_r2((total + x[:, m]) / (len(taken) + 1), t, tops) for m in range(n_models)]
        taken = [*taken, int(np.argmax(values))]
        if max(values) > most + 1e-12:
            best, most = list(taken), max(values)
    return np.bincount(best, minlength=n_models)
