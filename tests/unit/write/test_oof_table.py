"""The stack step in a terminal of 80 columns: whole names, one line a row, the best ten, and where the rest is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pertstack.stacking.choose import Choice
from pertstack.write.oof_table import FIRST, oof_table
from references.judged_world import shifts, world

MORE = {f"cell_line_shrunken_{i}": {"own": 0.001 * i, "pooled": 0.001 * i} for i in range(8)}
MARKED = {
    "simplex": "not shipped: loses beyond noise against the best single model on rmse_all@own",
    "direct_own": "no",
}


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
