"""Stacking by plain loops over rows: slow, short, and independent of every sum in ``stack/``."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def rows_of(world, reference="pooled"):
    """prediction - reference (n, M, G) and treated - reference (n, G), float64."""
    control = world["control"].astype(float)
    if reference == "pooled":
        base = np.empty_like(control)
        for line in set(world["cell_line"]):
            at = world["cell_line"] == line
            base[at] = control[at].mean(axis=0)
    else:
        base = control
    x = np.stack([p.astype(float) - base for p in world["predictions"].values()], axis=1)
    return x, world["treated"].astype(float) - base


def loop_top_gene_value(x, t, weights, k):
    """Mean over samples of r |r| on the k genes of largest |t|."""
    values = []
    for i in range(len(t)):
        genes = np.argsort(-np.abs(t[i]), kind="stable")[:k]
        mixed = weights @ x[i][:, genes]
        r = np.corrcoef(mixed, t[i][genes])[0, 1] if mixed.std() > 1e-10 else 0.0
        values.append(r * abs(r))
    return float(np.mean(values))


def slsqp_simplex(gram):
    """Simplex weights by a general solver, from every vertex and the middle."""
    m = len(gram)
    scale = np.trace(gram) / m
    best = None
    for start in [*np.eye(m), np.full(m, 1 / m)]:
        found = minimize(
            lambda w: w @ gram @ w / scale,
            start,
            jac=lambda w: 2 * gram @ w / scale,
            method="SLSQP",
            bounds=[(0, 1)] * m,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        if best is None or found.fun < best.fun:
            best = found
    return best.x


def loop_greedy(errors, rounds):
    """Greedy selection with replacement on rows of errors (n, M): counts of the best prefix."""
    taken, best, least = [], None, np.inf
    for _ in range(rounds):
        scores = [np.mean(np.mean(errors[:, [*taken, m]], axis=1) ** 2) for m in range(errors.shape[1])]
        taken.append(int(np.argmin(scores)))
        if min(scores) < least * (1 - 1e-12):
            best, least = list(taken), min(scores)
    return np.bincount(best, minlength=errors.shape[1])
