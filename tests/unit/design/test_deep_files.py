"""Files nested a hundred thousand deep, or with a number of thousands of digits, are refused in words, wherever one is
given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pertstack._base.errors import CorruptionError, StackingError
from pertstack._base.files import read_json
from pertstack.data.side.files import read_targets
from pertstack.design.analysis_plan import AnalysisPlan
from pertstack.design.ledger import Ledger
from pertstack.design.plan.foreign import read_split
from pertstack.fit.external.card import load_card
from pertstack.fit.profiles import load_models_toml
from pertstack.predictions.importers.cards import read_card
from pertstack.predictions.importers.fitted_file import read_fitted_on
from pertstack.predictions.importers.readers.opening import open_file

DEEP = "[" * 200_000
LONG = "9" * 5000  # Python makes no number of it, and says so by another error than that of its readers
DOORS: dict[str, Callable[[Path], Any]] = {
    "read_json": read_json,
    "read_targets": read_targets,
    "read_fitted_on": read_fitted_on,
    "open_file": open_file,
    "preprocessing card": lambda path: read_card(path.read_text(), path),
}


@pytest.mark.parametrize("text", [DEEP, LONG], ids=["deep", "long"])
@pytest.mark.parametrize("door", DOORS)
def test_json(tmp_path: Path, door: str, text: str) -> None:
    (tmp_path / "deep.json").write_text(text)
    with pytest.raises(StackingError, match=r"deep\.json"):
        DOORS[door](tmp_path / "deep.json")


TABLES: dict[str, Callable[[Path], Any]] = {
    "plan": AnalysisPlan.load,
    "card": load_card,
    "models": load_models_toml,
    "split": lambda path: read_split(path, pd.DataFrame({"perturbation": ["a"], "cell_line": ["b"]})),
}


@pytest.mark.parametrize("text", [DEEP, LONG], ids=["deep", "long"])
@pytest.mark.parametrize("door", TABLES)
def test_toml(tmp_path: Path, door: str, text: str) -> None:
    (tmp_path / "deep.toml").write_text(f"a = {text}")
    with pytest.raises(StackingError, match=r"deep\.toml"):
        TABLES[door](tmp_path / "deep.toml")


MISTYPED = '{"index": "0", "time": 1, "who": [], "kind": {}, "facts": {}, "previous": 2, "digest": 3}'


WRITTEN = '{"index": 0, "time": "", "who": "", "kind": "k", "facts": {"a": %s}, "previous": "", "digest": ""}'


@pytest.mark.parametrize("line", [DEEP, LONG, MISTYPED, *(WRITTEN % v for v in (LONG, "NaN", '"\\ud800"'))])
def test_a_line_of_the_ledger_that_is_none_is_found(tmp_path: Path, line: str) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_text(f"{line}\n")
    assert any(f.severity == "error" for f in ledger.verify())
    with pytest.raises(CorruptionError, match="line 1"):
        ledger.append("note")


@pytest.mark.parametrize("value", [DEEP, LONG, "NaN", '"\\ud800"'])
def test_an_end_of_the_ledger_that_nothing_of_ours_wrote_is_refused(tmp_path: Path, value: str) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", tmp_path / "head.json")
    ledger.begin("note")
    (tmp_path / "head.json").write_text(f'{{"format": 1, "ledger_head": {value}, "sha256": ""}}')
    with pytest.raises(CorruptionError, match=r"head\.json is gone or damaged"):
        ledger.append("note")
