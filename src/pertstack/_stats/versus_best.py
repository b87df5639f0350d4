"""Bounds on "this row minus the best of these models", when the best model is not known beforehand.

With d_m the mean difference to model m, the target is the smallest expectation among the d_m. A lower bound holds if
it holds against every model, so it is the smallest of their lower bounds (Berger 1982, Technometrics 24:295); no bound
that holds whichever model is best can be much higher. Where several models are close it errs far less often than it
may. The upper end, read from the tests of ``versus_best_null.py``, spends what the lower one leaves of ``1 - level``.
With one dominant model both ends are its ordinary ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pertstack._base.arrays import Array
from pertstack._stats.estimate import FEW, Estimate, bootstrap_t, cautions_of, studentised
from pertstack._stats.group_sums import Draws, GroupSums, resample
from pertstack._stats.shared_parts import Parts
from pertstack._stats.sign_flips import flips
from pertstack._stats.versus_best_null import FlippedNull, Null, ResampledNull, null_p, upper_end


def bounds_to_best(
    values: Array,
    pool: Array,
    groups: Array,
    *,
    rows: Iterable[int],
    rng: np.random.Generator,
    level: float,
    resamples: int,
    parts: Parts | None = None,
) -> list[Estimate]:
    """Estimates for some rows against the best of a pool; more is better.

    Parameters
    ----------
    values : (n_rows, n) scores per sample, NaN where undefined; errors with their sign turned.
    pool : positions of the rows among which the best is; a row without a defined mean is left out of it.
    groups : (n,) labels.
    rows : positions of the rows to compare, each of which may be in the pool.
    rng, resamples : of the draws of groups, shared by all pairs; unused if signs are flipped.
    level : of the bounds.
    parts : of groups that share some; see ``GroupSums.of``.
    """
    wanted = list(rows)
    means = GroupSums.of(values, groups).means()
    if np.isnan(means[pool]).all():
        return [
            Estimate(
                np.nan,
                -np.inf,
                np.inf,
                p=None,
                n_clusters=0,
                n=0,
                method="none",
                level=level,
                cautions=("no defined sample",),
            )
            for _ in wanted
        ]
    pool = pool[~np.isnan(means[pool])]
    lead = int(np.argmax(means[pool]))
    pairs = [GroupSums.of(values[row] - values[pool], groups, parts) for row in wanted]
    few = pairs[0].total.shape[1] <= FEW if pairs else True
    draws: Draws | None = None
    if pairs and not few:
        stacked = GroupSums(np.concatenate([p.total for p in pairs]), np.concatenate([p.count for p in pairs]))
        draws = resample(stacked, resamples, rng)
    found = []
    for i, (row, sums) in enumerate(zip(wanted, pairs, strict=True)):
        part = slice(i * len(pool), (i + 1) * len(pool))
        mine = None if draws is None else Draws(draws.means[:, part], draws.errors[:, part])
        found.append(_estimate(sums, mine, pool != row, lead=lead, level=level))
    return found


def _estimate(sums: GroupSums, draws: Draws | None, others: Array, *, lead: int, level: float) -> Estimate:
    """Bounds of one row from its differences to every model of the pool."""
    d = sums.means()
    value, n, n_groups = float(d[lead]), int(sums.count[lead].sum()), int(sums.n_groups[lead])
    rivals = np.flatnonzero(others & ~np.isnan(d) & (sums.n_groups >= 2))
    itself = not others.all()  # the row is one of the pool, so it cannot be better than the best
    if len(rivals) == 0:
        unknown = cautions_of(n_groups, -np.inf, np.inf)
        return Estimate(
            value, -np.inf, np.inf, p=None, n_clusters=n_groups, n=n, method="none", level=level, cautions=unknown
        )
    mine = sums.take(rivals)
    each: list[tuple[float, float]]  # lower end and two-sided p against every rival
    null: Null
    if draws is None:
        each = [(low, p) for low, _, p in (flips(t, c, level) for t, c in zip(mine.total, mine.count, strict=True))]
        null, method = FlippedNull.of(mine), "sign_flips over all models"
    else:
        drawn = Draws(draws.means[:, rivals], draws.errors[:, rivals])
        t = studentised(drawn, d[rivals])
        ends = [bootstrap_t(float(v), float(e), t[:, m], level) for m, (v, e) in enumerate(_pairs(mine))]
        each = [(low, p) for low, _, p in ends]
        null, method = ResampledNull.of(mine, drawn), "bootstrap_t over all models"
    lo = min(low for low, _ in each)
    hi = max(upper_end(null, level), lo)
    p = max(p for _, p in each) if (d[rivals] > 0).all() else null_p(null, 0.0)
    if itself:
        lo, hi, p = min(lo, 0.0), min(hi, 0.0), (p if value < 0 else 1.0)
    return Estimate(
        value, lo, hi, p=p, n_clusters=n_groups, n=n, method=method, level=level, cautions=cautions_of(n_groups, lo, hi)
    )


def _pairs(sums: GroupSums) -> list[tuple[float, float]]:
    return list(zip(sums.means(), sums.errors(), strict=True))
