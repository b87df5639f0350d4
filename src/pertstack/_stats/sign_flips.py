"""Exact intervals for few groups, by flipping the signs of whole groups.

If, at the true mean t, the group residuals are symmetric about 0, every pattern of signs is equally likely. A pattern
splits the groups in two halves, and it is at least as extreme as the data exactly when t lies between the means of the
halves. So p(t) is a count over splits, and the interval its level set, without any resampling or search (Hartigan
1969; Cameron, Gelbach and Miller 2008 for few clusters).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pertstack._base.arrays import Array


def split_ends(total: Array, count: Array) -> tuple[Array, Array]:
    """Lower and upper end (2^(C-1),) between the means of the two halves, over all splits of C groups; each sorted.

    The split that leaves all groups together spans everything: it counts at every t. Groups without valid samples are
    left out.
    """
    total, count = total[count > 0], count[count > 0]
    n = len(total)
    member = _few_halves(n) if n <= _KEPT else _halves(n)
    part, size = member @ total, member @ count
    low, high = np.full(len(member), -np.inf), np.full(len(member), np.inf)
    if n:
        rest, rest_size = total.sum() - part[1:], count.sum() - size[1:]
        first, second = part[1:] / size[1:], rest / rest_size
        low[1:], high[1:] = np.minimum(first, second), np.maximum(first, second)
    return np.sort(low), np.sort(high)


def _halves(n: int) -> Array:
    """(2^(n-1), n) 1.0 where a group is in the second half; the last group always stays in the first."""
    pattern = np.arange(2 ** max(0, n - 1), dtype=np.int64)
    return np.asarray((pattern[:, None] >> np.arange(n)) & 1, dtype=np.float64)


_KEPT = 12
"""Up to so many groups the splits are kept for the next row: half a megabyte at most."""
_few_halves = lru_cache(maxsize=_KEPT + 1)(_halves)


def flips(total: Array, count: Array, level: float) -> tuple[float, float, float]:
    """Interval and p-value of the mean being 0, from one look at the splits: (lo, hi, p).

    Parameters
    ----------
    total, count, level : as in ``flip_interval``.
    """
    ends = split_ends(total, count)
    return *_interval(*ends, level), _p(*ends, 0.0)


def flip_interval(total: Array, count: Array, level: float) -> tuple[float, float]:
    """All t that the two-sided sign-flip test does not reject at 1 - level; infinite with too few groups.

    Parameters
    ----------
    total : (n_groups,) sums of the values of each group.
    count : (n_groups,) how many values; the mean is ``total.sum() / count.sum()``.
    level : of the interval.
    """
    return _interval(*split_ends(total, count), level)


def _interval(low: Array, high: Array, level: float) -> tuple[float, float]:
    allowed = int(np.floor((1 - level) * len(low) + 1e-9))  # rejected while p(t) <= 1 - level
    return (float(low[allowed]), float(high[::-1][allowed])) if allowed < len(low) else (np.nan, np.nan)


def flip_p(total: Array, count: Array, at: float = 0.0) -> float:
    """Two-sided p-value of a mean: the share of splits whose half means have it between them.

    Parameters
    ----------
    total, count : (n_groups,), as in ``flip_interval``.
    at : the mean that is tested.
    """
    return _p(*split_ends(total, count), at)


def _p(low: Array, high: Array, at: float) -> float:
    n_low = np.searchsorted(low, at, side="right")  # lower end <= at
    n_above = len(high) - np.searchsorted(high, at, side="left")  # upper end >= at
    return float((n_low + n_above - len(low)) / len(low))
