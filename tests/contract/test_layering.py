"""The folder listing is the order of the work, and imports only look up it."""

from __future__ import annotations

import ast
from pathlib import Path

import pertstack

ROOT = Path(pertstack.__file__).parent
FOLDERS = ["_base", "data", "design", "fit", "predictions", "reduce", "stack", "verdict", "write"]


def imported_modules(file: Path) -> list[tuple[int, str]]:
    """(line, absolute module) of every import in a file; a relative import is reported with its dots."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found += [(node.lineno, base)] + [
                (node.lineno, f"{base}.{a.name}") for a in node.names if base == "pertstack"
            ]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names]
    return found


def test_the_folders_are_the_ones_of_the_design():
    assert sorted(p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith("__")) == FOLDERS


def test_folders_import_only_from_folders_above_them():
    for file in ROOT.glob("*/**/*.py"):
        here = file.relative_to(ROOT).parts[0]
        for line, module in imported_modules(file):
            assert not module.startswith("."), f"{file}:{line}: imports between modules are absolute"
            parts = module.split(".")
            if parts[0] != "pertstack" or len(parts) == 1:
                continue
            there = parts[1]
            if there == "__version__":
                continue
            assert (ROOT / there).is_dir(), f"{file}:{line}: a folder imports the root file {there}"
            assert there <= here, f"{file}:{line}: {here}/ imports {there}/, which stands below it"
