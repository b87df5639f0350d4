"""Rank averages and robust means by plain loops, one sample and gene at a time."""

from __future__ import annotations

import numpy as np


def loop_rank_average(delta):
    """(M, n, G) -> (n, G): mean rank over models, read off the mean sorted profile by ``np.interp``."""
    n_models, n, n_genes = delta.shape
    out = np.empty((n, n_genes))
    for i in range(n):
        ranks = np.zeros(n_genes)
        for m in range(n_models):
            for g in range(n_genes):
                below = np.sum(delta[m, i] < delta[m, i, g])
                same = np.sum(delta[m, i] == delta[m, i, g])
                ranks[g] += (below + (same + 1) / 2) / n_models
        profile = np.mean([np.sort(delta[m, i]) for m in range(n_models)], axis=0)
        out[i] = np.interp(ranks, np.arange(1, n_genes + 1), profile)
    return out
