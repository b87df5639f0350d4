"""Terminal tables say what the verdict says; exports are aligned by name and whole."""

from __future__ import annotations

import io
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pertstack._base.errors import InputError, MisalignedError, StorageError
from pertstack.cli import terminal
from pertstack.verdict.judge import judge
from pertstack.verdict.setting import Setting
from pertstack.verdict.words import interval, number
from pertstack.write.export import predictions_to_h5ad
from pertstack.write.tables.layout import leaderboard_table
from references.judged_world import KINDS, shifts, world
from references.plain_resampling import PlainResampling


def text_of(table, width=240) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    console.print(table)
    return " ".join(console.export_text().split())


@pytest.fixture(scope="module")
def verdict():
    return judge(world(), None, Setting(KINDS, chosen="direct_pooled", test_looks=1), resampling=PlainResampling(20))


def test_leaderboard_table(verdict):
    text = text_of(leaderboard_table(verdict.leaderboard, width=200))
    for row in verdict.leaderboard.ranked():
        assert row.name in text
    assert "(best single)" in text and "180 / 180" in text
    assert "opened 1 time" in text_of(verdict.leaderboard) and verdict.headline in text_of(verdict.leaderboard)


def test_leaderboard_fits_into_80_columns_without_losing_a_number(verdict):
    text = text_of(verdict.leaderboard, width=80)
    assert "…" not in text
    for row in verdict.leaderboard.ranked():
        cell = row.score("r2_top20@pooled")
        assert row.name in text and number(cell.value) in text and interval(cell.ci) in text
    assert "combiner, ⚠ 1" in text and "+0.025" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_board_shows_the_best_ten_whole_names_and_unbroken_numbers(width):
    more = {f"a_combiner_with_quite_a_long_name_{i:02d}": {"own": -0.001 * i, "pooled": -0.001 * i} for i in range(12)}
    setting = Setting(KINDS | dict.fromkeys(more, "combiner"), chosen="direct_pooled", test_looks=1)
    board = judge(world(24, by_name=shifts() | more), None, setting, resampling=PlainResampling(10)).leaderboard
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(board.short_table(width=width))
    lines = console.export_text().splitlines()
    short = "\n".join(lines)
    assert max(map(len, lines)) <= width and "…" not in short
    shown = [r.name for r in board.ranked() if re.search(rf"(?<!\w){r.name}(?!\w)", short)]
    assert (
        len(shown) == 10 and {"direct_pooled", "mlp"} <= set(shown) and "12 more rows: --all, or the report." in short
    )
    for name in shown:
        assert interval(board.row(name).score("r2_top20@pooled").ci) in short
    console.print(board.short_table(width=width, every=True))
    every = console.export_text()
    assert all(r.name in every for r in board.ranked()) and "more rows" not in every


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_person_reads_whole_words_and_a_pipe_whole_lines(monkeypatch, capsys):
    """Long lines were broken inside words by the terminal; a command stays in one piece, to be copied."""
    said = "Ten models wait for a verdict, and nothing else does: `pertstack verdict a-study-with-a-long-name --all`."
    terminal.out(said)
    assert capsys.readouterr().out == said + "\n"
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout", screen := Screen())
    terminal.out(said)
    lines = screen.getvalue().splitlines()
    assert " ".join(lines) == said and all(len(line) <= 30 for line in lines[:-1])
    assert lines[-1] == "`pertstack verdict a-study-with-a-long-name --all`."


def test_the_answer_stands_in_colour_and_in_words(verdict):
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(verdict.leaderboard)
    coloured = console.export_text(styles=True)
    assert "\x1b[1;32mA gain is shown." in coloured


def test_h5ad_round_trip_is_matched_by_name(tmp_path):
    ids, genes = ["s2", "s1", "s3"], ["TP53", "MYC"]
    treated = np.arange(6, dtype=np.float32).reshape(3, 2)
    obs = pd.DataFrame({"perturbation": ["a", "b", "c"]}, index=["s1", "s2", "s3"])
    path = predictions_to_h5ad(
        tmp_path / "out" / "p.h5ad",
        ids,
        genes,
        treated=treated,
        obs=obs,
        uns={"plan": "p1"},
        layers={"control": treated * 0},
    )
    back = ad.read_h5ad(path)
    assert list(back.obs_names) == ids and list(back.var_names) == genes and back.uns["plan"] == "p1"
    np.testing.assert_array_equal(back.X, treated)
    assert list(back.obs["perturbation"]) == ["b", "a", "c"]
    assert [p.name for p in path.parent.iterdir()] == ["p.h5ad"], "nothing is left beside it"


def test_a_column_that_is_named_like_the_index_is_kept(tmp_path):
    """A plate of LINCS has `sample_id` in obs beside the row names, and they differ: predict ended in a traceback."""
    obs = pd.DataFrame({"sample_id": ["well-9", "well-7"]}, index=pd.Index(["s0", "s1"], name="sample_id"))
    path = predictions_to_h5ad(tmp_path / "p.h5ad", ["s1", "s0"], ["g"], treated=np.ones((2, 1)), obs=obs)
    back = ad.read_h5ad(path).obs
    assert list(back.index) == ["s1", "s0"] and list(back["sample_id"]) == ["well-7", "well-9"]


def test_h5ad_refuses_what_is_not_aligned(tmp_path):
    treated = np.zeros((2, 2), dtype=np.float32)
    with pytest.raises(InputError, match=r"shape \(2, 2\), but there are 3 ids"):
        predictions_to_h5ad(tmp_path / "p.h5ad", ["a", "b", "c"], ["g", "h"], treated=treated)
    with pytest.raises(InputError, match="repeated: 'a'"):
        predictions_to_h5ad(tmp_path / "p.h5ad", ["a", "a"], ["g", "h"], treated=treated)
    with pytest.raises(MisalignedError, match="no metadata: 'b'"):
        predictions_to_h5ad(tmp_path / "p.h5ad", ["a", "b"], ["g", "h"], treated=treated, obs=pd.DataFrame(index=["a"]))
    assert not list(tmp_path.iterdir())


def test_a_refusing_disk_keeps_the_old_file(tmp_path):
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(StorageError, match=r"Cannot write .*folder\.h5ad"):
        predictions_to_h5ad(tmp_path / "folder.h5ad", ["a"], ["g"], treated=np.zeros((1, 1), dtype=np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["folder.h5ad"]
