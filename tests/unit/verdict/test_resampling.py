"""The adapter between judge and inference: same answers in any order, agreement with plain loops, nothing undefined."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack._stats import group_sums
from pertstack._stats.group_sums import draw_counts, group_codes
from pertstack.verdict.judge import judge
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting
from references.judged_world import KINDS, world
from references.plain_resampling import PlainResampling

SETTING = Setting(KINDS, chosen="direct_pooled", test_looks=1)


def test_intervals_agree_with_a_plain_cluster_bootstrap():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(80), 3)
    values = rng.normal(0, 1, 80)[groups] + rng.normal(0, 0.3, (2, 240)) + 1.0
    values[0, :10] = np.nan
    ours = GroupResampling(seed=3).intervals(values, groups)
    theirs = PlainResampling(2000, seed=9).intervals(values, groups)
    for (lo, hi), (low, high) in zip(ours, theirs, strict=True):
        assert lo == pytest.approx(low, abs=0.06) and hi == pytest.approx(high, abs=0.06)


def test_order_of_calls_and_of_rows_does_not_matter():
    groups, values = np.repeat(np.arange(30), 2), np.random.default_rng(0).normal(size=(3, 60))
    resampling = GroupResampling(seed=1, resamples=200)
    alone = resampling.compare(values[1], values[0], groups)
    together = resampling.differences(values[::-1], values[0], groups)[1]
    assert alone == resampling.compare(values[1], values[0], groups)
    assert together.ci == pytest.approx(alone.ci, abs=1e-12)  # other kernels sum in another order
    assert (together.value, together.p) == pytest.approx((alone.value, alone.p), abs=1e-12)


def test_nothing_defined_gives_nothing_rather_than_nan():
    groups = np.arange(5)
    found = GroupResampling(resamples=100).compare(np.full(5, np.nan), np.ones(5), groups)
    assert (found.value, found.ci, found.p) == (None, None, None)
    empty = GroupResampling(resamples=100).compare(np.empty(0), np.empty(0), np.empty(0))
    assert empty.value is None and empty.n == 0


def test_verdict_with_the_real_inference_reads_the_known_world_right():
    found = judge(world(), world(seed=6), SETTING, resampling=GroupResampling(resamples=300))
    assert found.decomposition.reading == "win" and found.decompositions["direct_own"].reading == "artefact"
    gain = found.leaderboard.row("direct_pooled").versus("r2_top20@pooled")
    assert gain.value == pytest.approx(0.025, abs=1e-3) and gain.ci[0] > 0.01 and gain.p < 0.05
    assert found.leaderboard.row("ridge").versus("r2_top20@pooled").ci[1] <= 0.0
    again = judge(world(), world(seed=6), SETTING, resampling=GroupResampling(resamples=300))
    assert again.leaderboard.to_json() == found.leaderboard.to_json()


def test_no_difference_is_seldom_called_a_win():
    """20 worlds in which the combiner equals the best single model on average over worlds: few may read as a win."""
    wins = 0
    rng = np.random.default_rng(5)
    for seed in range(20):
        table = world(40, ("A375",), seed=seed)
        at, best = table.names.index("direct_pooled"), table.names.index("mlp")
        noise = rng.normal(0, 0.05, (len(table.metrics), 40)).astype(np.float32)
        table.values_by_name[at] = table.values_by_name[best] + noise
        wins += judge(table, None, SETTING, resampling=GroupResampling(resamples=200)).decomposition.reading == "win"
    assert wins <= 3


def test_the_same_seed_draws_once_and_the_generator_goes_on_as_if_it_had(monkeypatch):
    made = []
    draw = group_sums._drawn
    monkeypatch.setattr(group_sums, "_drawn", lambda *a: made.append(a[:2]) or draw(*a))
    monkeypatch.setattr(group_sums, "_DRAWN", {})
    alone, kept = np.random.default_rng(4), np.random.default_rng(4)
    plain = [p.astype(np.float64) for p in draw(30, 500, alone)]
    for rng in (kept, np.random.default_rng(4)):
        for one, two in zip(draw_counts(30, 500, rng), plain, strict=True):
            np.testing.assert_array_equal(one, two)
        assert rng.bit_generator.state == alone.bit_generator.state
    assert made == [(30, 500)]


@pytest.mark.parametrize(
    "groups", [["b", "a", "b"], [10, 9, 10], [1.5, np.nan, 1.5], np.array(["x", None, "a"], dtype=object), []]
)
def test_codes_of_groups_are_those_of_their_names_in_order(groups):
    labels, code = group_codes(groups)
    wanted = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    np.testing.assert_array_equal(labels, wanted[0])
    np.testing.assert_array_equal(code, wanted[1])
