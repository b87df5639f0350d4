"""The table of docs/combiners.md names every combiner, its family, whether it is default and whether it may ship."""

from __future__ import annotations

from pathlib import Path

from pertstack.stacking.registry import COMBINERS

PAGE = Path(__file__).parents[3] / "docs" / "combiners.md"


def test_the_table_is_the_registry():
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line]
    table = {r[0]: tuple(r[1:4]) for r in rows if r[0] in COMBINERS}
    words = {True: "yes", False: "no"}
    assert table == {n: (c.family, words[c.default], words[c.candidate]) for n, c in COMBINERS.items()}
    assert all(len(r) == 5 and r[4] for r in rows if r[0] in COMBINERS)
