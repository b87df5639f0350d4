"""Exact intervals for few groups, by flipping the signs of whole groups.

If, at the true mean t, the group residuals are symmetric about 0, every pattern of signs is equally likely. A pattern
splits the groups in two halves, and it is at least as extreme as the data exactly when t lies between the means of the
halves. So p(t) is a count over splits, and the interval its level set, without any resampling or search (Hartigan
1969; Cameron, Gelbach and Miller 2008 for few clusters).
"""

from __future__ import annotations

import numpy as np

from pertstack._base.arrays import Array


def split_ends(total: Array, count: Array) -> tuple[Array, Array]:
    """Lower and upper end (2^(C-1),) between the means of the two halves, over all splits of C groups; each sorted.

    The split that leaves all groups together spans everything: it counts at every t. Groups without valid samples are
    left out.
    """
    total, count = total[count > 0], count[count > 0]
    n = len(total)
    pattern = np.arange(2 ** max(0, n - 1), dtype=np.int64)  # the last group always stays in the first half
    member = ((pattern[:, None] >> np.arange(n)) & 1).astype(np.float64)
    part, size = member @ total, member @ count
    low, high = np.full(len(pattern), -np.inf), np.full(len(pattern), np.inf)
    if n:
        rest, rest_size = total.sum() - part[1:], count.sum() - size[1:]
        first, second = part[1:] / size[1:], rest / rest_size
        low[1:], high[1:] = np.minimum(first, second), np.maximum(first, second)
    return np.sort(low), np.sort(high)


def flip_interval(total: Array, count: Array, level: float) -> tuple[float, float]:
    """All t that the two-sided sign-flip test does not reject at 1 - level; infinite with too few groups.

    Parameters
    ----------
    total : (n_groups,) sums of the values of each group.
    count : (n_groups,) how many values; the mean is ``total.sum() / count.sum()``.
    level : of the interval.
    """
    low, high = split_ends(total, count)
    allowed = int(np.floor((1 - level) * len(low) + 1e-9))  # rejected while p(t) <= 1 - level
    return (float(low[allowed]), float(high[::-1][allowed])) if allowed < len(low) else (np.nan, np.nan)


def flip_p(total: Array, count: Array, at: float = 0.0) -> float:
    """Two-sided p-value of a mean: the share of splits whose half means have it between them.

    Parameters
    ----------
    total, count : (n_groups,), as in ``flip_interval``.
    at : the mean that is tested.
    """
    low, high = split_ends(total, count)
    n_low = np.searchsorted(low, at, side="right")  # lower end <= at
    n_above = len(high) - np.searchsorted(high, at, side="left")  # upper end >= at
    return float((n_low + n_above - len(low)) / len(low))
