"""Inner validation for models that stop early: whole groups of the fit rows, never a row from outside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def inner_split(rows: FitRows, share: float, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """Masks (n_samples,) of rows to fit on and rows to validate on; whole groups of the fold plan move together.

    Groups are drawn at random until enough rows are validation, but always one group or more on each side. With a
    single group rows are split instead (nothing else is possible, and the caller's early stopping is then optimistic);
    with a single row both masks hold it. The draw depends on ``rng`` and the sorted groups, so the order of rows is
    irrelevant unless there is a single group.

    Parameters
    ----------
    rows : that the model is fitted on.
    share : least share of validation rows, between 0 and 1.
    rng : draws the groups.

    Raises
    ------
    InputError
        ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise InputError(f"The share of inner validation is {share}; it must lie between 0 and 1, such as 0.1.")
    n = rows.n_samples
    groups, index, counts = np.unique(rows.group.astype(str), return_inverse=True, return_counts=True)
    if len(groups) == 1:
        groups, index, counts = rows.sample_ids, np.arange(n), np.ones(n, dtype=np.int64)
    if len(groups) == 1:
        return np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    order = rng.permutation(len(groups))
    before = np.cumsum(counts[order]) - counts[order]
    n_chosen = min(max(1, int((before < share * n).sum())), len(groups) - 1)
    chosen = np.zeros(len(groups), dtype=bool)
    chosen[order[:n_chosen]] = True
    validation = chosen[index]
    return ~validation, validation
