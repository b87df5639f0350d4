"""Sums over cells: exact, mergeable in any order, and what profiles, standard errors and halves come of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pertstack._base.errors import InputError
from pertstack.data.cells import GroupSums, Rows, profile, standard_error
from pertstack.data.cells.entries import BadCell
from pertstack.data.cells.groups import halves
from pertstack.data.cells.recognise import Look, kind_of
from pertstack.data.cells.sums import SUM

N, G, K = 60, 7, 4


def world(seed=0):
    """Counts of 60 cells, their groups (one of them left out), their halves."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(0.6, 3.0, (N, G))).astype(np.float32)
    return x, rng.integers(-1, K, N), rng.random(N) < 0.5


def rows_of(x):
    m = sparse.csr_matrix(x)
    return Rows(m.indptr.astype(np.int64), m.indices, m.data)


def summed(x, group, half, cuts=(), order=None, space="counts"):
    parts = np.split(np.arange(len(x)), list(cuts))
    total = GroupSums.empty(K, x.shape[1], space)
    for i in order if order is not None else range(len(parts)):
        part = GroupSums.empty(K, x.shape[1], space)
        part.add(rows_of(x[parts[i]]), group[parts[i]], half[parts[i]], log=space == "log1p")
        total = total.merge(part)
    return total


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("space", ["counts", "log1p"])
def test_parts_merge_to_the_same_bits_in_any_order(space, data):
    x, group, half = world(data.draw(st.integers(0, 5)))
    cuts = sorted(data.draw(st.lists(st.integers(0, N), max_size=4)))
    order = data.draw(st.permutations(range(len(cuts) + 1)))
    merged, whole = summed(x, group, half, cuts, order, space), summed(x, group, half, space=space)
    for name in ("values", "n_cells", "n_half", "depth"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


@pytest.mark.parametrize("normalise", ["cp10k", "5e4", "sum", "mean_log1p"])
def test_profiles_equal_pandas(normalise):
    x, group, half = world()
    space = "log1p" if normalise == "mean_log1p" else "counts"
    s = summed(x, group, half, space=space)
    ours = profile(s.values[..., SUM], s.n_cells, s.depth[:, 0], normalise=normalise)
    table = pd.DataFrame(x.astype(np.float64))[group >= 0].groupby(group[group >= 0])
    if normalise == "mean_log1p":
        each = pd.DataFrame(np.log1p(1e4 * x.astype(np.float64) / x.sum(axis=1, keepdims=True, dtype=np.float64)))
        theirs = each[group >= 0].groupby(group[group >= 0]).mean()
    elif normalise == "sum":
        theirs = table.sum()
    else:
        total = table.sum()
        theirs = np.log1p(total.div(total.sum(axis=1), axis=0) * {"cp10k": 1e4, "5e4": 5e4}[normalise])
    np.testing.assert_allclose(ours, theirs.to_numpy(), rtol=0, atol=1e-8)


def test_the_standard_error_of_a_mean_is_that_of_pandas():
    x, group, half = world()
    s = summed(x, group, half, space="log1p")
    ours = standard_error(s.values, s.n_cells, s.depth, normalise="mean_log1p")
    each = pd.DataFrame(np.log1p(1e4 * x.astype(np.float64) / x.sum(axis=1, keepdims=True, dtype=np.float64)))
    np.testing.assert_allclose(ours, each[group >= 0].groupby(group[group >= 0]).sem(), atol=1e-6)


def test_the_standard_error_of_log_counts_is_the_spread_of_repeated_samples():
    """2,000 groups of 50 cells from one population: the mean standard error against the spread of the profiles."""
    rng = np.random.default_rng(3)
    n_groups, n = 2000, 50
    depth = rng.lognormal(3, 0.4, (n_groups * n, 1))
    x = rng.poisson(rng.gamma(2.0, 0.5, (n_groups * n, 3)) * np.array([0.2, 0.3, 0.5]) * depth).astype(np.float32)
    group = np.repeat(np.arange(n_groups), n)
    s = GroupSums.empty(n_groups, 3, "counts")
    s.add(rows_of(x), group, np.zeros(len(x), dtype=bool))
    found = profile(s.values[..., SUM], s.n_cells, s.depth[:, 0], normalise="cp10k")
    error = standard_error(s.values, s.n_cells, s.depth, normalise="cp10k")
    np.testing.assert_allclose(np.sqrt((error**2).mean(axis=0)), found.std(axis=0), rtol=0.06)


def test_halves_are_equal_and_do_not_depend_on_the_order_of_the_cells():
    names = pd.Index([f"AAC{i}-1" for i in range(41)])
    group = np.arange(41) % 3
    half = halves(names, group)
    assert np.bincount(group[half]).tolist() == [7, 7, 6]
    turned = np.random.default_rng(0).permutation(41)
    np.testing.assert_array_equal(halves(names[turned], group[turned]), half[turned])


def test_the_half_of_a_sum_is_the_sum_over_the_cells_of_the_half():
    x, group, half = world()
    s = summed(x, group, half)
    for k in range(K):
        np.testing.assert_array_equal(s.values[k, :, 3], x[(group == k) & half].sum(axis=0))
        assert s.depth[k, 2] == x[(group == k) & half].sum()


def test_entries_out_of_order_or_in_parts_are_the_same_cells():
    whole = np.array([[0, 3, 5], [2, 0, 1]], dtype=np.float32)
    parts = np.array([0, 3, 5]), np.array([2, 1, 1, 2, 0], dtype=np.int32)
    messy = Rows(*parts, np.array([5, 1, 2, 1, 2], dtype=np.float32))
    a, b = GroupSums.empty(1, 3, "counts"), GroupSums.empty(1, 3, "counts")
    for sums, rows in ((a, rows_of(whole)), (b, messy)):
        sums.add(rows, np.zeros(2, dtype=np.int64), np.array([True, False]))
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.depth, b.depth)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.5])
def test_a_value_that_cannot_be_summed_names_its_row(value):
    x = np.ones((5, 3), dtype=np.float32)
    x[3, 1] = value
    with pytest.raises(BadCell) as bad:
        GroupSums.empty(1, 3, "counts").add(Rows.of_dense(x), np.zeros(5, dtype=np.int64), np.zeros(5, dtype=bool))
    assert bad.value.row == 3


def test_a_column_beyond_the_genes_is_refused_and_nothing_is_written_there():
    rows = Rows(np.array([0, 1]), np.array([7], dtype=np.int32), np.ones(1, dtype=np.float32))
    with pytest.raises(BadCell):
        GroupSums.empty(1, 3, "counts").add(rows, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool))


def test_a_group_too_large_for_whole_numbers_is_refused():
    s = GroupSums.empty(1, 2, "counts")
    s.add(rows_of(np.full((3, 2), 2.0**31, dtype=np.float32)), np.zeros(3, dtype=np.int64), np.zeros(3, dtype=bool))
    with pytest.raises(InputError, match="too large"):
        s.require_exact()


def test_sums_can_be_written_and_read(tmp_path):
    x, group, half = world()
    s = summed(x, group, half)
    s.save(tmp_path / "part.npz")
    again = GroupSums.load(tmp_path / "part.npz")
    for name in ("space", "highest", "deepest"):
        assert getattr(again, name) == getattr(s, name)
    np.testing.assert_array_equal(again.values, s.values)
    np.testing.assert_array_equal(again.depth, s.depth)


def test_kinds_of_values():
    x, _, _ = world()
    logs = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    assert kind_of(x) == "counts"
    assert kind_of(np.log1p(x)) == "log1p_counts"
    assert kind_of(logs) == "log"
    assert kind_of(np.expm1(logs)) == "linear"
    assert kind_of(np.concatenate([x, logs])) == "mixed"
    assert kind_of(logs - logs.mean(axis=0)) == "other"
    assert kind_of(np.maximum(x - 0.13, 0)) == "fractions"
    assert kind_of(np.log2(1 + x)) == "log2_counts"
    ranks = np.argsort(np.argsort(logs + np.random.default_rng(0).random(logs.shape), axis=1), axis=1)
    assert kind_of(4 + 10 * ranks / ranks.max()) == "log"  # quantiles made alike: all totals are the same


@pytest.mark.parametrize(
    ("kind", "zeros", "rows", "cells"),
    [
        ("counts", 0.1, 40, True),
        ("counts", 0.9, 2, False),
        ("log", 0.3, 40, True),
        ("log", 0.0, 40, False),
        ("log", 0.8, 5, True),
        ("log", 0.2, 3, False),
        ("other", 0.0, 40, False),
        ("mixed", 0.5, 12, True),
        ("fractions", 0.3, 4, True),
        ("fractions", 0.0, 4, False),
    ],
)
def test_many_rows_of_a_condition_with_zeros_are_cells_and_replicate_wells_are_not(kind, zeros, rows, cells):
    assert Look(kind, zeros, 100).are_cells(rows) is cells
