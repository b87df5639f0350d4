"""How sure is a mean, and how sure is a difference? Intervals over whole groups, for the verdict.

More than ``FEW`` groups: cluster bootstrap, studentised and symmetric. Fewer: exact sign flips of groups; the
wild cluster bootstrap (``_stats/wild_bootstrap.py``) is there by name. "Minus the
best single model" is a difference to whichever model is best, which is not known: ``difference_to_best`` bounds it
against all of them (intersection bounds), because a bootstrap that merely picks the best model inside each resample
covers far too rarely when models are close (docs/calibration.md has the numbers of both). Questions about several
combiners at once are in ``_stats/multiple.py``; what is compared with what is decided in ``verdict``.

References: Cameron, Gelbach and Miller (2008) Rev. Econ. Stat. 90:414; Hall (1988) Ann. Stat. 16:927 (symmetric
bootstrap-t); Efron (1987) JASA 82:171 (BCa); Chernozhukov, Lee and Rosen (2013) Econometrica 81:667 (bounds on a
minimum of means).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._stats.estimate import (
    FEW,
    RESAMPLES,
    ROUGH,
    Estimate,
    Method,
    bootstrap_t,
    cautions_of,
    check_choices,
    studentised,
)
from pertstack._stats.group_sums import Draws, GroupSums, resample
from pertstack._stats.shared_parts import Parts
from pertstack._stats.sign_flips import flips
from pertstack._stats.versus_best import bounds_to_best
from pertstack._stats.wild_bootstrap import WildWeights, wild_interval, wild_p, wild_weights

__all__ = [
    "FEW",
    "RESAMPLES",
    "ROUGH",
    "Estimate",
    "Method",
    "difference_to_best",
    "difference_to_fixed",
    "interval",
    "intervals",
]


def interval(
    values: Array,
    groups: Array,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    method: Method = "auto",
    parts: Parts | None = None,
) -> Estimate:
    """Mean over the valid samples of one row, with an interval; whole groups are resampled.

    Parameters
    ----------
    values : (n,); NaN where undefined.
    groups : (n,) labels.
    rng, level, resamples, method, parts : as in ``intervals``.
    """
    found = intervals(
        np.asarray(values)[None, :], groups, rng=rng, level=level, resamples=resamples, method=method, parts=parts
    )
    return found[0]


def intervals(
    values: Array,
    groups: Array,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    method: Method = "auto",
    parts: Parts | None = None,
) -> list[Estimate]:
    """One estimate per row; all rows see the same resamples. ``p`` is of the mean being 0; read it for differences
    only.

    Parameters
    ----------
    values : (n_rows, n); NaN where undefined.
    groups : (n,) labels of what is resampled whole.
    rng : draws the groups; unused if intervals are exact.
    level : of a two-sided interval.
    resamples : 100 or more; unused if intervals are exact.
    method : "auto" flips the signs of whole groups if there are few, and takes the symmetric bootstrap-t of groups
        elsewhere; others by name, see ``Method``.
    parts : group -> names of its parts, if groups are combinations that share some: these vary together, which
        widens the interval (``_stats/shared_parts.py``). None if they share none.

    Raises
    ------
    InputError, UnknownNameError
        A level outside (0.5, 1), fewer than 100 resamples, shapes that differ, an unknown method.
    """
    check_choices(level, resamples, method)
    sums = GroupSums.of(values, groups, parts)
    if method == "wild_rademacher" or method == "wild_webb":
        kind: WildWeights = "webb" if method == "wild_webb" else "rademacher"
        weights = wild_weights(kind, sums.total.shape[1], resamples, rng=rng)
        return [_wild(sums.take([row]), weights, level, method) for row in range(sums.n_rows)]
    draws = resample(sums, resamples, rng) if _needs_draws(sums, method) else None
    return [_one(sums.take([row]), _column(draws, row), level, method) for row in range(sums.n_rows)]


def difference_to_fixed(
    first: Array,
    second: Array,
    groups: Array,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    method: Method = "auto",
    parts: Parts | None = None,
) -> Estimate:
    """Paired mean of ``first - second`` over the samples on which both are defined.

    For a competitor that was named without looking at these values: the mean, or the model that was best out of fold.

    Parameters
    ----------
    first, second : (n,), one score per sample, NaN where undefined.
    groups : (n,) labels of what is resampled whole.
    rng, level, resamples, method, parts : as in ``intervals``.
    """
    paired = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return interval(paired, groups, rng=rng, level=level, resamples=resamples, method=method, parts=parts)


def _needs_draws(sums: GroupSums, method: Method) -> bool:
    few = sums.total.shape[1] <= FEW
    return sums.total.shape[1] > 1 and method != "sign_flips" and not (method == "auto" and few)


def _column(draws: Draws | None, row: int) -> Draws | None:
    return None if draws is None else Draws(draws.means[:, [row]], draws.errors[:, [row]])


def _one(sums: GroupSums, draws: Draws | None, level: float, method: Method) -> Estimate:
    """Estimate of a single row."""
    value, n_groups, n = float(sums.means()[0]), int(sums.n_groups[0]), int(sums.count.sum())
    chosen = method if method != "auto" else "sign_flips" if n_groups <= FEW else "bootstrap_t"
    if n_groups < 2:
        return Estimate(
            value,
            -np.inf,
            np.inf,
            p=None,
            n_clusters=n_groups,
            n=n,
            method=chosen,
            level=level,
            cautions=cautions_of(n_groups, -np.inf, np.inf),
        )
    lo, hi, p = -np.inf, np.inf, None
    if chosen == "sign_flips":
        lo, hi, p = flips(sums.total[0], sums.count[0], level)
    elif draws is not None:
        error = float(sums.errors()[0])
        means = draws.means[:, 0]
        if chosen == "bootstrap_t":
            lo, hi, p = bootstrap_t(value, error, studentised(draws, np.array([value]))[:, 0], level)
        else:
            tails = _tails(sums, means, value, level) if chosen == "bca" else ((1 - level) / 2, (1 + level) / 2)
            lo, hi = (float(q) for q in np.nanquantile(means, tails))
            below = float(np.nanmean(means <= 0))
            p = min(1.0, 2 * max(min(below, 1 - below), 1 / (len(means) + 1)))
    return Estimate(
        value, lo, hi, p=p, n_clusters=n_groups, n=n, method=chosen, level=level, cautions=cautions_of(n_groups, lo, hi)
    )


def _wild(sums: GroupSums, weights: Array, level: float, method: str) -> Estimate:
    """Estimate of a single row by the wild cluster bootstrap."""
    value, n_groups, n = float(sums.means()[0]), int(sums.n_groups[0]), int(sums.count.sum())
    lo, hi, p = -np.inf, np.inf, None
    if n_groups >= 2:
        lo, hi = wild_interval(sums.total[0], sums.count[0], weights, level)
        p = wild_p(sums.total[0], sums.count[0], weights)
    return Estimate(
        value, lo, hi, p=p, n_clusters=n_groups, n=n, method=method, level=level, cautions=cautions_of(n_groups, lo, hi)
    )


def _tails(sums: GroupSums, means: Array, value: float, level: float) -> tuple[float, float]:
    """Quantiles that BCa reads: bias from the resamples, acceleration from leaving out one group at a time."""
    from scipy.special import ndtr, ndtri  # slow to import

    total, count = sums.total[0], sums.count[0]
    rest = count.sum() - count
    left_out = np.divide(total.sum() - total, rest, out=np.full_like(total, np.nan), where=rest > 0)
    spread = np.nanmean(left_out) - left_out
    scale = float(np.nansum(spread**2)) ** 1.5
    acceleration = float(np.nansum(spread**3)) / (6 * scale) if scale > 0 else 0.0
    share = float(np.clip(np.nanmean(means < value), 1 / len(means), 1 - 1 / len(means)))
    bias, ends = float(ndtri(share)), ndtri([(1 - level) / 2, (1 + level) / 2])
    share_at = np.asarray(ndtr(bias + (bias + ends) / (1 - acceleration * (bias + ends))))
    return float(share_at[0]), float(share_at[1])


def difference_to_best(
    values: Array,
    candidates: Array,
    groups: Array,
    *,
    rng: np.random.Generator,
    better: int = 1,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    rows: Sequence[int] | None = None,
    parts: Parts | None = None,
) -> list[Estimate]:
    """Every row minus the best row among ``candidates``, whichever that is. See ``_stats/versus_best.py``.

    Parameters
    ----------
    values : array, shape (n_rows, n)
        Per-sample values, NaN where undefined. A difference is taken over the samples on which both rows are defined.
    candidates : bool array, shape (n_rows,)
        The rows the best is chosen from.
    groups : array, shape (n,)
        Labels of what is resampled whole.
    rng, level, resamples, parts
        As in ``intervals``.
    better : {1, -1}
        1 when more is better.
    rows : indices, optional
        Rows to compare (all when not given); the answer has one estimate for each.
    """
    check_choices(level, resamples, "auto")
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    pool = np.flatnonzero(np.asarray(candidates, dtype=bool))
    if len(pool) == 0:
        raise InputError("There is no candidate for the best single model; mark at least one row.")
    wanted = range(len(values)) if rows is None else rows
    found = bounds_to_best(
        better * values, pool, np.asarray(groups), rows=wanted, rng=rng, level=level, resamples=resamples, parts=parts
    )
    if better == 1:
        return found
    return [
        Estimate(
            -e.value,
            -e.hi,
            -e.lo,
            p=e.p,
            n_clusters=e.n_clusters,
            n=e.n,
            method=e.method,
            level=e.level,
            cautions=e.cautions,
        )
        for e in found
    ]
