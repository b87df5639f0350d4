"""Groups that share parts: combinations of one gene are hard or easy alike, so their mean varies more than that of
as many groups that have nothing to do with each other.

One place for every interval: ``predict`` reads ``spread_of_mean``; the board, the verdict, the panel of the choice and
calibration widen their own by ``wider``. Whoever has no combinations hands in None, and nothing is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64

Parts = Mapping[str, Sequence[str]]
"""Group -> names of its parts. Every group of the values must be in it."""
LEAST_FREE = 0.1
"""Where nearly all groups share a part, what they have in common cannot be told from the mean: they count as apart."""
_REACH = 0.975


@dataclass(frozen=True)
class Shared:
    """Which groups have which parts, a line each."""

    group: Any  # (n_lines,) position of a group
    part: Any  # (n_lines,) position of one of its parts
    n_parts: int

    @classmethod
    def of(cls, keys: Sequence[Sequence[str]]) -> Shared:
        """Of the parts of every group, in order."""
        found: dict[str, int] = {}
        lines = [(i, found.setdefault(part, len(found))) for i, key in enumerate(keys) for part in key]
        group, part = np.array(lines, dtype=np.int64).reshape(-1, 2).T
        return cls(group, part, len(found))

    @property
    def n_sharing(self) -> int:
        """Groups that share a part with another."""
        often = np.bincount(self.part, minlength=self.n_parts) > 1
        return len(np.unique(self.group[often[self.part]]))

    def told(self, n: int) -> bool:
        """Whether what groups of one size have in common can be told from the mean of ``n`` of them."""
        equal = np.full(n, 1 / n)
        return 1 - 1 / n - self.over_pairs(equal) > LEAST_FREE

    def over_pairs(self, x: Float64) -> float:
        """Sum of x_i x_j over i != j, once for every part that the two share.

        >>> Shared.of([("a", "b"), ("b", "c"), ("d",)]).over_pairs(np.array([2.0, 3.0, 5.0]))
        12.0
        """
        mine = x[self.group]
        of_part = np.bincount(self.part, mine, self.n_parts)
        return float(of_part @ of_part - mine @ mine)


@dataclass(frozen=True)
class SpreadOfMean:
    """What the mean over groups varies by; variances, in squared units of the values."""

    group: float  # of one group about the mean that is to be known
    alike: float  # covariance of two groups for every part that they share; never below 0
    mean: float  # of the mean seen
    apart: float  # the same if no two groups shared a part; never above ``mean``
    n_alone: float  # groups that speak in effect, by their weights alone
    n: float  # the same when sharing counts too


def spread_of_mean(pull: Float64, share: Float64, shared: Shared | None = None) -> SpreadOfMean:
    """How surely a mean is known if groups that share a part vary together.

    A group g with share p_g of the weight varies by s2 about the mean to be known, and two groups that share a part
    vary together by c (dyads: Aronow, Samii and Assenova 2015, Political Analysis 23:564; here with one covariance for
    all pairs, as few pairs do not tell them apart). The mean then has variance v = s2 sum p^2 + c sum p_g p_h over
    pairs that share. Both are solved from the spread about the mean seen, which is s2 - v, and the mean product of such
    pairs, c - v: plugging in residuals, whose products are too small by v, would hide most of c in few groups.

    A bad estimate never makes an interval narrower: a negative c counts as 0, one above s2 as s2. Where the mean shares
    so much with everything that less than ``LEAST_FREE`` of s2 and c is left to be seen (all combinations have one
    part), c counts as 0: then the answer is for combinations with that part.

    Parameters
    ----------
    pull : (n_groups,), what each group adds to the mean beyond it; they sum to 0.
    share : (n_groups,), positive, of sum 1; at least two groups.
    shared : which groups share parts; None: none do.
    """
    alone = float(share @ share)
    spread = float((pull**2 / share).sum())
    apart = spread * alone / (1 - alone)
    pairs = 0.0 if shared is None else shared.over_pairs(share)
    free, alike, error = 1 - alone - pairs, 0.0, apart
    if shared is not None and pairs > 1e-12 and free > LEAST_FREE:
        together = shared.over_pairs(pull) / pairs
        found = (spread * alone + together * pairs) / free
        alike = min(max(0.0, together + found), spread + found)
        error = found if alike > 0 else apart
    variance = spread + error
    n = 1 / (alone + pairs * alike / variance) if variance > 0 else 1 / alone
    return SpreadOfMean(variance, alike, error, apart=apart, n_alone=1 / alone, n=n)


@lru_cache(maxsize=4096)
def quantile_of_few(n: float) -> float:
    """Half the width of a 95 % interval in standard errors, if ``n`` groups speak in effect: of t, with n - 1
    degrees of freedom and at least one."""
    from scipy import stats  # slow to import

    return float(stats.t.ppf(_REACH, max(1.0, n - 1)))


def keys_of(labels: Sequence[str], parts: Parts) -> Shared | None:
    """Which of the groups ``labels`` share parts; None if no two do."""
    shared = Shared.of([parts[label] for label in labels])
    return shared if len(set(shared.part.tolist())) < len(shared.part) else None


def wider(pull: Float64, share: Float64, shared: Shared | None) -> float:
    """By how much an interval over groups that counts them as apart must be widened about its middle: 1 or more.

    The root of the ratio of variances of ``spread_of_mean``, times that of the quantiles of t, since fewer groups speak
    than there are. Groups without a value have a share of 0.

    Parameters
    ----------
    pull, share : (n_groups,), as in ``spread_of_mean``.
    shared : which groups share parts; None: 1.
    """
    here = share > 0
    if shared is None or here.sum() < 2 or not pull.any():
        return 1.0
    if not here.all():
        place, kept = np.cumsum(here) - 1, here[shared.group]
        shared = Shared(place[shared.group[kept]], shared.part[kept], shared.n_parts)
    found = spread_of_mean(pull[here], share[here] / share[here].sum(), shared)
    if not found.alike > 0 or not found.apart > 0:
        return 1.0
    ratio = np.sqrt(found.mean / found.apart) * quantile_of_few(found.n) / quantile_of_few(found.n_alone)
    return max(1.0, float(ratio))
