"""Bounds on "this row minus the best of these models", where nobody knows which model is best.

With d_m the mean difference to model m, the target is the smallest expectation among the d_m. A lower bound holds if
it holds against every model, so it is the smallest of their lower bounds. An upper bound against any single model
would do, but the smallest d_m is small partly by luck; its bound is widened by the maximum over all contenders, the
models that are not clearly behind the leader. With one dominant model both are its ordinary bounds; with equals the
answer stays honest.

Chernozhukov, Lee and Rosen (2013) Econometrica 81:667; Andrews and Soares (2010) Econometrica 78:119 (contenders).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pertstack.verdict.inference_core import FEW, Estimate, bootstrap_t, cautions_of, studentised
from pertstack.verdict.inference_flips import flip_interval, flip_p, one_sided
from pertstack.verdict.inference_sums import Draws, GroupSums, resample

Array = np.ndarray[Any, Any]
BEHIND = 3.0
"""A model is no contender when it is this many standard errors behind the leader."""


def bounds_to_best(
    values: Array,
    pool: Array,
    groups: Array,
    rows: Iterable[int],
    rng: np.random.Generator,
    level: float,
    resamples: int,
) -> list[Estimate]:
    """Estimates for ``rows`` of ``values`` (n_rows, n) against the best of the rows ``pool``; more is better."""
    wanted = list(rows)
    means = GroupSums.of(values, groups).means()
    if np.isnan(means[pool]).all():
        return [Estimate(np.nan, -np.inf, np.inf, None, 0, 0, "none", level, ("no defined sample",)) for _ in wanted]
    pool = pool[~np.isnan(means[pool])]
    leader = pool[int(np.argmax(means[pool]))]
    contender = _contenders(values, pool, int(leader), groups)
    pairs = [GroupSums.of(values[row] - values[pool], groups) for row in wanted]
    few = pairs[0].total.shape[1] <= FEW if pairs else True
    draws: Draws | None = None
    if pairs and not few:
        stacked = GroupSums(np.concatenate([p.total for p in pairs]), np.concatenate([p.count for p in pairs]))
        draws = resample(stacked, resamples, rng)
    found = []
    for i, (row, sums) in enumerate(zip(wanted, pairs, strict=True)):
        others = pool != row
        part = slice(i * len(pool), (i + 1) * len(pool))
        mine = None if draws is None else Draws(draws.means[:, part], draws.errors[:, part])
        lead = int(np.flatnonzero(pool == leader)[0])
        found.append(_estimate(sums, mine, others, contender, lead, level))
    return found


def _contenders(values: Array, pool: Array, leader: int, groups: Array) -> Array:
    """(n_pool,) models whose mean is not clearly behind the leader's."""
    behind = GroupSums.of(values[leader] - values[pool], groups)
    with np.errstate(invalid="ignore"):
        near: Array = ~(behind.means() > BEHIND * behind.errors()) | (pool == leader)
    return near


def _estimate(
    sums: GroupSums, draws: Draws | None, others: Array, contender: Array, lead: int, level: float
) -> Estimate:
    """Bounds of one row from its differences to every model of the pool."""
    d = sums.means()
    value, n = float(d[lead]), int(sums.count[lead].sum())
    usable = others & ~np.isnan(d) & (sums.n_groups >= 2)
    rivals = np.flatnonzero(usable)
    close = np.flatnonzero(usable & contender)
    n_groups = int(sums.n_groups[lead])
    itself = not others.all()  # the row is one of the pool, so it cannot be better than the best
    if len(rivals) == 0 or (len(close) == 0 and not itself):
        return Estimate(
            value, -np.inf, np.inf, None, n_groups, n, "none", level, cautions_of(n_groups, -np.inf, np.inf)
        )
    if draws is None:
        lo, hi, p, method = _by_flips(sums, rivals, close, level)
    else:
        lo, hi, p, method = _by_resampling(sums, draws, rivals, close, level)
    if itself:
        lo, hi, p = min(lo, 0.0), min(hi, 0.0), (p if value < 0 else 1.0)
    return Estimate(value, lo, hi, p, n_groups, n, method, level, cautions_of(n_groups, lo, hi))


def _by_resampling(
    sums: GroupSums, draws: Draws, rivals: Array, close: Array, level: float
) -> tuple[float, float, float, str]:
    d, error = sums.means(), sums.errors()
    t = studentised(draws, d)
    each = [bootstrap_t(float(d[m]), float(error[m]), t[:, m], level) for m in rivals]
    lo = min(low for low, _, _ in each)
    p_above = max(p if d[m] > 0 else 1.0 for m, (_, _, p) in zip(rivals, each, strict=True))
    hi, p_below = np.inf, 1.0
    if len(close):
        luck = np.max(-t[:, close], axis=1)
        luck = luck[~np.isnan(luck)]
        widen = float(np.quantile(luck, (1 + level) / 2)) if luck.size else np.inf
        hi = float(np.min(d[close] + widen * error[close]))
        with np.errstate(divide="ignore", invalid="ignore"):
            worst = np.nanmax(
                np.where(error[close] > 0, -d[close] / error[close], np.where(d[close] < 0, np.inf, -np.inf))
            )
        p_below = min(1.0, 2 * (1 + int((luck >= worst).sum())) / (1 + luck.size))
    return lo, max(hi, lo), min(1.0, p_above if (d[rivals] > 0).all() else p_below), "bootstrap_t over all models"


def _by_flips(sums: GroupSums, rivals: Array, close: Array, level: float) -> tuple[float, float, float, str]:
    d = sums.means()
    lo = min(flip_interval(sums.total[m], sums.count[m], level)[0] for m in rivals)
    p_above = max(flip_p(sums.total[m], sums.count[m]) if d[m] > 0 else 1.0 for m in rivals)
    hi, p_below = np.inf, 1.0
    if len(close):
        alpha = (1 - level) / 2 / len(close)
        hi = min(one_sided(sums.total[m], sums.count[m], alpha)[1] for m in close)
        p_below = min(1.0, len(close) * min(flip_p(sums.total[m], sums.count[m]) if d[m] < 0 else 1.0 for m in close))
    return lo, max(hi, lo), p_above if (d[rivals] > 0).all() else p_below, "sign_flips over all models"
