"""The printed leaderboards are that of a fresh demo: the order of the first three, signs, and numbers within 0.02."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from .conftest import ok

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": 6, "docs/explanation/demo-leaderboard.md": 10}
"""Page -> rows of its table."""
NUMBER = r"[+−-]?\d\.\d+"


def printed_rows(page: str) -> dict[str, list[float]]:
    """Name -> own, pooled, gain, as a page prints them; the best single model has no gain."""
    found: dict[str, list[float]] = {}
    for line in (ROOT / page).read_text(encoding="utf-8").split("> Ship")[0].splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) == 6 and re.match(NUMBER, cells[2]):
            numbers = [re.match(NUMBER, cell) for cell in cells[2:5]]
            found[cells[0].removeprefix("▸ ")] = [float(m[0].replace("−", "-")) for m in numbers if m]
    return found


def compare(board: dict[str, object], printed: dict[str, list[float]]) -> None:
    rows = {r["name"]: r for r in board["rows"] if r["split"] == "test"}  # type: ignore[attr-defined, index]
    for name, (own, pooled, *gain) in printed.items():
        row = rows[name]
        values = [row["scores"]["r2_top20@own"]["value"], row["scores"]["r2_top20@pooled"]["value"]]
        assert values == pytest.approx([own, pooled], abs=0.02), name
        if gain and abs(gain[0]) > 0.02:
            found = row["versus_best_single"]["r2_top20@pooled"]["difference"]
            assert found == pytest.approx(gain[0], abs=0.02) and found * gain[0] > 0, name
    ranked = sorted(
        (r for r in rows.values() if r["kind"] != "ceiling"), key=lambda r: -r["scores"]["r2_top20@pooled"]["value"]
    )
    assert [r["name"] for r in ranked[:3]] == list(printed)[:3]
    assert board["chosen"] == next(iter(printed))


@pytest.mark.parametrize("page", PAGES)
def test_the_table_is_read_as_printed(page):
    rows = printed_rows(page)
    assert len(rows) == PAGES[page] and {"TranSiGen", "mean", "mean_treated_cell_line"} <= set(rows)
    assert all(0 <= v[1] < 1 for v in rows.values())


def test_both_pages_say_the_same():
    short, whole = map(printed_rows, PAGES)
    assert {name: whole[name] for name in short} == short


@pytest.mark.slow
def test_a_fresh_demo_prints_the_same_table(tmp_path):
    """DEMO_STUDY=folder compares with a demo that is there already."""
    study = Path(os.environ["DEMO_STUDY"]) if "DEMO_STUDY" in os.environ else tmp_path / "demo" / "study"
    if not study.exists():
        ok("demo", tmp_path / "demo")
    for page in PAGES:
        compare(json.loads((study / "results" / "leaderboard.json").read_text()), printed_rows(page))
