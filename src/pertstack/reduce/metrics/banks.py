"""Which other perturbations one is held against: those that the fit which predicts it has not seen either.

Out of fold a fit knows the perturbations of the other folds: their truth is in its level, so its predictions lie nearer
to them than to what it never saw, and a constant retrieves worse than chance (0.44 where a constant that knew none of
them has 0.50; the mean of them, subtracted, anti-correlates). On the test no perturbation was seen. So the bank is the
fold, and what a number means out of fold is what it means on the test.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Codes = np.ndarray[Any, np.dtype[np.int64]]


def banks(in_fold: Any) -> Codes:
    """(n,) the bank of every perturbation, from its rows by fold (n, n_folds): its fold; those that lie in several
    folds, which every fit has seen, are a bank together.

    >>> banks([[3, 0], [0, 2], [1, 1], [2, 0]])
    array([0, 1, 2, 0])
    """
    there = np.asarray(in_fold) > 0
    alone: Codes = np.where(there.sum(axis=1) == 1, there.argmax(axis=1), there.shape[1]).astype(np.int64)
    return alone
