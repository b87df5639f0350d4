"""The wild cluster bootstrap against a plain loop, sign flips and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._base.errors import UnknownNameError
from pertstack._stats.intervals import difference_to_fixed, interval
from pertstack._stats.sign_flips import flip_interval, flip_p
from pertstack._stats.wild_bootstrap import wild_interval, wild_p, wild_weights

Array = np.ndarray[Any, Any]


def plain_p(total: Array, count: Array, weights: Array, at: float) -> float:
    """Every draw makes new group sums under the null and computes t from them, as a textbook would."""
    n_groups, n = len(total), count.sum()

    def t(sums: Array) -> float:
        mean = sum(sums) / n
        square = sum((s - mean * c) ** 2 for s, c in zip(sums, count, strict=True))
        return (mean - at) / np.sqrt(n_groups / (n_groups - 1) * square / n**2)

    seen, hits = abs(t(total)), 0
    for draw in weights:
        made = np.array([at * c + w * (s - at * c) for s, c, w in zip(total, count, draw, strict=True)])
        hits += abs(t(made)) >= seen - 1e-9 * (1 + seen)
    return hits / len(weights)


def example(n_groups: int, seed: int, equal: bool = False) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    count = np.full(n_groups, 4.0) if equal else draw.integers(1, 8, n_groups).astype(float)
    return count * draw.normal(0.3, 1, n_groups), count


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 10), seed=st.integers(0, 10**6), at=st.floats(-1, 1), webb=st.booleans())
def test_p_equals_a_plain_loop(n: int, seed: int, at: float, webb: bool) -> None:
    total, count = example(n, seed)
    weights = wild_weights("webb" if webb else "rademacher", n, 200, rng=np.random.default_rng(seed))
    assert wild_p(total, count, weights, at) == pytest.approx(plain_p(total, count, weights, at), abs=1e-12)


def test_all_signs_on_groups_of_one_size_are_the_sign_flip_test() -> None:
    for seed in range(10):
        total, count = example(8, seed, equal=True)
        weights = wild_weights("rademacher", 8, 300, rng=np.random.default_rng(0))
        assert weights.shape == (256, 8)
        assert wild_p(total, count, weights, 0.1) == pytest.approx(flip_p(total, count, 0.1))
        np.testing.assert_allclose(
            wild_interval(total, count, weights, 0.9), flip_interval(total, count, 0.9), rtol=1e-6
        )


def test_the_interval_holds_what_is_not_rejected() -> None:
    total, count = example(9, 3)
    weights = wild_weights("webb", 9, 999, rng=np.random.default_rng(1))
    lo, hi = wild_interval(total, count, weights, 0.95)
    assert wild_p(total, count, weights, lo + 1e-4) > 0.05 >= wild_p(total, count, weights, lo - 1e-4)
    assert wild_p(total, count, weights, hi - 1e-4) > 0.05 >= wild_p(total, count, weights, hi + 1e-4)


def test_webb_weights_have_six_values_mean_zero_and_variance_one() -> None:
    weights = wild_weights("webb", 10, 20_000, rng=np.random.default_rng(0))
    np.testing.assert_allclose(np.unique(weights**2), [0.5, 1.0, 1.5])
    assert abs(weights.mean()) < 0.01
    assert weights.var() == pytest.approx(1, abs=0.01)
    signs = wild_weights("rademacher", 20, 500, rng=np.random.default_rng(0))
    assert (signs.shape, set(np.unique(signs))) == ((500, 20), {-1.0, 1.0})
    with pytest.raises(UnknownNameError, match="webb"):
        wild_weights("web", 3, 100, rng=np.random.default_rng(0))  # type: ignore[arg-type]


def test_webb_gives_five_groups_an_interval_where_signs_cannot() -> None:
    """2^5 signs: the smallest p is 0.0625. Six weights: p can go to 2 / 6^5."""
    draw = np.random.default_rng(2)
    groups = np.repeat(np.arange(5), 6)
    values = draw.normal(2, 1, 30)
    rng = np.random.default_rng(0)
    assert interval(values, groups, rng=rng, method="sign_flips").ci is None
    webb = interval(values, groups, rng=rng, method="wild_webb")
    assert webb.ci is not None
    assert webb.method == "wild_webb"
    assert webb.lo < webb.value < webb.hi


def test_equal_rows_one_group_and_the_law_of_units() -> None:
    draw = np.random.default_rng(4)
    groups, values = np.repeat(np.arange(9), 5), draw.normal(0, 1, 45)
    same = difference_to_fixed(values, values, groups, rng=np.random.default_rng(0), method="wild_webb")
    assert (same.lo, same.hi, same.p) == (0.0, 0.0, 1.0)
    one = interval(values, np.zeros(45), rng=np.random.default_rng(0), method="wild_webb")
    assert (one.ci, one.p) == (None, None)
    base, moved = (
        interval(v, groups, rng=np.random.default_rng(1), method="wild_rademacher") for v in (values, 3 * values + 7)
    )
    np.testing.assert_allclose([moved.lo, moved.hi], [3 * base.lo + 7, 3 * base.hi + 7], rtol=1e-6)
