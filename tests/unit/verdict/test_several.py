"""Confidence set, simultaneous intervals, best of C and left-out cell lines reach file, report and screen."""

from __future__ import annotations

import io
import json

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from pertstack._stats.multiple import bbc, max_t, model_confidence_set
from pertstack.verdict.boards.board import Leaderboard, schema
from pertstack.verdict.judge import judge
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting
from pertstack.verdict.several import several_in_words
from pertstack.write.tables.together_table import together_table
from references.judged_world import KINDS, world

SETTING = Setting(kinds=KINDS, chosen="direct_pooled", test_looks=1, plan_digest="p1")
PRIMARY = "r2_top20@pooled"


@pytest.fixture(scope="module")
def board():
    return judge(world(), world(seed=6), SETTING, resampling=GroupResampling(seed=3, resamples=300)).leaderboard


def rows_of(table, kinds):
    names = [n for n in table.names if KINDS[n] in kinds and np.isfinite(table.values(n, PRIMARY)).any()]
    return names, np.array([table.values(n, PRIMARY) for n in names], dtype=np.float64)


def test_the_confidence_set_is_that_of_base_models_combiners_and_references(board):
    found, table = board.several["confidence_set"], world()
    names, values = rows_of(table, ("base", "combiner", "reference"))
    rng = np.random.default_rng(3)
    direct = model_confidence_set(values, table.samples["group"].to_numpy(), rng=rng, resamples=300)
    assert {r["name"]: (r["p"], r["included"]) for r in found["rows"]} == {
        n: (p, kept) for n, p, kept in zip(names, direct.p, direct.included, strict=True)
    }
    assert found["rows"][0]["name"] == "direct_pooled" and found["rows"][0]["p"] == 1
    assert "oracle" not in names and "no_change" not in names  # a ceiling; undefined everywhere


def test_simultaneous_intervals_are_against_the_best_single_and_wider_than_single_ones(board):
    found, table = board.several["simultaneous"], world()
    names, values = rows_of(table, ("combiner", "reference"))
    against = table.values("mlp", PRIMARY).astype(np.float64)
    groups = table.samples["group"].to_numpy()
    direct = dict(zip(names, max_t(values - against, groups, rng=np.random.default_rng(3), resamples=300), strict=True))
    assert found["against"] == "mlp"
    for row in found["rows"]:
        assert (row["difference"], row["p"]) == (direct[row["name"]].value, direct[row["name"]].p)
    alone = GroupResampling(seed=3, resamples=300).compare(values[names.index("direct_pooled")], against, groups)
    lo, hi = found["rows"][0]["ci"]
    assert found["rows"][0]["name"] == "direct_pooled" and hi - lo > alone.ci[1] - alone.ci[0]


def test_the_best_of_c_is_read_where_the_choice_was_made(board):
    found, table = board.several["best_of"], world(seed=6)
    names, values = rows_of(table, ("combiner", "reference"))
    direct = bbc(values, table.samples["group"].to_numpy(), np.random.default_rng(3), resamples=300)
    assert (found["split"], found["n_candidates"], found["best"]) == ("oof", len(names), "direct_pooled")
    assert found["seen"] == pytest.approx(np.nanmean(values, axis=1).max())
    assert found["value"] == direct.value and found["optimism"] == pytest.approx(found["seen"] - direct.value)
    only_test = judge(world(), None, SETTING, resampling=GroupResampling(resamples=200)).leaderboard
    assert only_test.several["best_of"]["split"] == "test"


def test_the_file_obeys_the_schema_and_comes_back_whole(board, tmp_path):
    text = board.to_json(tmp_path / "leaderboard.json")
    checker = jsonschema.Draft202012Validator(schema())
    checker.validate(json.loads(text))
    assert Leaderboard.from_json(tmp_path / "leaderboard.json").to_json() == text
    broken = json.loads(text)
    broken["several"]["best_of"]["n_candidates"] = "many"
    assert not checker.is_valid(broken)


def test_the_screen_the_repr_of_words_and_the_report_say_it(board):
    screen = io.StringIO()
    Console(file=screen, width=400).print(board)
    lines = several_in_words(board.several)
    assert len(lines) == 3 and all(line in screen.getvalue() for line in lines)
    assert lines[0].startswith("Cannot be told from the best (95 % confidence set, ")
    assert "over mlp is shown for direct_pooled" in lines[1] and "a loss for 1." in lines[1] and "BBC-CV" in lines[2]
    out = [{"left_out": "A", "difference": 0.02}, {"left_out": "B", "difference": 0.05}]
    assert several_in_words({"leave_cell_line_out": out}) == [
        "Difference with each of 2 cell lines left out: +0.020 (without A) to +0.050 (without B)."
    ]
    table = together_table(board.several)
    best = next(r for r in table["rows"] if r["name"] == "direct_pooled")
    assert table["lines"] == lines and best["included"] == "yes" and best["difference"].startswith("+0.02")


def test_left_out_cell_lines_are_those_of_the_verdict(board):
    found = {r["left_out"]: r for r in board.several["leave_cell_line_out"]}
    table = world()
    kept = table.samples["cell_line"].to_numpy() != "A375"
    d = (table.values("direct_pooled", PRIMARY) - table.values("mlp", PRIMARY))[kept]
    assert sorted(found) == ["A375", "HT29", "MCF7"]
    assert found["A375"]["difference"] == pytest.approx(d.mean(), abs=1e-6) and found["A375"]["n"] == kept.sum()


def test_one_group_gives_no_set_and_no_words_about_it():
    table = world(1, ("A375",))
    found = judge(table, None, SETTING, resampling=GroupResampling(resamples=200)).leaderboard.several
    assert (found["confidence_set"], found["best_of"], found["leave_cell_line_out"]) == (None, None, [])
    assert all(r["ci"] is None and r["p"] is None for r in found["simultaneous"]["rows"])
    assert several_in_words(found) == [
        "Asked of all 4 combinations and references at once, which takes stronger evidence than asking of one named "
        "beforehand, a gain over mlp is shown for none."
    ]
    assert several_in_words({}) == []
