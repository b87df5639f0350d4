"""Several combiners at once, and the price of having tried them.

``max_t``: which combiners beat a reference when all are tested. ``model_confidence_set``: which cannot be told from
the best. ``bbc``: what the winner of C candidates will really score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._stats.estimate import RESAMPLES, Estimate, cautions_of, check_choices, quantile_of, studentised
from pertstack._stats.group_sums import GroupSums, draw_counts, resample
from pertstack._stats.shared_parts import Parts


def max_t(
    differences: Array,
    groups: Array,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    parts: Parts | None = None,
) -> list[Estimate]:
    """Simultaneous intervals and adjusted p-values for several paired differences to one reference.

    The chance that any of the intervals misses its target is 1 - ``level``. Single-step max-|t| (Westfall and Young
    1993) with whole groups resampled; few groups make it rough, and a caution says so.

    Parameters
    ----------
    differences : (n_rows, n), per sample; NaN where undefined.
    groups : (n,) labels.
    rng, resamples : of the draws of groups, shared by all rows.
    level : of all intervals together.
    parts : of groups that share some; see ``GroupSums.of``.
    """
    check_choices(level, resamples, "auto")
    sums = GroupSums.of(differences, groups, parts)
    d, error = sums.means(), sums.errors()
    n_groups = sums.n_groups
    usable = (error > 0) & ~np.isnan(d)
    if sums.total.shape[1] < 2 or not usable.any():
        return [
            Estimate(
                float(v),
                -np.inf,
                np.inf,
                p=None,
                n_clusters=int(c),
                n=int(k.sum()),
                method="max_t",
                level=level,
                cautions=cautions_of(int(c), -np.inf, np.inf),
            )
            for v, c, k in zip(d, n_groups, sums.count, strict=True)
        ]
    t = np.abs(studentised(resample(sums, resamples, rng), d)[:, usable])
    largest = np.nanmax(t, axis=1)
    wide = quantile_of(largest, level)
    found = []
    for row in range(sums.n_rows):
        lo, hi, p = -np.inf, np.inf, None
        if usable[row]:
            lo, hi = float(d[row] - wide * error[row]), float(d[row] + wide * error[row])
            p = (1 + int((largest >= abs(d[row]) / error[row]).sum())) / (1 + len(largest))
        n = int(sums.count[row].sum())
        found.append(
            Estimate(
                float(d[row]),
                lo,
                hi,
                p=p,
                n_clusters=int(n_groups[row]),
                n=n,
                method="max_t",
                level=level,
                cautions=cautions_of(int(n_groups[row]), lo, hi),
            )
        )
    return found


@dataclass(frozen=True)
class ConfidenceSet:
    """Models that cannot be told from the best at ``level``; ``p`` of a model is the level at which it just leaves."""

    included: Array  # (n_models,) bool
    p: Array  # (n_models,) model confidence set p-values
    n_clusters: int
    level: float


def model_confidence_set(
    values: Array,
    groups: Array,
    *,
    rng: np.random.Generator,
    better: int = 1,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    parts: Parts | None = None,
) -> ConfidenceSet:
    """Hansen, Lunde and Nason (2011) Econometrica 79:453, statistic T_max, with whole groups resampled.

    Models are taken out one by one, the worst first, while the hypothesis that all that remain are equal is rejected. A
    model's p is the largest p met up to its leaving; the last model has 1.

    Parameters
    ----------
    values : (n_models, n) scores per sample; NaN where undefined.
    groups : (n,) labels.
    rng, resamples : of the draws of groups, shared by all models.
    better : 1 where more is better, -1 for errors.
    level : chance that the set holds the best model.
    parts : of groups that share some; see ``GroupSums.of``.

    Raises
    ------
    InputError
        Fewer than two groups, or a model without a defined mean.
    """
    check_choices(level, resamples, "auto")
    sums = GroupSums.of(values, groups, parts, by="differences")
    loss = -better * sums.means()
    if np.isnan(loss).any() or sums.total.shape[1] < 2:
        raise InputError("A model confidence set needs at least two groups and a defined mean for every model.")
    noise = -better * resample(sums, resamples, rng).means - loss  # (resamples, n_models)
    noise = noise[~np.isnan(noise).any(axis=1)]
    alive = np.arange(sums.n_rows)
    p, running = np.ones(sums.n_rows), 0.0
    while len(alive) > 1:
        centred = noise[:, alive] - noise[:, alive].mean(axis=1, keepdims=True)
        error = np.sqrt((centred**2).mean(axis=0))
        behind = loss[alive] - loss[alive].mean()
        known = error > 1e-15
        if not known.any():
            break
        t = np.divide(behind, error, out=np.zeros_like(behind), where=known)
        drawn = np.divide(centred, error, out=np.zeros_like(centred), where=known).max(axis=1)
        running = max(running, float((1 + (drawn >= t.max()).sum()) / (1 + len(drawn))))
        worst = int(np.argmax(t))
        p[alive[worst]] = running
        alive = np.delete(alive, worst)
    return ConfidenceSet(p > 1 - level, p, int(sums.total.shape[1]), level)


def bbc(
    values: Array,
    groups: Array,
    rng: np.random.Generator,
    *,
    better: int = 1,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    parts: Parts | None = None,
) -> Estimate:
    """What the best of C candidates scores on groups that did not choose it: bootstrap bias corrected cross-validation.

    In each resample of whole groups the best row is chosen on the groups drawn and scored on the others (Tsamardinos,
    Greasidou and Borboudakis 2018, Machine Learning 107:1895). ``value`` is the mean of these scores, the interval
    their quantiles. It estimates the score of the winner, free of the optimism of having been chosen.

    Parameters
    ----------
    values : (C, n) scores per sample; NaN where undefined.
    groups : (n,) labels.
    rng, resamples : of the draws of groups.
    better : 1 where more is better, -1 for errors.
    level : of the interval.
    parts : of groups that share some; see ``GroupSums.of``.

    Raises
    ------
    InputError
        No group is ever left out: fewer than two, or none defined.
    """
    check_choices(level, resamples, "auto")
    sums = GroupSums.of(values, groups, parts, by="scores")
    n_groups = sums.total.shape[1]
    scores = []
    for weight in draw_counts(n_groups, resamples, rng):
        inside, outside = weight, (weight == 0).astype(np.float64)
        in_mean = _ratio(inside @ sums.total.T, inside @ sums.count.T)
        out_mean = _ratio(outside @ sums.total.T, outside @ sums.count.T)
        some: Array = np.asarray((~np.isnan(in_mean)).any(axis=1))
        chosen = np.nanargmax(np.where(some[:, None], better * in_mean, 0.0), axis=1)
        scores.append(np.where(some, out_mean[np.arange(len(weight)), chosen], np.nan))
    drawn = np.concatenate(scores)
    drawn = drawn[~np.isnan(drawn)]
    if n_groups < 2 or drawn.size == 0:
        raise InputError(f"{n_groups} groups are too few: some must be left to score what others chose.")
    lo, hi = (float(q) for q in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    n = int(sums.count.max(axis=0).sum())
    return Estimate(
        float(drawn.mean()),
        lo,
        hi,
        p=None,
        n_clusters=n_groups,
        n=n,
        method="bbc_cv",
        level=level,
        cautions=cautions_of(n_groups, lo, hi),
    )


def _ratio(total: Array, count: Array) -> Array:
    ratio: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return ratio
