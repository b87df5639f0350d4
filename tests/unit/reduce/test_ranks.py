"""Ranks against SciPy: ties, signs of zero, numbers that float32 cannot tell apart, infinities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from pertstack.reduce.metrics.ranks import mean_ranks, spearman_with


def ranks_of(profiles, reference):
    out = np.zeros(profiles.shape, dtype=np.float32)
    mean_ranks(profiles, reference, 0, len(profiles), out)
    return out


def profiles(n=40, n_genes=700):
    rng = np.random.default_rng(0)
    found = rng.normal(0, 1, (n, n_genes)) * 10.0 ** rng.integers(-30, 30, (n, 1))
    found[1], found[2, ::2] = 0.0, -0.0
    found[3] = np.round(rng.normal(0, 2, n_genes))
    found[4, :5], found[4, 5:9] = np.inf, -np.inf
    found[5] = np.nextafter(np.float32(1), np.float32(2)) * np.sign(rng.normal(size=n_genes))
    return found.astype(np.float32)


def test_ranks_are_scipys():
    values = profiles()
    nothing = np.zeros((1, values.shape[1]), dtype=np.float32)
    np.testing.assert_array_equal(ranks_of(values, nothing), rankdata(values, axis=1))


@pytest.mark.parametrize("shared", [True, False])
def test_differences_that_float32_rounds_together_keep_their_order(shared):
    """1 + k 2^-23 less a tiny number: distinct in float64, equal once rounded."""
    rng = np.random.default_rng(1)
    values = (1 + rng.integers(0, 4, (9, 500)) * 2.0**-23).astype(np.float32)
    reference = (rng.integers(-50, 50, (1 if shared else 9, 500)) * 2.0**-40).astype(np.float32)
    exact = values.astype(np.float64) - reference
    assert len(np.unique(exact.astype(np.float32))) < len(np.unique(exact)) / 4
    np.testing.assert_array_equal(ranks_of(values, reference), rankdata(exact, axis=1))


@pytest.mark.parametrize("spread", ["two heaps", "one far away", "exponents", "a step"])
def test_rows_that_no_guess_of_their_spread_fits_are_ranked_all_the_same(spread):
    rng = np.random.default_rng(3)
    n = 3000
    fine = rng.normal(0, 1e-6, (6, n))
    rows = {
        "two heaps": np.where(rng.random((6, n)) < 0.5, -1.0, 1.0) + fine,
        "one far away": np.where(np.arange(n) == 7, 1e30, fine),
        "exponents": rng.normal(size=(6, n)) * 10.0 ** rng.integers(-20, 20, (6, n)),
        "a step": np.where(np.arange(n) < 5, np.arange(n), 3 + fine),
    }[spread].astype(np.float32)
    nothing = np.zeros((1, n), dtype=np.float32)
    np.testing.assert_array_equal(ranks_of(rows, nothing), rankdata(rows, axis=1))


def test_a_row_with_nan_disturbs_no_other():
    values = profiles()[6:12]
    values[2, ::3] = np.nan
    nothing = np.zeros((1, values.shape[1]), dtype=np.float32)
    whole = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(ranks_of(values, nothing)[whole], rankdata(values[whole], axis=1))


def test_spearman_is_scipys_and_zero_for_a_constant():
    rng = np.random.default_rng(2)
    truth, prediction = (np.round(rng.normal(0, 3, (20, 300))).astype(np.float32) for _ in range(2))
    prediction[4] = 2.0
    nothing, found = np.zeros((1, 300), dtype=np.float32), np.zeros(20)
    spearman_with(ranks_of(truth, nothing), prediction, nothing, 0, 20, found)
    rest = np.arange(20) != 4
    expected = [spearmanr(a, b).statistic for a, b in zip(truth[rest], prediction[rest], strict=True)]
    np.testing.assert_allclose(found[rest], expected, atol=1e-12)
    assert found[4] == 0.0
