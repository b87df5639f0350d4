"""The leaderboard keeps its contract: schema, bytes, order, spelling."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys

import jsonschema
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, UnknownNameError
from pertstack._stats.estimate import Difference
from pertstack.verdict.boards.board import Leaderboard, schema
from pertstack.verdict.boards.rows import LeaderboardRow, ScoreCell


def row(name: str, kind: str, value: float | None, split: str = "test", **more: object) -> LeaderboardRow:
    cells = {
        "r2_top20@pooled": ScoreCell(value, None if value is None else (value - 0.1, value + 0.1), 9, 10),
        "r2_top20": ScoreCell(0.5, (0.4, 0.6), 9, 10),
        "rmse_all": ScoreCell(1 / 3, None, 10, 10),
    }
    return LeaderboardRow(name, kind, split, cells, **more)  # type: ignore[arg-type]


def board() -> Leaderboard:
    gain = {"r2_top20@pooled": Difference(0.02, (0.01, 0.03), 0.004)}
    return Leaderboard(
        (
            row("oracle", "ceiling", 0.9),
            row("biolord", "base", 0.40),
            row("weak", "base", None),
            row("simplex", "combiner", 0.42, versus_best_single=gain, cautions=("few groups",)),
            row("mean", "reference", 0.41),
            row("biolord", "base", 0.39, split="oof"),
        ),
        "r2_top20@pooled",
        chosen="simplex",
        best_single="biolord",
        test_looks=1,
        plan_digest="abc",
        versions={"pertstack": "0.1.0"},
        interval={"level": 0.95, "unit": "perturbation", "n_units": {"test": 7}},
        headline="+0.020 over biolord",
    )


def test_json_obeys_the_schema_and_the_schema_bites():
    value = json.loads(board().to_json())
    checker = jsonschema.Draft202012Validator(schema())
    checker.check_schema(schema())
    checker.validate(value)
    for broken in (
        {**value, "format": 2},
        {k: v for k, v in value.items() if k != "plan_digest"},
        {**value, "rows": [{**value["rows"][0], "kind": "winner"}]},
        {**value, "rows": [{**value["rows"][0], "scores": {"r2": {"value": 1.0, "ci": [1.0], "n_valid": 1, "n": 1}}}]},
    ):
        assert not checker.is_valid(broken)


def test_json_is_the_same_bytes_whatever_the_order_of_construction_and_the_hash_seed(tmp_path):
    whole = board()
    shuffled = dataclasses.replace(
        whole,
        rows=tuple(dataclasses.replace(r, scores=dict(reversed(list(r.scores.items())))) for r in reversed(whole.rows)),
    )
    assert whole.to_json() == shuffled.to_json(tmp_path / "leaderboard.json")
    assert (tmp_path / "leaderboard.json").read_text(encoding="utf-8") == whole.to_json()


def test_floats_are_rounded_and_undefined_numbers_are_null():
    noisy = dataclasses.replace(
        board(),
        rows=(
            LeaderboardRow(
                "a", "base", "test", {"r2_top20": ScoreCell(0.1 + 0.2, (np.float32(0.5), -0.0), np.int64(3), 3)}
            ),
            LeaderboardRow("b", "base", "test", {"r2_top20": ScoreCell(float("nan"), None, 0, 3)}),
        ),
        primary="r2_top20",
    )
    text = noisy.to_json()
    assert '"value": 0.3\n' in text and '"value": null' in text and "NaN" not in text
    assert '"n_valid": 3,\n' in text and "-0.0" not in text
    assert json.loads(text)["reference"] == "own"


def test_ranked_best_first_ceiling_last_undefined_before_it():
    assert [r.name for r in board().ranked()] == ["simplex", "mean", "biolord", "weak", "oracle"]
    by_error = dataclasses.replace(
        board(),
        primary="rmse_all",
        rows=tuple(
            LeaderboardRow(n, "base", "test", {"rmse_all": ScoreCell(v, None, 1, 1)})
            for n, v in [("x", 2.0), ("y", 1.0)]
        ),
    )
    assert [r.name for r in by_error.ranked()] == ["y", "x"], "less error is better"


def test_reading_back_gives_the_same_board(tmp_path):
    board().to_json(tmp_path / "l.json")
    again = Leaderboard.from_json(tmp_path / "l.json")
    assert again.to_json() == board().to_json()
    (tmp_path / "l.json").write_text(board().to_json().replace('"format": 1', '"format": 7'), encoding="utf-8")
    with pytest.raises(InputError, match="format 7"):
        Leaderboard.from_json(tmp_path / "l.json")


def test_csv_has_one_line_per_name_split_and_metric_and_agrees_with_the_rows():
    table = pd.read_csv(io.StringIO(board().to_csv()))
    assert len(table) == 6 * 3
    line = table.set_index(["name", "split", "metric", "reference"]).loc[("simplex", "test", "r2_top20", "pooled")]
    assert (line["value"], line["difference"], line["n_valid"], line["cautions"]) == (0.42, 0.02, 9, "few groups")


def test_frame_is_ranked_and_marks_the_chosen():
    frame = board().to_frame(form="wide")
    assert list(frame.index) == ["simplex", "mean", "biolord", "weak", "oracle"]
    assert frame.loc["simplex", "chosen"] and frame["chosen"].sum() == 1
    assert board().to_frame("oof", form="wide").index.tolist() == ["biolord"]
    with pytest.raises(InputError, match="'tidy', 'wide', 'long'"):
        board().to_frame(form="tall")  # type: ignore[arg-type]


def test_what_is_printed_states_metric_reference_counts_split_and_looks():
    for text in (repr(board()), board()._repr_html_()):
        for needed in (
            "R² Top-20, own control",
            "R² Top-20, pooled control",
            "9 / 10",
            "held-out test",
            "7 perturbations",
            "opened 1 time",
            "+0.020 [+0.010, +0.030]",
            "95 %",
        ):
            assert needed in text, needed
    assert "EXPLORATORY" not in repr(board())
    assert "EXPLORATORY" in repr(dataclasses.replace(board(), exploratory=True))


def test_a_count_that_differs_from_the_deciding_metrics_is_printed_with_its_number():
    cells = {"r2_top20": ScoreCell(0.0, None, 0, 10), "r2_top20@pooled": ScoreCell(0.1, (0.0, 0.2), 10, 10)}
    text = repr(Leaderboard((LeaderboardRow("no_change", "reference", "test", cells),), "r2_top20@pooled"))
    assert "0.000 (n 0)" in text and "0.100 [0.000, 0.200] " in text and "10 / 10" in text


def test_html_escapes_names():
    bad = Leaderboard((row("<script>", "base", 0.1),), "r2_top20@pooled")
    assert "<script>" not in bad._repr_html_()


def test_a_misspelt_row_shows_the_near_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'biolord'"):
        board().row("bioload")


def test_importing_the_board_prints_nothing():
    command = [sys.executable, "-c", "import pertstack.verdict.boards.board"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"" and done.stderr == b""
