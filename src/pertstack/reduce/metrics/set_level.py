"""Set-level metrics: does a prediction resemble its own perturbation's truth more than that of the others?

Profiles are means over the rows of a perturbation within a cell line (prediction and truth minus the reference).
Each sample gets the value of its perturbation, so that these numbers can be resampled by group like any other. The
others are those of the same fold, or the whole test (``banks``). Whose profiles are compared is in
``scoring/set_values.py``.

References: perturbation discrimination score of the Virtual Cell Challenge (Roohani et al. 2025), in its mid-rank
form; centroid accuracy of Systema (Vinas Torne et al. 2025).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack.reduce.metrics.nearest import Truths

_ROWS = 64


def discrimination(truth: Any, prediction: Any, distance: str = "l1") -> Float64:
    """Mid-rank discrimination of each profile among all, (n,).

    For profile i: 1 - (closer + (equal - 1) / 2) / (n - 1), where ``closer`` counts true profiles strictly nearer to
    prediction i than its own truth, and ``equal`` those just as near, itself included. 1 is perfect, 0.5 is chance.

    Parameters
    ----------
    truth, prediction : arrays, shape (n, n_genes)
        Row i of both is the same perturbation. A prediction with NaN answers NaN; n = 1 answers NaN.
    distance : "l1", "l2" or "cosine"
        A zero vector has cosine distance 1 to everything.
    """
    t, p = (np.ascontiguousarray(v, dtype=np.float64) for v in (truth, prediction))
    answer: Float64 = mid_ranks(Truths(t, [distance]), p, None)[0]
    return answer


def mid_ranks(truths: Truths, p: Float64, pool: ThreadPoolExecutor | None) -> Float64:
    """Discrimination for each distance, (n_distances, n).

    Parameters
    ----------
    truths : n true profiles, with the distances.
    p : (n, n_genes) predicted ones in the same order; rows with NaN answer NaN.
    pool : threads that share the work; None for none.
    """
    n = len(p)
    answer: Float64 = np.full((len(truths.distances), n), np.nan)
    known = np.flatnonzero(np.isfinite(p).all(axis=1))
    if n < 2 or not len(known):
        return answer

    def ranked(rows: Any) -> None:
        closer, equal = truths.nearer(p[rows], rows)
        answer[:, rows] = 1.0 - (closer + (equal - 1) / 2) / (n - 1)

    pieces = [known[a : a + _ROWS] for a in range(0, len(known), _ROWS)]
    if pool is None:
        for rows in pieces:
            ranked(rows)
    else:
        for done in [pool.submit(ranked, rows) for rows in pieces]:
            done.result()
    return answer
