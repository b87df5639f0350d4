"""The stack step in a terminal of 80 columns: whole names, one line a row, the best ten, and where the rest is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pertstack.stacking.choice import Choice
from pertstack.verdict.words import number
from pertstack.write.tables.oof_table import FIRST, oof_table
from references.judged_world import shifts, world

MORE = {f"cell_line_shrunken_{i}": {"own": 0.001 * i, "pooled": 0.001 * i} for i in range(8)}
MARKED = {
    "simplex": "not shipped: loses beyond noise against the best single model on "
    "pearson_all@centroid -0.0516 (s.e. 0.0198, bounds -0.0843, -0.0189); rmse_all@own +0.0212 (s.e. 0.0071)",
    "direct_own": "no",
}
"""As ``stacking/choose.py`` says it: what was lost, with numbers, and why else a name may not ship."""


@pytest.mark.parametrize("width", [80, 130])
def test_one_line_a_row_and_no_name_cut(width):
    table = world(20, by_name=shifts() | MORE)
    choice = Choice("direct_pooled", "mlp", "r2_top20@pooled", (), {}, MARKED, (), 2.0)
    for every in (False, True):
        console = Console(width=width, file=io.StringIO())
        console.print(oof_table(table, choice, every=every, width=width))
        lines = console.file.getvalue().splitlines()
        rows = [line for line in lines if line.startswith("│")]
        assert all(len(line) <= width for line in lines)
        names = [next(n for n in table.names if f" {n} " in line) for line in rows]  # a cut or broken name is none
        assert len(set(names)) == len(names)
        assert len(names) == (len(table.names) if every else FIRST + (names.index("mlp") >= FIRST))
        assert ("--all" in lines[-1]) is not every
        for name, line in zip(names, rows, strict=True):
            assert f" {number(table.mean(name, choice.primary).value)} " in line, "the deciding number is there"
        if width == 130 and every:
            lost = next(line for name, line in zip(names, rows, strict=True) if name == "simplex")
            assert "loses on Pearson r, all genes, centroid; 1 more" in lost and "s.e." not in lost
