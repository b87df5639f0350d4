"""The folders of the package have an order, and imports only look up it; so do the alcoves of a folder."""

from __future__ import annotations

import ast
import runpy
from functools import cache
from pathlib import Path

import pytest

import pertstack

ROOT = Path(pertstack.__file__).parent
ORDER = (
    "_base",
    "_stats",
    "data",
    "design",
    "fit",
    "predictions",
    "reduce",
    "stacking",
    "verdict",
    "write",
    "study",
    "arrays",
    "plugins",
    "cli",
    "__main__",
)
"""From what knows nothing of perturbations down to what people type. ``pertstack/__init__.py`` stands below all."""
CIRCLES: dict[tuple[str, str], str] = {
    (
        "pertstack.data.cells",
        "pertstack.data.readers",
    ): "a reader asks whether its rows are cells; cells are read by readers",
}
"""Pairs of files of one folder that import each other, with the reason."""
FILES = sorted(ROOT.rglob("*.py"))


def module_of(file: Path) -> str:
    """The dotted name of a file; a package has the name of its folder."""
    parts = ["pertstack", *file.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}
FOLDERS = {module_of(file) for file in FILES if file.name == "__init__.py"}


def folder_of(module: str) -> str:
    """The folder a module lies in; a folder lies in itself."""
    return module if module in FOLDERS else module.rpartition(".")[0]


@cache
def imported_modules(file: Path) -> list[tuple[int, str]]:
    """(line, module of ours) of every import in a file, whether of a module or of a name in it."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports between modules are absolute"
            base = node.module or ""
            for name in [alias.name for alias in node.names]:
                inner = f"{base}.{name}"
                found.append((node.lineno, inner if inner in MODULES else base))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return [(line, module) for line, module in found if module.split(".")[0] == "pertstack"]


def rank(module: str) -> int:
    parts = module.split(".")
    return len(ORDER) if len(parts) == 1 else ORDER.index(parts[1])


def test_every_file_of_the_package_has_a_place_in_the_order():
    names = {p.name if p.is_dir() else p.stem for p in ROOT.iterdir() if p.is_dir() or p.suffix == ".py"}
    assert names - {"__pycache__", "__init__"} == set(ORDER)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_import_runs_upwards(file):
    here = module_of(file)
    for line, module in imported_modules(file):
        assert module in MODULES, f"{file}:{line}: there is no {module}"
        if here != "pertstack":
            assert rank(module) <= rank(here), f"{file}:{line}: {here} imports {module}, which stands below it"


def test_no_two_alcoves_of_a_folder_import_each_other():
    """A folder and its own alcoves may; ``study.steps`` and ``study.audit`` may not, unless a reason is given."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for file in FILES:
        mine = folder_of(module_of(file))
        for line, module in imported_modules(file):
            theirs = folder_of(module)
            if mine != theirs and mine.rpartition(".")[0] == theirs.rpartition(".")[0]:
                arrows.setdefault((mine, theirs), []).append(f"{file}:{line}")
    both = {pair: where for pair, where in arrows.items() if pair[::-1] in arrows and pair < pair[::-1]}
    unknown = {pair: where + arrows[pair[::-1]] for pair, where in both.items() if pair not in CIRCLES}
    assert not unknown, "\n".join(f"{a} <-> {b}: {where}" for (a, b), where in unknown.items())
    assert set(CIRCLES) <= set(both), "a reason is written for a circle that is gone"


def test_the_order_is_noticed(tmp_path):
    """The rule itself: an import that runs upwards is one."""
    assert rank("pertstack.study.folder") > rank("pertstack.stacking.choose") > rank("pertstack._stats.estimate")
    file = tmp_path / "a.py"
    file.write_text("from pertstack.study import folder\nimport pertstack.cli.demo\n")
    assert imported_modules(file) == [(1, "pertstack.study.folder"), (2, "pertstack.cli.demo")]


def test_the_picture_of_the_architecture_is_the_one_of_the_imports():
    """Drawn by `python docs/architecture.py`; not in an installed package."""
    script = ROOT.parents[1] / "docs" / "architecture.py"
    if not script.is_file():
        pytest.skip("docs are not here")
    namespace = runpy.run_path(str(script))
    assert tuple(namespace["WHAT"]) == ORDER
    drawn = (script.parent / "images" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == namespace["picture"](), "run: python docs/architecture.py"


LONG = {"study/study.py": "the facade: one method a step, most of it what the manual shows"}
"""Files of more than ``MOST_LINES`` lines, with the reason."""
MOST_LINES, MOST_FILES = 300, 16


def test_a_file_and_a_folder_can_be_taken_in_at_once():
    lines = {f.relative_to(ROOT).as_posix(): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    long = {name: n for name, n in lines.items() if n > MOST_LINES}
    assert set(long) == set(LONG), f"split it by what it does, or say here why not: {long}"
    files = {f.parent: sum(p.name != "__init__.py" for p in f.parent.glob("*.py")) for f in FILES}
    assert not {d: n for d, n in files.items() if n > MOST_FILES}, "give files that belong together a folder"
