"""Draw random mutants where a wrong sign would be a wrong number: does some test go red?

A mutant is one change in one place: a comparison, an operator, a small number, a truth value, an ``and`` for an ``or``.
The room's own tests are run on it, the quick ones. Survivors are printed with line and change, to be judged: a hole in
the tests, or a change that means the same.

    python benchmarks/random_mutants.py                  # 100 of them, seed 0
    python benchmarks/random_mutants.py --n 20 --seed 3 --room ledger
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mutants import ROOT, copy_tree, imports_the_copy

LIMIT = 300
ENOUGH = 0.9
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "store": (("predictions/store/*.py",), ("tests/unit/predictions", "tests/golden")),
    "ledger": (
        ("design/ledger.py", "design/analysis_plan.py"),
        ("tests/unit/design/test_ledger.py", "tests/unit/design/test_analysis_plan.py"),
    ),
    "choice": (("stacking/choose.py", "stacking/panel.py", "stacking/constants.py"), ("tests/unit/stacking",)),
    "inference": (("_stats/*.py",), ("tests/unit/verdict", "tests/unit/stacking")),
    "metrics": (("reduce/metrics/*.py", "reduce/score.py", "reduce/score_table.py"), ("tests/unit/reduce",)),
}
"""Files below src/pertstack, and where their tests are."""
_COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATE = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}


@dataclass(frozen=True)
class Change:
    """A piece of a file and what takes its place."""

    room: str
    file: Path
    line: int
    old: str
    new: str
    start: int
    stop: int

    def applied(self, text: str) -> str:
        raw = text.encode()
        return (raw[: self.start] + self.new.encode() + raw[self.stop :]).decode()


def changes_of(room: str, file: Path) -> list[Change]:
    """Every mutant of a file; what only speaks (docstrings, messages, annotations) is left alone."""
    text = file.read_text(encoding="utf-8")
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Change] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
            return
        other = _mutated(node)
        if other is not None and isinstance(node, ast.expr) and node.end_lineno is not None:
            start = starts[node.lineno - 1] + node.col_offset
            stop = starts[node.end_lineno - 1] + (node.end_col_offset or 0)
            old = text.encode()[start:stop].decode()
            found.append(Change(room, file, node.lineno, old, f"({ast.unparse(other)})", start, stop))
        for name, value in ast.iter_fields(node):
            if name in (
                "annotation",
                "returns",
                "decorator_list",
                "keywords" if isinstance(node, ast.ClassDef) else "",
            ):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)

    visit(ast.parse(text))
    return found


def _mutated(node: ast.AST) -> ast.expr | None:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        return ast.Compare(node.left, [_COMPARE[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATE and not isinstance(node.left, ast.Constant | ast.List):
        return ast.BinOp(node.left, _OPERATE[type(node.op)](), node.right)
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        return node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return ast.Constant(not node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) < 100:
        return ast.Constant(node.value + 1)
    return None


def killed(tree: Path, tests: tuple[str, ...]) -> bool:
    """Whether some test of the room goes red, or nothing can be imported any more, or all hangs."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = {**inherited, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        *tests,
    ]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=LIMIT, check=False)
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True


def main() -> int:
    """Draw, try, list the survivors; exit code 1 when fewer than nine of ten are killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=sorted(ROOMS), help="one room only")
    given = parser.parse_args()
    started, rng = time.monotonic(), random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        tree = copy_tree(Path(folder), ROOT)
        if not imports_the_copy(tree):
            print("Python imports pertstack from elsewhere than the copy, so nothing would be tested.")
            return 1
        rooms = [given.room] if given.room else list(ROOMS)
        for room in rooms:
            if killed(tree, ROOMS[room][1]):
                print(f"without any change the tests of {room} are RED")
                return 1
        source = tree / "src" / "pertstack"
        there = {
            room: [c for glob in ROOMS[room][0] for f in sorted(source.glob(glob)) for c in changes_of(room, f)]
            for room in rooms
        }
        drawn = [c for i, room in enumerate(rooms) for c in rng.sample(there[room], _share(given.n, len(rooms), i))]
        survivors = []
        for change in drawn:
            text = change.file.read_text(encoding="utf-8")
            change.file.write_text(change.applied(text), encoding="utf-8")
            dead = killed(tree, ROOMS[change.room][1])
            change.file.write_text(text, encoding="utf-8")
            place = f"{change.file.relative_to(source)}:{change.line}"
            print(f"{'killed' if dead else 'ALIVE '} {place}  {change.old!r} -> {change.new!r}", flush=True)
            survivors += [] if dead else [change]
    minutes = (time.monotonic() - started) / 60
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} killed, {minutes:.0f} min")
    return int(len(drawn) - len(survivors) < ENOUGH * len(drawn))


def _share(n: int, parts: int, i: int) -> int:
    return n // parts + (i < n % parts)


if __name__ == "__main__":
    raise SystemExit(main())
