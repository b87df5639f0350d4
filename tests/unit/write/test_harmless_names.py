"""Names of strangers: shown without harm in the terminal, the report, the CSV and the figures, kept exactly in data."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertstack._base.colours import figure_style, to_svg
from pertstack._base.machine import progress
from pertstack._base.shown import shown
from pertstack.cli import terminal
from pertstack.study.outputs.for_the_paper import paper_table
from pertstack.write.evaluation_page import evaluation_page
from pertstack.write.report import render
from unit.write.test_report import full_input

HOSTILE = {
    "mathtext": "a$b_{$ \\frac{",
    "escape": "evil\x1b[2J\x1b]0;title\x07",
    "c1": "evil\x9b2J",
    "bidi": "abc\u202egnp.exe\u2066",
    "formula": '=HYPERLINK("http://example.org","ok")',
    "long": "N" * 10**6,
    "unseen": "rid\u200dge\u00ad\U000e0041",
    "markup": "<script>alert(1)</script>[bold red]",
}
UNSEEN = ["\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u200d", "\u00ad", "\U000e0041"]


def board_of(name: str):
    """The content of a report in which one model and everything said of it carries the name."""
    content = full_input()
    board = content.verdict.leaderboard
    old = next(r.name for r in board.rows if r.kind == "base")
    rows = tuple(replace(r, name=name, cautions=(name,)) if r.name == old else r for r in board.rows)
    board = replace(board, rows=rows, headline=f"{name} wins", cautions=(name,))
    return replace(content, title=name, verdict=replace(content.verdict, leaderboard=board)), board


TOGETHER = "".join(HOSTILE[n] for n in ("formula", "escape", "c1", "bidi", "unseen", "mathtext", "markup"))
NAMES = [
    pytest.param(TOGETHER, id="together"),
    pytest.param(HOSTILE["long"], id="long"),
    *(pytest.param(v, id=n, marks=pytest.mark.slow) for n, v in HOSTILE.items() if n != "long"),
]


@pytest.fixture(scope="module", params=NAMES)
def hostile(request):
    return request.param, *board_of(request.param)


def test_the_report_is_written_and_shows_it_harmlessly(hostile):
    name, content, _ = hostile
    page = render(content)
    assert not any(c in page for c in UNSEEN)
    assert "<script>alert" not in page and len(page) < 5 * 10**6
    assert shown(name)[:5].replace("<", "&lt;") in page


def test_the_terminal_is_left_alone_and_json_keeps_it(hostile, capsys):
    name, _, board = hostile
    terminal.out(board.short_table(width=200))
    terminal.out(board.headline)
    terminal.say(board.headline)
    said = "".join(capsys.readouterr())
    assert not any(c in said for c in UNSEEN) and len(said) < 10**5
    terminal.out_json(board.to_dict())
    text = capsys.readouterr().out
    assert not any(c in text for c in UNSEEN)
    assert name in {r["name"] for r in json.loads(text)["rows"]}


def test_what_is_said_beside_the_output_is_shown_too(hostile, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_enabled", True)
    progress.remark(hostile[0])
    said = capsys.readouterr().err
    assert said.strip() and not any(c in said for c in UNSEEN) and len(said) < 10**4


def test_the_page_of_an_evaluation_shows_it_harmlessly(hostile, tmp_path):
    name, content, _ = hostile
    models = [{"model": name, "files": name, "how": name, "samples": 1, "genes": 1}]
    page = evaluation_page(content, models, tmp_path / "page.html").read_text(encoding="utf-8")
    assert not any(c in page for c in UNSEEN)
    assert "<script>alert" not in page and len(page) < 5 * 10**6


def test_the_table_for_the_paper_holds_no_formula(hostile):
    name, _, board = hostile
    rows = list(csv.reader(io.StringIO(paper_table(board))))
    assert not any(row[0].startswith(("=", "+", "@", "-")) for row in rows)
    assert any(shown(name)[-20:] in row[0] for row in rows)
    assert not any(c in cell for c in UNSEEN for row in rows for cell in row)


def test_no_cell_of_the_csv_is_a_formula(hostile):
    name, _, board = hostile
    rows = list(csv.reader(io.StringIO(board.to_csv())))
    texts = [c for row in rows for c in row if not c.replace(".", "").replace("-", "").replace("e", "").isdigit()]
    assert not any(c.startswith(("=", "+", "@")) for c in texts)
    assert any(shown(name)[-20:] in c for c in texts)


def test_figures_take_any_name(hostile):
    from matplotlib.figure import Figure

    name = hostile[0]
    with figure_style():
        figure = Figure()
        axes = figure.subplots()
        axes.barh([name, "other"], [1, 2], label=name)
        axes.set_title(name)
        axes.legend()
    drawn = to_svg(figure, name="x", alt=name)
    assert not any(c in drawn for c in UNSEEN)


@given(st.text())
def test_what_is_shown_has_no_control_characters_and_plain_text_is_itself(text):
    said = shown(text)
    assert not any(c < " " and c not in "\t\n" for c in said)
    assert not any(c in said for c in UNSEEN)
    if text.isascii() and text.isprintable() and len(text) <= 200:
        assert said == text
