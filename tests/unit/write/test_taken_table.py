"""The table of what was taken from the data fits its screen, and options to be copied stay whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pertstack.data.taken import Taken
from pertstack.write.tables.layout import taken_table

LINES = [
    Taken("samples", "7,080 cells -> 176 samples (perturbation, cell line): mean of log1p", "", "--cells-as-samples"),
    Taken("perturbation", "column perturbation", "349: '15-delta-prostag...', and 348", "--map perturbation=COLUMN"),
]


@pytest.mark.parametrize("width", [60, 80, 99, 100, 140])
def test_nothing_is_cut_off_and_options_are_whole(width: int):
    shown = io.StringIO()
    Console(width=width, file=shown).print(taken_table(LINES, width=width))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert lines[1].endswith("┓") and all(line[-1] in "┃┩│┘" for line in lines[2:])
    assert "--cells-as-samples" in shown.getvalue() and "perturbation=COLUMN" in shown.getvalue()


@pytest.mark.parametrize("width", [30, 60, 71])
def test_words_stay_whole_on_a_narrow_screen(width: int):
    shown = io.StringIO()
    Console(width=width, file=shown).print(taken_table(LINES, width=width))
    words = " ".join(shown.getvalue().split())
    for line in LINES:
        assert all(part in words for part in (line.what, line.source, line.shows, line.mend))
