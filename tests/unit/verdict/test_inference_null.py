"""The upper end of "minus the best": against plain loops, ordinary two-sided tests, and laws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pertstack._stats.group_sums import GroupSums, resample
from pertstack._stats.intervals import difference_to_best, interval
from pertstack._stats.sign_flips import flip_interval, flip_p
from pertstack._stats.versus_best_null import (
    FARTHER,
    NEARER,
    FlippedNull,
    ResampledNull,
    careful,
    null_p,
    upper_end,
)

Array = np.ndarray[Any, Any]


def sums_of(n_groups: int, gaps: tuple[float, ...], seed: int) -> GroupSums:
    """Differences to as many models, groups of unequal size."""
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), draw.integers(1, 7, n_groups))
    shape = (len(gaps), n_groups)
    values = np.array(gaps)[:, None] + draw.normal(0, 1, shape)[:, groups] + draw.normal(0, 1, (len(gaps), len(groups)))
    return GroupSums.of(values, groups)


def plain_error(sums: GroupSums, value: float, level: float) -> float:
    """Error of both ends when ``value`` is true, one pattern of signs after the other."""
    m, c = sums.total.shape
    d, error = sums.means(), sums.errors()
    patterns = list(itertools.product([1.0, -1.0], repeat=c))

    def t(model: int, signs: tuple[float, ...], step: float) -> float:
        imposed = max(d[model], value)
        x = [
            s * (sums.total[model, g] - imposed * sums.count[model, g]) + step * sums.count[model, g]
            for g, s in enumerate(signs)
        ]
        return sum(x) / np.sqrt(sum(v * v for v in x))

    above = [max(d[k] - value, 0.0) for k in range(m)]
    near = [max(a - NEARER * e, 0.0) for a, e in zip(above, error, strict=True)]
    far = [a + FARTHER * e if a > 0 else 0.0 for a, e in zip(above, error, strict=True)]
    seen = min(t(k, patterns[0], above[k]) for k in range(m))
    low = np.mean([min(t(k, s, near[k]) for k in range(m)) <= seen + 1e-9 for s in patterns])
    needed = []
    for k in range(m):
        sizes = sorted((abs(t(k, s, 0.0)) for s in patterns), reverse=True)
        needed.append(sizes[int((1 - level) * len(sizes) + 1e-9)])
    passed = np.mean([all(t(k, s, far[k]) > needed[k] + 1e-9 for k in range(m)) for s in patterns])
    return float(low + passed)


@pytest.mark.parametrize(("gaps", "seed"), [((0.0, 0.0), 1), ((0.0, 1.0, 0.3), 2), ((0.5, -0.5), 3)])
def test_the_upper_end_parts_values_by_a_plain_loop_over_sign_patterns(gaps: tuple[float, ...], seed: int) -> None:
    sums = sums_of(7, gaps, seed)
    end = upper_end(FlippedNull.of(sums), 0.9)
    assert np.isfinite(end)
    assert plain_error(sums, end - 1e-4, 0.9) > 0.1
    for step in (1e-4, 0.1, 0.5, 2.0):
        assert plain_error(sums, end + step, 0.9) <= 0.1 + 1e-9


def test_with_one_model_it_is_the_two_sided_test() -> None:
    """Resamples: the symmetric bootstrap-t to within one draw. Signs: one pattern of 512 may be left to spend."""
    for seed in range(8):
        many, few = sums_of(40, (0.2,), seed), sums_of(9, (0.2,), seed)
        draws = resample(many, 4000, np.random.default_rng(seed))
        null = ResampledNull.of(many, draws)
        t = np.sort(np.abs(draws.means[:, 0] - many.means()[0]) / draws.errors[:, 0])
        symmetric = many.means()[0] + np.quantile(t, 0.95) * many.errors()[0]
        assert upper_end(null, 0.95) == pytest.approx(symmetric, rel=0.02, abs=0.01)
        ordinary = flip_interval(few.total[0], few.count[0], 0.95)[1]
        looser = flip_interval(few.total[0], few.count[0], 0.94)[1]
        assert looser - 1e-9 <= upper_end(FlippedNull.of(few), 0.95) <= ordinary + 1e-9
        below = few.means()[0] + 0.5 * few.errors()[0]
        assert null_p(FlippedNull.of(few), below) == pytest.approx(
            flip_p(few.total[0], few.count[0], below), abs=1 / 256
        )


@pytest.mark.parametrize("n_groups", [9, 30])
def test_the_end_and_p_say_the_same(n_groups: int) -> None:
    both = set()
    for seed in range(60):
        values, groups, models = contest(n_groups, (0.0, 0.01, 0.03), -0.03, seed)
        rng = np.random.default_rng(seed)
        found = difference_to_best(values, models, groups, rng=rng, resamples=400, rows=[3])[0]
        assert found.p is not None
        if found.value < 0:
            assert (found.hi < 0) == (found.p <= 0.05)
            both.add(found.hi < 0)
    assert both == {True, False}


def contest(n_groups: int, gaps: tuple[float, ...], gain: float, seed: int) -> tuple[Array, Array, Array]:
    """Models and an ensemble (last row); groups; which rows are models."""
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), draw.integers(1, 8, n_groups))
    n, m = len(groups), len(gaps)
    own = draw.normal(0, 0.03, (m, n_groups))[:, groups] + draw.normal(0, 0.08, (m, n))
    values = np.concatenate([own - np.array(gaps)[:, None], (gain + own.mean(axis=0) + draw.normal(0, 0.03, n))[None]])
    return values, groups, np.arange(m + 1) < m


@pytest.mark.parametrize("n_groups", [9, 30])
def test_the_lower_end_is_the_smallest_of_the_lower_ends_of_all_pairs(n_groups: int) -> None:
    values, groups, models = contest(n_groups, (0.0, 0.0, 0.02), 0.01, 4)
    found = difference_to_best(values, models, groups, rng=np.random.default_rng(1), resamples=3000, rows=[3])[0]
    pairs = [interval(values[3] - values[k], groups, rng=np.random.default_rng(k), resamples=3000) for k in range(3)]
    assert found.lo == pytest.approx(min(e.lo for e in pairs), abs=0.002)


def test_close_models_leave_more_to_the_upper_end_than_2_5_percent_each() -> None:
    """Six equal models: the lower end errs never, so the upper end is lower than a bound of 2.5 % over all of them."""
    sums = sums_of(40, (0.0,) * 6, 3)
    draws = resample(sums, 2000, np.random.default_rng(0))
    luck = ((draws.means - sums.means()) / -draws.errors).max(axis=1)
    alone = float(np.min(sums.means() + np.quantile(luck, 0.975) * sums.errors()))
    assert upper_end(ResampledNull.of(sums, draws), 0.95) < alone


def test_careful_distances_by_hand() -> None:
    near, far = careful(np.array([-1.0, 0.2, 3.0]), np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(near, [0.0, 0.0, 2.0])
    np.testing.assert_allclose(far, [0.0, 1.2, 5.0])


def test_units_and_shifts_carry_over() -> None:
    for n_groups in (8, 30):
        base = sums_of(n_groups, (0.0, 0.3), 5)
        moved = GroupSums(10 * base.total + 2 * base.count, base.count)
        if n_groups == 8:
            one, two = upper_end(FlippedNull.of(base), 0.95), upper_end(FlippedNull.of(moved), 0.95)
        else:
            nulls = [ResampledNull.of(s, resample(s, 300, np.random.default_rng(1))) for s in (base, moved)]
            one, two = (upper_end(n, 0.95) for n in nulls)
        assert two == pytest.approx(10 * one + 2, rel=1e-5)


def test_a_row_equal_to_a_model_is_not_better_than_it_for_sure() -> None:
    values, groups, models = contest(30, (0.0, 0.05), 0.0, 2)
    values[2] = values[0]
    found = difference_to_best(values, models, groups, rng=np.random.default_rng(0), rows=[2])[0]
    assert (found.lo, found.hi, found.p) == (0.0, 0.0, 1.0)


def test_five_groups_have_no_end() -> None:
    assert upper_end(FlippedNull.of(sums_of(3, (0.0, 0.0), 1)), 0.95) == np.inf
