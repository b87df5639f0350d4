"""The verdict on worlds whose right answer is known by construction."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.verdict.judge import judge
from pertstack.verdict.setting import Setting
from pertstack.verdict.views import leave_cell_line_out, per_cell_line, scaled_scores
from references.judged_world import KINDS, shifts, world
from references.plain_resampling import PlainResampling

RESAMPLING = PlainResampling(60)
SETTING = Setting(kinds=KINDS, chosen="direct_pooled", test_looks=1, plan_digest="p1")


@pytest.fixture(scope="module")
def verdict():
    return judge(world(), world(seed=6), SETTING, resampling=RESAMPLING)


def test_best_single_chosen_gain_and_artefact_come_out_as_built(verdict):
    board = verdict.leaderboard
    assert (board.best_single, board.chosen, board.primary) == ("mlp", "direct_pooled", "r2_top20@pooled")
    gain = board.row("direct_pooled").versus("r2_top20@pooled")
    assert gain is not None and gain.value == pytest.approx(0.025, abs=1e-3)
    assert gain.ci is not None and gain.ci[0] > 0
    assert verdict.decomposition.reading == "win" and verdict.decomposition.name == "direct_pooled"
    assert verdict.decompositions["direct_own"].reading == "artefact"
    assert any("artefact" in c for c in board.row("direct_own").cautions)
    assert not board.row("direct_pooled").cautions
    assert board.headline.startswith("Ship direct_pooled: it beats mlp by 0.025 [")
    assert "and the gain is not the control's or the constant's." in board.headline and board.decision.light == "green"


def test_scores_are_means_over_valid_samples_in_a_plain_loop(verdict):
    table = world()
    for row in verdict.leaderboard.ranked("test"):
        for metric, cell in row.scores.items():
            kept = [v for v in table.values(row.name, metric) if v == v]
            assert cell.n_valid == len(kept) and cell.n == 180
            assert cell.value == pytest.approx(sum(kept) / len(kept) if kept else 0.0)
            assert (cell.ci is None) == (not kept)
            assert cell.ci is None or cell.ci[0] <= cell.value <= cell.ci[1]


def test_undefined_everywhere_counts_zero_and_says_so(verdict):
    row = verdict.leaderboard.row("no_change")
    assert row.score("r2_top20@pooled").value == 0.0 and row.score("r2_top20@pooled").n_valid == 0
    assert any("undefined on all 180 samples" in c for c in row.cautions)


def test_abstaining_on_some_samples_is_cautioned():
    table = world()
    table.values_by_name[table.names.index("knn"), :, :60] = np.nan
    found = judge(table, None, SETTING, resampling=RESAMPLING).leaderboard.row("knn")
    assert any("scored on 120 of 180 samples" in c for c in found.cautions)


def test_the_test_is_read_when_there_is_one_else_oof(verdict):
    assert verdict.split == "test" and {r.split for r in verdict.leaderboard.rows} == {"test", "oof"}
    only = judge(None, world(), dataclasses.replace(SETTING, test_looks=0), resampling=RESAMPLING)
    assert only.split == "oof" and only.headline.startswith(
        "Not decided yet: out of fold direct_pooled leads mlp by 0.02"
    )
    assert any("has not been opened" in c for c in only.leaderboard.cautions)


@pytest.mark.parametrize(
    ("chosen", "shift", "light", "words"),
    [
        (
            "direct_pooled",
            {"own": 0.016, "pooled": 0.0005, "centroid": 0.0, "rmse": 0.0},
            "red",
            "Do not ship direct_pooled: what it gains on own control is noise of the shared control",
        ),
        (
            "direct_pooled",
            {"own": 0.05, "pooled": -0.1, "centroid": -0.05, "rmse": 0.05},
            "red",
            "an artefact of the shared control",
        ),
        (
            "direct_pooled",
            {"own": 0.0, "pooled": 0.0, "centroid": 0.0, "rmse": 0.0},
            "amber",
            "Ship mlp alone: no combination was shown to beat it. direct_pooled, chosen out of fold, differs from it "
            "by",
        ),
        (
            "direct_pooled",
            {"own": -0.03, "pooled": -0.04, "centroid": 0.0, "rmse": 0.0},
            "red",
            "Do not ship direct_pooled: it is worse than mlp by 0.040 [",
        ),
        ("mlp", {}, "amber", "Ship mlp alone: no combination was shown to beat it, in 60 held-out perturbations."),
        ("ridge", {}, "amber", "Ship ridge alone"),
        (None, {}, "amber", "Ship mlp alone"),
    ],
)
def test_headlines(chosen, shift, light, words):
    setting = dataclasses.replace(SETTING, chosen=chosen)
    found = judge(world(by_name=shifts(**shift)), None, setting, resampling=RESAMPLING)
    assert words in found.headline and found.decision.light == light, found.headline


def test_shipping_the_reference_that_picks_a_single_model_is_no_combination():
    by_name = shifts() | {"best_single": {"own": -0.02, "pooled": -0.02}}
    setting = dataclasses.replace(SETTING, kinds=KINDS | {"best_single": "reference"}, chosen="best_single")
    found = judge(world(by_name=by_name), None, setting, resampling=RESAMPLING)
    assert found.decomposition is None and "Ship mlp alone" in found.headline and found.decompositions["best_single"]


def test_strata_follow_effect_size_cell_line_and_seen_perturbations():
    table = world()
    frame, at = table.samples, table.names.index("direct_pooled")
    strong = frame["effect_rms"] > frame["effect_rms"].quantile(0.75)
    table.values_by_name[at, 1, strong.to_numpy()] += 0.5
    fitted = {0: tuple(f"cpd{i:03d}" for i in range(20))}
    found = judge(table, None, dataclasses.replace(SETTING, fitted=fitted), resampling=RESAMPLING).decomposition
    by_quartile = [found.part("effect quartile", f"Q{q}").difference.value for q in (1, 2, 3, 4)]
    assert by_quartile[3] > 0.4 and max(by_quartile[:3]) < 0.1
    assert found.part("perturbation", "seen").difference.n == 20 * 3
    assert found.part("cell line", "A375").difference.n == 60


def test_few_groups_and_repeated_looks_are_said_under_the_board():
    board = judge(
        world(8), None, dataclasses.replace(SETTING, test_looks=3, exploratory=True), resampling=RESAMPLING
    ).leaderboard
    text = " ".join(board.cautions)
    assert "Only 8 perturbations" in text and "opened 3 times" in text and "Exploratory" in text


def test_same_inputs_give_the_same_bytes(verdict):
    again = judge(world(), world(seed=6), SETTING, resampling=PlainResampling(60))
    assert again.leaderboard.to_json() == verdict.leaderboard.to_json()


def test_json_of_the_verdict_is_strict():
    table = world(8, ("A375", "HT29"))
    table.values_by_name[0, :, :8] = np.nan
    text = json.dumps(judge(table, None, SETTING, resampling=RESAMPLING).to_json(), allow_nan=False)
    value = json.loads(text)
    missing = [r for r in value["per_cell_line"] if r["name"] == "mlp" and r["cell_line"] == "A375"]
    assert missing[0]["value"] is None and missing[0]["n_valid"] == 0 and value["decompositions"]["direct_pooled"]


def test_what_cannot_be_judged_is_said():
    with pytest.raises(InputError, match="no scores to judge"):
        judge(None, None, SETTING, resampling=RESAMPLING)
    with pytest.raises(InputError, match="No kind is given for"):
        judge(world(), None, dataclasses.replace(SETTING, kinds={"mlp": "base"}), resampling=RESAMPLING)
    with pytest.raises(InputError, match="no best single model to beat"):
        judge(
            world(), None, dataclasses.replace(SETTING, kinds=dict.fromkeys(KINDS, "reference")), resampling=RESAMPLING
        )
    with pytest.raises(UnknownNameError, match="r2_top20@pooled"):
        judge(world(), None, dataclasses.replace(SETTING, primary="r2_top2@pooled"), resampling=RESAMPLING)


def test_per_cell_line_against_pandas():
    table = world()
    values = table.values_by_name[:, 1].astype(float)
    ours = per_cell_line(table.names, values, table.samples["cell_line"].to_numpy()).set_index(["cell_line", "name"])
    for i, name in enumerate(table.names):
        theirs = table.samples.assign(v=values[i]).groupby("cell_line")["v"].agg(["mean", "count"])
        for line, (mean, count) in theirs.iterrows():
            assert ours.loc[(line, name), "n_valid"] == count
            if count:
                assert ours.loc[(line, name), "value"] == pytest.approx(mean)


def test_a_gain_that_hangs_on_one_cell_line_is_seen_when_it_is_left_out():
    lines = np.repeat(["A", "B", "C"], 40)
    first = np.where(lines == "B", 0.3, 0.0)
    out = leave_cell_line_out(
        first, np.zeros(120), cell_lines=lines, groups=np.tile(np.arange(40), 3), compare=RESAMPLING.compare
    ).set_index("left_out")
    assert out.loc["B", "difference"] == 0.0 and out.loc["A", "difference"] == pytest.approx(0.15)
    none = leave_cell_line_out(first, first, cell_lines=np.repeat("A", 120), groups=lines, compare=RESAMPLING.compare)
    assert none.empty


def test_scaled_score_by_hand():
    # replicate mean 0.8 on its two valid samples; floor 0.4; model 0.6 there: (0.6 - 0.4) / (0.8 - 0.4) = 0.5
    values = np.array([[0.6, 0.6, 0.0], [0.3, 0.5, 0.9], [0.9, 0.7, np.nan]])
    names = ("m", "mean_treated", "replicate")
    table, reason = scaled_scores(names, values, "r2_top20", no_drug=("mean_treated",), replicate="replicate")
    assert reason == "" and table.set_index("name").loc["m", "scaled"] == pytest.approx(0.5)
    for kwargs, words in (
        ({"no_drug": ("mean_treated",), "replicate": None}, "No replicates"),
        ({"no_drug": (), "replicate": "replicate"}, "no floor"),
        ({"no_drug": ("replicate",), "replicate": "m"}, "too noisy to serve"),
    ):
        empty, reason = scaled_scores(names, values, "r2_top20", **kwargs)
        assert empty.empty and words in reason
