"""Probes of test rows after a look: is a model closer to the mean of replicates than noise allows, and does it jump
from its best fold to the test as no other model does?

Out of fold a model that holds the truth of the test looks like any other; these are the only rows that show it. Arrays
of profiles are (n, n_genes); how often each probe accuses by mistake is measured in docs/probes.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.findings import Finding
from pertstack._stats.intervals import interval
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.verdict.probes.of_noise import ALPHA, PLATES_TOLD, known, not_applicable

ERROR = "rmse_all@own"
NO_CHANGE = "no_change"
LEAST_JUMP = 0.2
"""A jump below this share of what can be explained is no accusation, however sure it is: final fits see more rows."""
DRAWS = 1000


def noise_floor(
    predictions: Array, truth: Array, conditions: Array, *, groups: Array, rng: np.random.Generator, model: str = ""
) -> Finding:
    """Is the mean prediction of a condition closer to the mean of its replicates than that mean is to its own truth?

    The noise of a mean of n replicates is estimated from its halves: of means over n_a and n_b of them the squared
    difference is expected to be noise (1 / n_a + 1 / n_b), so their mean has n_a n_b / n^2 of it. An honest prediction
    errs at least as much. A model that keeps the means of conditions shows here although it says the same for all
    replicates.

    Parameters
    ----------
    predictions, truth : (n, n_genes), treated scale.
    conditions : (n,), by which replicates are known; at least five with two or more samples.
    groups : (n,), resampled whole.
    rng : draws the groups.
    model : for the message.
    """
    _, code = np.unique(np.asarray(conditions).astype(str), return_inverse=True)
    size = np.bincount(code)
    rank = _rank_within(code)
    first = rank < size[code] // 2
    halves = [np.bincount(code[part], minlength=len(size)) for part in (first, ~first)]
    used = np.flatnonzero(size > 1)
    if len(used) < 5:
        return not_applicable("noise_floor", f"{len(used)} conditions have replicates, at least 5 are needed", model)

    def mean(rows: Array, part: Array) -> Array:
        columns = np.asarray(rows, dtype=np.float64)[part].T
        sums = np.stack([np.bincount(code[part], w, minlength=len(size)) for w in columns], axis=1)
        found: Array = sums[used] / np.bincount(code[part], minlength=len(size))[used][:, None]
        return found

    every = np.ones(len(code), dtype=bool)
    share = halves[0][used] * halves[1][used] / size[used] ** 2
    floor = ((mean(truth, first) - mean(truth, ~first)) ** 2).mean(axis=1) * share
    error = ((mean(predictions, every) - mean(truth, every)) ** 2).mean(axis=1)
    of_condition = np.asarray(groups)[np.array([np.flatnonzero(code == c)[0] for c in used])]
    found = interval(error - floor, of_condition, rng=rng, level=1 - 2 * ALPHA)
    numbers = {
        "error": float(error.mean()),
        "floor": float(floor.mean()),
        "difference": found.value,
        "hi": known(found.hi),
        "conditions": len(used),
        "groups": found.n_clusters,
    }
    if found.hi < 0:
        return Finding(
            "error",
            "below_noise_floor",
            f"{model or 'The model'} predicts means of replicates with a mean squared error of {error.mean():.4g}; by "
            f"half against half these means have {floor.mean():.4g} of noise, which cannot be predicted. It has seen "
            "these rows or their means. Ask which rows it was fitted on.",
            where=model,
            numbers=numbers,
        )
    return Finding(
        "note", "noise_floor_passed", "The error is not below the noise of means.", where=model, numbers=numbers
    )


def as_out_of_fold(finding: Finding, before: Sequence[Finding]) -> Finding:
    """Where the probe of replicates found out of fold that controls tell plates that are not named, the test cannot be
    tested either: its fewer pairs do not show the plates, and an honest final fit knows them from other rows."""
    told = any(f.numbers.get(PLATES_TOLD) and f.where == finding.where for f in before)
    if not told or finding.code != "knows_replicate_noise":
        return finding
    why = "no plate is named, and out-of-fold rows show that controls tell plates. Name them in the data (column plate)"
    return not_applicable("replicate_noise", why, finding.where, numbers={PLATES_TOLD: True})


def _rank_within(code: Array) -> Array:
    """(n,) 0, 1, ... within equal codes, in order."""
    order = np.argsort(code, kind="stable")
    rank = np.empty(len(code), dtype=np.int64)
    rank[order] = np.arange(len(code)) - np.searchsorted(code[order], code[order], side="left")
    return rank


def jump(model: str, models: Sequence[str], oof: ScoreTable, test: ScoreTable, *, rng: np.random.Generator) -> Finding:
    """Does a model explain much more on the test than in its best fold, while the others do not?

    Explained is 1 - squared error over that of no change, over whole groups. A network may fail to train in some folds,
    so its best fold is what the test is held against. The test may be easier, and final fits saw more rows: what the
    median of the other models gains is taken off. Groups are drawn again on both sides. It is an error if the model
    is also ahead of every other on the test, and a warning if it is not: training may have failed in every fold. It
    is a warning too if there is one other model alone, which may have failed itself.

    Parameters
    ----------
    model : the one that is asked about.
    models : all base models; others that lack most of its rows are left out, and one is needed.
    oof, test : scores with squared errors of these models and of no change.
    rng : draws the groups.
    """
    others = [m for m in models if m != model and all(_covers(t, m, model) for t in (oof, test))]
    if not others or not all(m in t.names and ERROR in t.metrics for t in (oof, test) for m in (model, NO_CHANGE)):
        return not_applicable(
            "jump", "it takes another model of the same rows to know how much easier the test is", model
        )
    names = [model, *others]
    developed, tested = _explained(oof, names, rng), _explained(test, names, rng)
    if developed is None or tested is None:
        return not_applicable("jump", "no row is predicted by all models", model)
    (before, drawn_before), (after, drawn_after) = developed, tested
    change, draws = after - before, drawn_after - drawn_before
    least = float(np.quantile(draws[:, 0] - np.median(draws[:, 1:], axis=1), ALPHA))
    ahead = float(np.quantile(drawn_after[:, 0] - drawn_after[:, 1:].max(axis=1), ALPHA))
    numbers = {
        "best_fold": float(before[0]),
        "test": float(after[0]),
        "others": float(np.median(change[1:])),
        "excess": float(change[0] - np.median(change[1:])),
        "lo": least,
        "ahead_lo": ahead,
    }
    if least <= LEAST_JUMP:
        message = "It changes from its best fold to the test as the other models do."
        return Finding("note", "jump_passed", message, where=model, numbers=numbers)
    said = (
        f"{model} explains {after[0]:.0%} on the test and {before[0]:.0%} in its best fold; the other models change by "
        f"{np.median(change[1:]):+.0%} (median)."
    )
    if ahead > 0 and len(others) == 1:
        said += f" There is {others[0]} alone to hold it against. Ask which rows its final fit saw."
        return Finding("warning", "jumps_on_the_test", said, where=model, numbers=numbers)
    if ahead > 0:
        said += " Ask which rows its final fit saw."
        return Finding("error", "jumps_on_the_test", said, where=model, numbers=numbers)
    said += " It is not ahead of them, so its training may have failed in every fold: look at its fits."
    return Finding("warning", "jumps_on_the_test", said, where=model, numbers=numbers)


def _covers(table: ScoreTable, other: str, model: str) -> bool:
    """Whether another model has most of the rows that a model has; without them the two cannot be compared."""
    if ERROR not in table.metrics or not {other, model} <= set(table.names):
        return False
    mine = np.isfinite(table.values(model, ERROR))
    return bool((np.isfinite(table.values(other, ERROR)) & mine).sum() >= 0.5 * mine.sum())


def _explained(table: ScoreTable, names: Sequence[str], rng: np.random.Generator) -> tuple[Array, Array] | None:
    """Share that each model explains in its best fold (the test is one), as found (M,) and by draws of groups
    (DRAWS, M); None if no row is predicted by all."""
    errors = np.stack([table.values(m, ERROR) ** 2 for m in (NO_CHANGE, *names)])
    rows = np.isfinite(errors).all(axis=0)
    if not rows.any():
        return None
    places = np.nan_to_num(table.samples["fold"].to_numpy(dtype=np.float64, na_value=np.nan)[rows], nan=-1.0)
    groups, code = np.unique(table.samples["group"].to_numpy().astype(str)[rows], return_inverse=True)
    weights = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), DRAWS)
    actual, drawn = [], []
    for place in np.unique(places):
        here = places == place
        sums = np.stack([np.bincount(code[here], e[rows][here], minlength=len(groups)) for e in errors])
        total = weights @ sums.T  # (DRAWS, 1 + M)
        actual.append(1 - sums.sum(axis=1)[1:] / sums.sum(axis=1)[0])
        drawn.append(1 - total[:, 1:] / np.where(total[:, :1] > 0, total[:, :1], np.nan))
    return np.max(actual, axis=0), np.nanmax(drawn, axis=0)
