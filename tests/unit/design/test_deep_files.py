"""Files nested a hundred thousand deep are refused in words, wherever one is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pertstack._base.errors import StackingError
from pertstack._base.files import read_json
from pertstack.data.side.files import read_targets
from pertstack.design.analysis_plan import AnalysisPlan
from pertstack.design.ledger import Ledger
from pertstack.fit.external.card import load_card
from pertstack.predictions.importers.cards import read_card
from pertstack.predictions.importers.fitted_file import read_fitted_on
from pertstack.predictions.importers.readers.opening import open_file

DEEP = "[" * 200_000
DOORS: dict[str, Callable[[Path], Any]] = {
    "read_json": read_json,
    "read_targets": read_targets,
    "read_fitted_on": read_fitted_on,
    "open_file": open_file,
    "preprocessing card": lambda path: read_card(path.read_text(), path),
}


@pytest.mark.parametrize("door", DOORS)
def test_json(tmp_path: Path, door: str) -> None:
    (tmp_path / "deep.json").write_text(DEEP)
    with pytest.raises(StackingError, match=r"deep\.json"):
        DOORS[door](tmp_path / "deep.json")


def test_toml(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text(f"a = {DEEP}")
    with pytest.raises(StackingError, match=r"deep\.toml"):
        AnalysisPlan.load(tmp_path / "deep.toml")
    with pytest.raises(StackingError, match=r"deep\.toml"):
        load_card(tmp_path / "deep.toml")


MISTYPED = '{"index": "0", "time": 1, "who": [], "kind": {}, "facts": {}, "previous": 2, "digest": 3}'


@pytest.mark.parametrize("line", [DEEP, MISTYPED])
def test_a_line_of_the_ledger_that_is_none_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "ledger.jsonl").write_text(f"{line}\n")
    assert any(f.severity == "error" for f in Ledger(tmp_path / "ledger.jsonl").verify())
