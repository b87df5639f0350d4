"""Intervals against plain loops, other libraries and known worlds. Coverage at large: benchmarks/calibration.py."""

from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pertstack._base.errors import InputError, UnknownNameError
from pertstack._stats.group_sums import GroupSums, resample
from pertstack._stats.intervals import difference_to_best, difference_to_fixed, interval, intervals
from pertstack._stats.multiple import bbc, max_t, model_confidence_set
from pertstack._stats.sign_flips import flip_interval, flip_p
from pertstack._stats.versus_best import bounds_to_best

Array = np.ndarray[Any, Any]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def world(n_groups: int, n_rows: int = 1, seed: int = 0) -> tuple[Array, Array]:
    """Values (n_rows, n) with a tenth undefined, and groups of unequal size."""
    draw = rng(seed)
    groups = np.repeat(np.arange(n_groups), draw.integers(1, 9, n_groups))
    values = draw.normal(0, 1, (n_rows, n_groups))[:, groups] + draw.normal(0, 1, (n_rows, len(groups)))
    values[draw.random(values.shape) < 0.1] = np.nan
    return values, np.array([f"g{g}" for g in groups])


class ScriptedDraws:
    """Stands in for a generator and returns drawn group numbers that are known."""

    def __init__(self, drawn: Array) -> None:
        self.drawn = drawn
        self.bit_generator = SimpleNamespace(state=drawn.tobytes())  # by which draws are known again

    def integers(self, low: int, high: int, size: tuple[int, int]) -> Array:
        assert (low, high, size) == (0, self.drawn.shape[1], self.drawn.shape)
        return self.drawn.copy()


def test_resamples_equal_a_loop_that_stacks_the_rows_of_drawn_groups() -> None:
    values, groups = world(11, 3)
    drawn = rng(5).integers(0, 11, (40, 11))
    found = resample(GroupSums.of(values, groups), 40, ScriptedDraws(drawn))  # type: ignore[arg-type]
    names = np.unique(groups)
    for b in range(40):
        rows = np.concatenate([np.flatnonzero(groups == names[g]) for g in drawn[b]])
        np.testing.assert_allclose(found.means[b], np.nanmean(values[:, rows], axis=1), rtol=1e-12)
        label = np.concatenate([[i] * (groups == names[g]).sum() for i, g in enumerate(drawn[b])])
        for row in range(3):
            here = GroupSums.of(values[[row]][:, rows], label)
            np.testing.assert_allclose(found.errors[b, row], here.errors()[0], rtol=1e-9)


def test_one_sample_per_group_gives_the_textbook_standard_error() -> None:
    values = rng().normal(size=50)
    sums = GroupSums.of(values, np.arange(50))
    np.testing.assert_allclose(sums.errors()[0], stats.sem(values), rtol=1e-12)


def test_symmetric_bootstrap_t_is_close_to_the_t_interval_where_that_is_exact() -> None:
    values = rng(1).normal(0.3, 1, 60)
    found = interval(values, np.arange(60), rng=rng(2), resamples=20_000)
    low, high = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    np.testing.assert_allclose([found.lo, found.hi], [low, high], atol=0.02)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    assert (found.method, found.n_clusters, found.n) == ("bootstrap_t", 60, 60)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_percentile_and_bca_agree_with_scipy(method: str) -> None:
    values = rng(3).gamma(1.5, 1, 40)
    ours = interval(values, np.arange(40), rng=rng(4), resamples=20_000, method=method)  # type: ignore[arg-type]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method=method, rng=rng(5)).confidence_interval
    np.testing.assert_allclose([ours.lo, ours.hi], [theirs.low, theirs.high], atol=0.02)


def brute_p(total: Array, count: Array, at: float) -> float:
    """Sign flips of group residuals, all 2^C of them, in a loop."""
    residual = total - at * count
    size = abs(residual.sum())
    hits = [abs(np.dot(signs, residual)) >= size - 1e-9 for signs in itertools.product([-1, 1], repeat=len(total))]
    return float(np.mean(hits))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 8), seed=st.integers(0, 10**6), at=st.floats(-1, 1))
def test_sign_flip_p_equals_all_patterns_in_a_loop(n: int, seed: int, at: float) -> None:
    draw = rng(seed)
    total, count = draw.normal(size=n), draw.integers(1, 6, n).astype(float)
    assert flip_p(total, count, at) == pytest.approx(brute_p(total, count, at))


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_the_flip_interval_holds_exactly_the_values_that_are_not_rejected(level: float) -> None:
    draw = rng(9)
    total, count = draw.normal(0.2, 1, 9), draw.integers(1, 6, 9).astype(float)
    lo, hi = flip_interval(total, count, level)
    for at in np.linspace(lo - 0.3, hi + 0.3, 301):
        if min(abs(at - lo), abs(at - hi)) > 1e-9:
            assert (brute_p(total, count, at) > 1 - level) == (lo <= at <= hi), at


def test_nine_cell_lines_use_all_512_patterns() -> None:
    values, groups = world(9)
    found = interval(values[0], groups, rng=rng())
    assert found.method == "sign_flips"
    assert found.p is not None
    assert (found.p * 512) % 1 == pytest.approx(0)
    assert found.cautions == ("9 groups: the interval is a rough guide",)


@pytest.mark.parametrize("n_groups", [2, 3, 4, 5])
def test_with_too_few_groups_there_is_no_interval(n_groups: int) -> None:
    """Five groups: the smallest two-sided p is 2 / 2^5 = 0.0625, so nothing can be rejected at 0.05."""
    values, groups = world(n_groups, seed=3)
    found = interval(values[0] + 50, groups, rng=rng())
    assert found.ci is None
    assert found.p == 2 / 2**n_groups
    assert "too few for an interval" in found.cautions[0]


def test_one_group_or_nothing_defined() -> None:
    one = interval(np.array([1.0, 2.0]), np.array(["a", "a"]), rng=rng())
    assert (one.value, one.ci, one.p, one.cautions) == (1.5, None, None, ("one group: an interval is not possible",))
    none = interval(np.full(40, np.nan), np.arange(40), rng=rng())
    assert np.isnan(none.value)
    assert (none.ci, none.n, none.cautions) == (None, 0, ("no defined sample",))


def test_undefined_samples_are_skipped_and_groups_of_them_do_not_count() -> None:
    values, groups = world(30)
    more = np.concatenate([values[0], np.full(20, np.nan)])
    both = np.concatenate([groups, [f"empty{i}" for i in range(20)]])
    found = interval(more, both, rng=rng())
    assert found.value == pytest.approx(np.nanmean(values[0]))
    assert found.n_clusters == len({g for g, v in zip(groups, values[0], strict=True) if not np.isnan(v)})


def test_pairs_are_samples_on_which_both_are_defined() -> None:
    values, groups = world(30, 2)
    found = difference_to_fixed(values[0], values[1], groups, rng=rng())
    both = ~np.isnan(values).any(axis=0)
    assert found.value == pytest.approx((values[0] - values[1])[both].mean())
    assert found.n == both.sum()


def test_equal_rows_differ_by_nothing_with_certainty() -> None:
    values, groups = world(30)
    found = difference_to_fixed(values[0], values[0], groups, rng=rng())
    assert (found.value, found.lo, found.hi, found.p) == (0, 0, 0, 1)
    shifted = difference_to_fixed(values[0] + 0.5, values[0], groups, rng=rng())
    assert shifted.lo == pytest.approx(0.5)
    assert shifted.p is not None
    assert shifted.p < 0.001


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_groups=st.sampled_from([9, 25]), scale=st.floats(0.01, 100), shift=st.floats(-5, 5)
)
def test_laws_units_order_and_names(seed: int, n_groups: int, scale: float, shift: float) -> None:
    """Scaling and shifting the values does so to the interval; sample order and group names do not matter."""
    values, groups = world(n_groups, 2, seed)
    base = intervals(values, groups, rng=rng(1), resamples=200)
    moved = intervals(scale * values + shift, groups, rng=rng(1), resamples=200)
    order = rng(seed).permutation(len(groups))
    shuffled = intervals(values[:, order], groups[order], rng=rng(1), resamples=200)
    for a, b, c in zip(base, moved, shuffled, strict=True):
        np.testing.assert_allclose([b.lo, b.hi], [scale * a.lo + shift, scale * a.hi + shift], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose([c.lo, c.hi], [a.lo, a.hi], rtol=1e-9)
        assert a.lo <= a.value <= a.hi


@pytest.mark.parametrize("n_groups", [9, 40])
def test_the_interval_and_p_say_the_same(n_groups: int) -> None:
    for seed in range(30):
        values, groups = world(n_groups, 1, seed)
        found = interval(values[0] + 0.3, groups, rng=rng(seed))
        assert found.p is not None
        assert (found.lo > 0 or found.hi < 0) == (found.p <= 0.05)


def test_same_generator_same_answer_and_bad_choices_are_refused() -> None:
    values, groups = world(30)
    assert interval(values[0], groups, rng=rng(3)) == interval(values[0], groups, rng=rng(3))
    with pytest.raises(InputError, match="level"):
        interval(values[0], groups, rng=rng(), level=95)
    with pytest.raises(InputError, match="too few"):
        interval(values[0], groups, rng=rng(), resamples=10)
    with pytest.raises(UnknownNameError, match="Did you mean 'percentile'"):
        interval(values[0], groups, rng=rng(), method="percentil")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one group per sample"):
        interval(values[0], groups[:-1], rng=rng())
    with pytest.raises(InputError, match="1 scores are infinite"):
        interval(np.where(np.arange(len(groups)) == 0, np.inf, 0), groups, rng=rng())
    with pytest.raises(InputError, match="no candidate"):
        difference_to_best(values, np.array([False]), groups, rng=rng())


def contest(n_groups: int, gaps: tuple[float, ...], gain: float, seed: int) -> tuple[Array, Array, Array]:
    """Models and an ensemble (last row); groups; which rows are models."""
    draw = rng(seed)
    groups = np.repeat(np.arange(n_groups), draw.integers(1, 8, n_groups))
    n, m = len(groups), len(gaps)
    own = draw.normal(0, 0.03, (m, n_groups))[:, groups] + draw.normal(0, 0.08, (m, n))
    hard = draw.normal(0, 0.2, n)
    ensemble = gain + own.mean(axis=0) + draw.normal(0, 0.03, n) + hard
    values = np.concatenate([-np.array(gaps)[:, None] + own + hard, ensemble[None]])
    return values, groups, np.arange(m + 1) < m


@pytest.mark.parametrize("n_groups", [9, 60])
def test_against_one_dominant_model_the_bounds_are_those_of_the_pair(n_groups: int) -> None:
    values, groups, models = contest(n_groups, (0, 2, 3), 0.02, 1)
    best = difference_to_best(values, models, groups, rng=rng(2), resamples=4000)[-1]
    pair = difference_to_fixed(values[-1], values[0], groups, rng=rng(3), resamples=4000)
    np.testing.assert_allclose([best.value, best.lo, best.hi], [pair.value, pair.lo, pair.hi], atol=0.003)
    assert best.method.endswith("over all models")


@pytest.mark.parametrize("n_groups", [9, 60])
def test_with_equal_models_a_gain_is_hardly_ever_claimed_and_the_interval_covers(n_groups: int) -> None:
    """200 worlds of six equal models and their mean as good: the truth is 0. Coverage at large is 0.93."""
    found = [
        difference_to_best(
            *contest(n_groups, (0,) * 6, 0, s)[::2],
            contest(n_groups, (0,) * 6, 0, s)[1],
            rng=rng(s),
            resamples=200,
            rows=[6],
        )[0]
        for s in range(200)
    ]
    assert np.mean([e.lo > 0 for e in found]) <= 0.025
    assert np.mean([e.lo <= 0 <= e.hi for e in found]) > 0.885


def test_the_usual_recipe_would_fail_in_those_worlds() -> None:
    """Best chosen inside each resample, percentile ends: covers far too rarely with equal models, hence our bounds."""
    hits = []
    for s in range(100):
        values, groups, _ = contest(60, (0,) * 6, 0, s)
        draws = resample(GroupSums.of(values, groups), 200, rng(s)).means
        lo, hi = np.quantile(draws[:, 6] - draws[:, :6].max(axis=1), [0.025, 0.975])
        hits.append(lo <= 0 <= hi)
    assert np.mean(hits) < 0.6


def test_a_large_gain_is_found_and_direction_is_turned_for_errors() -> None:
    values, groups, models = contest(60, (0, 0.01, 0.02), 0.1, 1)
    up = difference_to_best(values, models, groups, rng=rng(2))
    down = difference_to_best(-values, models, groups, rng=rng(2), better=-1)
    assert up[-1].lo > 0
    assert up[-1].p is not None
    assert up[-1].p < 0.01
    for a, b in zip(up, down, strict=True):
        np.testing.assert_allclose([b.value, b.lo, b.hi], [-a.value, -a.hi, -a.lo])
        assert a.p == b.p


def test_a_model_of_the_pool_is_never_better_than_the_best() -> None:
    values, groups, models = contest(60, (0, 0.01, 0.5), 0, 1)
    found = difference_to_best(values, models, groups, rng=rng(2))
    leader = int(np.argmax(values[:3].mean(axis=1)))
    assert found[leader].value == 0
    assert all(e.hi <= 0 and e.value <= 0 for e in found[:3])
    assert found[2].hi < -0.4
    assert found[2].p is not None
    assert found[2].p < 0.01


def test_a_model_that_never_predicted_is_no_rival() -> None:
    values, groups, models = contest(60, (0, 0.01, 0.02), 0.1, 1)
    values[1] = np.nan
    found = difference_to_best(values, models, groups, rng=rng(2), rows=[1, 3])
    assert np.isnan(found[0].value)
    assert found[1].lo > 0


def test_max_t_holds_the_family_error() -> None:
    """300 worlds, eight combiners equal to the reference: a claim in about 5 %; single tests would give 30 %."""
    family, single = [], []
    for s in range(300):
        values, groups = world(40, 8, s)
        found = max_t(values, groups, rng=rng(s), resamples=300)
        family.append(any(e.lo > 0 or e.hi < 0 for e in found))
        single.append(any(e.lo > 0 or e.hi < 0 for e in intervals(values, groups, rng=rng(s), resamples=300)))
    assert np.mean(family) < 0.09
    assert np.mean(single) > 0.2


def test_max_t_of_one_row_is_the_single_interval() -> None:
    values, groups = world(40)
    one, alone = max_t(values, groups, rng=rng(1))[0], interval(values[0], groups, rng=rng(1))
    np.testing.assert_allclose([one.lo, one.hi, one.p], [alone.lo, alone.hi, alone.p], rtol=1e-9)
    short = max_t(np.ones((2, 3)), np.zeros(3), rng=rng())
    assert [e.ci for e in short] == [None, None]


def test_the_model_confidence_set_keeps_equals_and_drops_the_worse() -> None:
    kept_all, dropped = [], []
    for s in range(100):
        values, groups, _ = contest(60, (0, 0, 0), 0, s)
        values[-1] = values[0] - 0.1 + rng(s).normal(0, 0.05, values.shape[1])
        found = model_confidence_set(values, groups, rng=rng(s), resamples=300)
        kept_all.append(found.included[:3].all())
        dropped.append(not found.included[3])
    assert np.mean(kept_all) >= 0.9
    assert np.mean(dropped) >= 0.95
    assert found.p.max() == 1
    lower = model_confidence_set(-values, groups, rng=rng(s), resamples=300, better=-1)
    np.testing.assert_allclose(lower.p, found.p)


def test_bbc_equals_a_plain_loop() -> None:
    values, groups = world(15, 4)
    drawn = rng(5).integers(0, 15, (300, 15))
    ours = bbc(values, groups, ScriptedDraws(drawn), resamples=300)  # type: ignore[arg-type]
    names, scores = np.unique(groups), []
    for b in range(300):
        rows = np.concatenate([np.flatnonzero(groups == names[g]) for g in drawn[b]])
        rest = np.flatnonzero(~np.isin(groups, names[drawn[b]]))
        winner = int(np.argmax(np.nanmean(values[:, rows], axis=1)))
        scores.append(np.nanmean(values[winner, rest]))
    assert ours.value == pytest.approx(np.mean(scores))
    np.testing.assert_allclose([ours.lo, ours.hi], np.quantile(scores, [0.025, 0.975]))


def test_bbc_takes_the_winners_luck_away() -> None:
    """Twenty useless candidates whose truth is 0: the winner's own mean is about +0.3, its BBC estimate about 0."""
    naive, honest = [], []
    for s in range(60):
        draw = rng(s)
        values, groups = draw.normal(0, 1, (20, 40)), np.arange(40)
        naive.append(values.mean(axis=1).max())
        honest.append(bbc(values, groups, draw, resamples=200).value)
    assert np.mean(naive) > 0.2
    assert abs(np.mean(honest)) < 0.06


def test_bbc_lower_is_better_and_too_few_groups() -> None:
    values, groups = world(15, 4)
    up, down = bbc(values, groups, rng(1), resamples=200), bbc(-values, groups, rng(1), resamples=200, better=-1)
    np.testing.assert_allclose([down.value, down.lo, down.hi], [-up.value, -up.hi, -up.lo])
    with pytest.raises(InputError, match="too few"):
        bbc(np.ones((2, 3)), np.zeros(3), rng())


def test_max_t_is_unbounded_and_silent_where_many_resamples_have_no_spread() -> None:
    """Two of six groups differ at all: a resample without them has no error, and its statistic is infinite."""
    values = np.zeros((3, 6))
    values[:, :2] = rng(0).normal(size=(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = max_t(values, np.arange(6), rng=rng(1))
    assert all(e.lo == -np.inf and e.hi == np.inf and e.cautions for e in found)


@pytest.mark.parametrize("eps", [0.0, 1e-9, 1e-6])
def test_near_copies_that_differ_in_one_group_have_no_interval_instead_of_a_huge_one(eps: float) -> None:
    """The oracle above near-copies printed +-569: resamples without the one group divided by the copies' noise."""
    draw = rng(0)
    a = eps * draw.normal(size=40)
    a[3] += 0.5
    base = draw.normal(0, 0.1, 40)
    values = np.stack([base, base + eps * draw.normal(size=40), base + a])
    alone = interval(a, np.arange(40), rng=rng(1))
    best = difference_to_best(values, np.array([True, True, False]), np.arange(40), rng=rng(1))[2]
    for found in (alone, best):
        assert found.value == pytest.approx(0.0125, abs=1e-5) and found.ci is None, found
    assert "few of them that differ" in alone.cautions[0]


def test_flips_of_one_group_or_none_say_nothing() -> None:
    for total, count in ((np.array([3.0]), np.array([2.0])), (np.zeros(0), np.zeros(0))):
        assert flip_interval(total, count, 0.95) == (-np.inf, np.inf) and flip_p(total, count) == 1.0


@pytest.mark.parametrize("n_groups", [8, 40])
def test_the_best_of_a_pool_compared_with_that_pool_gains_nothing_for_sure(n_groups: int) -> None:
    """Its difference to itself is 0 exactly: p is 1, whatever the others are like."""
    values = rng(5).normal(size=(3, n_groups)) + np.array([[0.0], [0.1], [9.0]])
    (found,) = bounds_to_best(
        values, np.arange(3), np.arange(n_groups), rows=[2], rng=rng(6), level=0.95, resamples=400
    )
    assert (found.value, found.p, found.hi) == (0.0, 1.0, 0.0)
