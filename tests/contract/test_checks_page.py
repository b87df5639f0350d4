"""The page "What is checked when a file comes in" lists every code that a file can meet, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pertstack

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checks-on-files.md"
SEVERITIES = {"error", "warning", "note"}


def codes() -> set[str]:
    """Second arguments of calls whose first argument is, or chooses, a severity."""
    root, found = Path(pertstack.__file__).parent, set()
    files = [f for part in ("data", "predictions/importers", "design/leaks") for f in (root / part).rglob("*.py")]
    for node in (n for f in files for n in ast.walk(ast.parse(f.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Call) and len(node.args) >= 2 and isinstance(node.args[1], ast.Constant):
            said = {c.value for c in ast.walk(node.args[0]) if isinstance(c, ast.Constant)} & SEVERITIES
            if said and re.fullmatch(r"[a-z_]+", str(node.args[1].value)):
                found.add(str(node.args[1].value))
    return found


def test_every_code_is_on_the_page_and_every_code_on_the_page_exists() -> None:
    listed: set[str] = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and re.search(r"\| (error|warning|note)", line):
            listed |= set(re.findall(r"`([a-z_]+)`", line.split("|")[1]))
    found = codes()
    assert len(found) > 60
    assert found - listed == set()
    everything = "\n".join(f.read_text(encoding="utf-8") for f in Path(pertstack.__file__).parent.rglob("*.py"))
    assert {code for code in listed - found if f'"{code}"' not in everything} == set()


def test_options_on_the_page_exist() -> None:
    """What the page advises works on the command line."""
    cli = "\n".join(f.read_text(encoding="utf-8") for f in (Path(pertstack.__file__).parent / "cli").glob("*.py"))
    known = set(re.findall(r"--[a-z][a-z-]+", cli)) | {f"--{n.replace('_', '-')}" for n in re.findall(r"(\w+):", cli)}
    page = PAGE.read_text(encoding="utf-8").replace("gunzip --keep", "")
    assert set(re.findall(r"--[a-z][a-z-]+", page)) - known == set()
