"""Prediction intervals: the formula against a plain loop, coverage where it can be known, borrowing and honesty."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._base.errors import InputError
from pertstack._base.machine import scratch
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.mixtures import single
from pertstack.verdict import residuals as residual_lists
from pertstack.verdict.coverage import (
    check_coverage,
    collect_residuals,
    coverage_to_json,
    guaranteed_coverage,
    measured_coverage,
)
from pertstack.verdict.residuals import CrossConformal, SortedResiduals
from references.memory_source import world
from references.plain_intervals import cv_plus


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.sampled_from([0.5, 0.8, 0.9]))
def test_ends_equal_a_plain_loop(seed, sizes, level):
    rng = np.random.default_rng(seed)
    residuals = [rng.normal(size=(n, 2)).astype(np.float32) for n in sizes]
    centres = {k: rng.normal(size=(3, 2)).astype(np.float32) for k in range(len(sizes))}
    conformal = CrossConformal({"A": {k: SortedResiduals.of(r) for k, r in enumerate(residuals)}})
    lo, hi = conformal.intervals("A", centres, level)
    for i in range(3):
        for g in range(2):
            mine = [float(centres[k][i, g]) for k in centres]
            expected = cv_plus(mine, [[float(x) for x in r[:, g]] for r in residuals], level)
            assert (lo[i, g], hi[i, g]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 30), min_size=1, max_size=4), st.booleans())
def test_one_centre_gives_the_ends_of_the_same_centre_for_every_fold(seed, sizes, coarse):
    rng = np.random.default_rng(seed)
    residuals = [rng.normal(size=(n, 3)).astype(np.float32) for n in sizes]
    if coarse:  # equal residuals within and between folds
        residuals = [np.round(r * 2) / 2 for r in residuals]
    centre = np.round(rng.normal(size=(4, 3)) * 64).astype(np.float32) / 64
    centre[1, 2] = np.nan
    conformal = CrossConformal({"A": {k: SortedResiduals.of(r) for k, r in enumerate(residuals)}})
    by_fold = conformal.intervals("A", dict.fromkeys(range(len(sizes)), centre), 0.8)
    for one, each in zip(conformal.intervals("A", centre, 0.8), by_fold, strict=True):
        np.testing.assert_array_max_ulp(one, each, maxulp=1)


def test_one_centre_is_searched_for_once_a_gene_whatever_the_rows(monkeypatch):
    searched = []
    search = residual_lists._upper

    def counted(mu, *rest):
        searched.append(mu.shape[1])
        search(mu, *rest)

    monkeypatch.setattr(residual_lists, "_upper", counted)
    conformal = CrossConformal({"A": {0: SortedResiduals.of(np.ones((20, 2), dtype=np.float32))}})
    conformal.intervals("A", np.zeros((500, 2), dtype=np.float32))
    assert sum(searched) <= 2


def test_lists_in_a_file_and_searched_a_few_genes_at_a_time_give_the_same_ends(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    residuals = [rng.normal(size=(n, 11)).astype(np.float32) for n in (20, 600)]
    centre = rng.normal(size=(4, 11)).astype(np.float32)
    whole = CrossConformal({"A": {k: SortedResiduals.of(r) for k, r in enumerate(residuals)}}).intervals("A", centre)
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(residual_lists, "_GENES", 3)
    mapped = {k: SortedResiduals.of(r, scratch=tmp_path) for k, r in enumerate(residuals)}
    assert all(isinstance(r.values.base, np.memmap) for r in mapped.values())
    np.testing.assert_array_equal(CrossConformal({"A": mapped}).intervals("A", centre), whole)


def test_thinning_only_widens_and_little():
    rng = np.random.default_rng(0)
    residuals = rng.normal(size=(5000, 4)).astype(np.float32)
    centre = np.zeros((1, 4), dtype=np.float32)
    exact = CrossConformal({"A": {0: SortedResiduals.of(residuals, keep=5000)}}).intervals("A", centre)
    thinned_list = SortedResiduals.of(residuals, keep=100)
    assert thinned_list.values.shape == (100, 4) and thinned_list.n == 5000
    thin = CrossConformal({"A": {0: thinned_list}}).intervals("A", centre)
    assert (thin[1] >= exact[1]).all() and (thin[0] <= exact[0]).all()
    assert np.max(thin[1] - exact[1]) < 0.1


def test_too_few_groups_give_infinite_ends():
    conformal = CrossConformal({"A": {0: SortedResiduals.of(np.ones((5, 1), dtype=np.float32))}})
    lo, hi = conformal.intervals("A", np.zeros((1, 1), dtype=np.float32), 0.9)
    assert math.isinf(lo[0, 0]) and math.isinf(hi[0, 0])


def test_a_missing_prediction_and_a_missing_residual_are_not_guessed():
    residuals = np.ones((20, 2), dtype=np.float32)
    residuals[:, 1] = np.nan
    conformal = CrossConformal({"A": {0: SortedResiduals.of(residuals)}})
    lo, hi = conformal.intervals("A", np.array([[np.nan, 0.0]], dtype=np.float32))
    assert np.isnan([lo[0, 0], hi[0, 0]]).all() and math.isinf(hi[0, 1])


def simulated(seed, n_groups=120, n_genes=30, spread=(("A", 1.0), ("B", 3.0)), per_group=3):
    """Replicates of a perturbation share most of their error; cell line B is three times as noisy."""
    rng = np.random.default_rng(seed)
    lines, groups, errors = [], [], []
    for line, scale in spread:
        shared = rng.normal(0, scale, (n_groups, n_genes))
        for g in range(n_groups):
            for _ in range(per_group):
                lines.append(line)
                groups.append(f"c{g}")
                errors.append(shared[g] + rng.normal(0, 0.3 * scale, n_genes))
    truth = rng.normal(size=(len(groups), n_genes))
    number = np.array([int(g[1:]) for g in groups])
    folds = np.where(number < 0.8 * n_groups, number % 3, np.nan)
    predictions = {"m": (truth + errors).astype(np.float32)}

    def source(role):
        return ArraySource(
            predictions,
            truth.astype(np.float32),
            np.zeros_like(truth, dtype=np.float32),
            folds,
            groups,
            lines,
            role=role,
        )

    return source


def test_coverage_is_what_was_promised_in_every_cell_line_on_new_groups():
    found = []
    for seed in range(6):
        source = simulated(seed)
        references = References.collect(source("development"))
        conformal = collect_residuals(source("development"), single("m"), references, seed=seed)
        assert {k: r.n for k, r in conformal.lists["A"].items()} == {0: 32, 1: 32, 2: 32}, "one residual per group"
        found.append(measured_coverage(source("test"), single("m"), references, conformal=conformal, level=0.9))
    for at, line in enumerate("AB"):
        assert [f.loc[at, "cell_line"] for f in found] == [line] * 6
        assert 0.88 <= np.mean([f.loc[at, "coverage"] for f in found]) <= 0.935
    assert np.mean([f.loc[1, "width"] / f.loc[0, "width"] for f in found]) == pytest.approx(3, rel=0.1)


def test_an_unknown_cell_line_borrows_and_says_so():
    source = simulated(1)
    references = References.collect(source("development"))
    conformal = collect_residuals(source("development"), single("m"), references)
    only_a = CrossConformal({"A": conformal.lists["A"]})
    table = measured_coverage(source("test"), single("m"), references, conformal=only_a).set_index("cell_line")
    assert not table.loc["B", "own"] and table.loc["A", "own"]
    assert table.loc["B", "coverage"] < 0.7 < table.loc["A", "coverage"], (
        "borrowed intervals are too narrow, and it shows"
    )


def test_in_sample_residuals_are_seen_as_too_narrow():
    source = simulated(2)
    references = References.collect(source("development"))

    def cheat(tile):
        out = tile.predictions[0].copy()
        for i, sample in enumerate(tile.obs.index):
            out[i] = truth[sample] + 0.2 * (out[i] - truth[sample])
        return out

    development = source("development")
    truth = {
        s: row
        for b in development.blocks()
        for s, row in zip(
            development.obs(b).index, development.read(b, "treated", start=0, stop=len(development.obs(b))), strict=True
        )
    }
    conformal = collect_residuals(development, cheat, references)
    assert (measured_coverage(source("test"), single("m"), references, conformal=conformal)["coverage"] < 0.4).all()


def test_tiles_and_seed_do_not_change_the_answer():
    source = simulated(3, n_groups=30)
    references = References.collect(source("development"))
    per_fold = {k: single("m") for k in range(3)}
    a = collect_residuals(source("development"), per_fold, references, seed=1, memory=10**9)
    b = collect_residuals(source("development"), single("m"), references, seed=1, memory=30_000)
    for line in a.lists:
        for fold in a.lists[line]:
            np.testing.assert_array_equal(a.lists[line][fold].values, b.lists[line][fold].values)


def test_only_the_drawn_rows_are_read():
    source = world(n=60, n_genes=8, n_drugs=5)
    references = References.collect(source)
    source.reads.clear()
    conformal = collect_residuals(source, single("m0"), references)
    groups = {b: table["group"].nunique() for b, table in source.tables.items()}
    for block, n in groups.items():
        assert conformal.lists[block.cell_line][block.fold].n == n
        assert source.reads[(block, "m0")] == source.reads[(block, "treated")] == n < 60


def test_test_rows_are_not_a_source_of_residuals():
    source = simulated(4, n_groups=30)
    with pytest.raises(InputError, match="held-out test rows"):
        collect_residuals(source("test"), single("m"), References.collect(source("development")))
    with pytest.raises(InputError, match="share between 0 and 1"):
        CrossConformal({}).intervals("A", np.zeros((1, 1), dtype=np.float32), 90)


def test_the_whole_check_in_one_call():
    source = simulated(7)
    references = References.collect(source("development"))
    facts = check_coverage(
        source("development"),
        {k: single("m") for k in range(3)},
        source("test"),
        final=single("m"),
        references=references,
        level=0.8,
    )
    assert facts["nominal"] == 0.8 and 0.75 < facts["coverage"] < 0.87
    assert [r["cell_line"] for r in facts["by_cell_line"]] == ["A", "B"]


def test_json_weighs_by_samples_and_is_strict():
    table = pd.DataFrame(
        {
            "cell_line": ["A", "B", "C"],
            "coverage": [0.9, 0.6, None],
            "width": [1.0, None, None],
            "n": [30, 10, 5],
            "own": [True, True, False],
        }
    )
    value = json.loads(json.dumps(coverage_to_json(table, 0.9), allow_nan=False))
    assert (
        value["coverage"] == pytest.approx((30 * 0.9 + 10 * 0.6) / 40) and value["by_cell_line"][2]["coverage"] is None
    )


def test_guarantee_by_hand():
    # alpha 0.1, n = 99 groups, K = 3: slack = min(2 (2/3) / 34, (96/99) / 4) = 0.0392157
    assert guaranteed_coverage(0.9, 99, 3) == pytest.approx(1 - 0.2 - 4 / 3 / 34)
