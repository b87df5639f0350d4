"""Metrics as one would write them by hand: a loop over samples, scipy and scikit-learn for each. Slow and plain on
purpose.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score


def top_of(t, k):
    return sorted(range(len(t)), key=lambda g: (-abs(t[g]), g))[: min(k, len(t))]


def value(kind, t, p, strict=False):
    """One metric for one sample on the genes given; nan where undefined."""
    if kind == "rmse":
        return mean_squared_error(t, p) ** 0.5
    if kind == "mae":
        return mean_absolute_error(t, p)
    if kind == "sign_acc":
        return float(np.mean(np.sign(t) == np.sign(p)))
    if kind == "cosine":
        if np.sqrt(np.mean(t**2)) < 1e-10:
            return np.nan
        return 0.0 if np.sqrt(np.mean(p**2)) < 1e-10 else float(t @ p / np.linalg.norm(t) / np.linalg.norm(p))
    if np.std(t) < 1e-10:
        return np.nan
    if kind == "cod":
        return r2_score(t, p)
    if np.std(p) < 1e-10:
        return np.nan if kind == "r2" and not strict else 0.0
    if kind == "spearman":
        return stats.spearmanr(t, p).statistic
    r = stats.pearsonr(t, p).statistic
    return r**2 if kind == "r2" else r


def metric_loop(kind, top, prediction, treated, reference, strict=False):
    """Values (n,) of one metric; reference (n, n_genes) or (n_genes,)."""
    t_all = treated.astype(float) - np.asarray(reference, dtype=float)
    p_all = prediction.astype(float) - np.asarray(reference, dtype=float)
    out = []
    for t, p in zip(t_all, p_all, strict=True):
        if np.isnan(p).any():
            out.append(np.nan)
            continue
        genes = range(len(t)) if top is None else top_of(t, top)
        out.append(value(kind, t[list(genes)], p[list(genes)], strict))
    return np.array(out)


def discrimination_loop(truth, prediction, distance):
    """cell-eval's idea by double loop: share of other truths farther than the own, ties half."""
    out = []
    for i, p in enumerate(prediction):
        d = [distance(p, t) for t in truth]
        others = [1.0 if d[q] > d[i] else 0.5 if d[q] == d[i] else 0.0 for q in range(len(truth)) if q != i]
        out.append(np.mean(others))
    return np.array(out)


def centroid_loop(source, line, fold):
    """Mean treated profile of a line, a row at a time, over development rows that are not in the fold."""
    rows = []
    for block, table in source.tables.items():
        if block.cell_line == line and block.fold is not None and block.fold != fold:
            rows += [source.layers[(block, "treated")][i].astype(float) for i in range(len(table))]
    return sum(rows) / len(rows)
