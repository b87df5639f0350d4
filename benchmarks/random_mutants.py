"""Draw random mutants where a wrong sign would be a wrong number: does some test go red?

A mutant is one change in one place: a comparison, an operator, a small number, a truth value, an ``and`` for an ``or``.
The quick tests of the room are run once with ``line_map``; a mutant then meets those that come by its line, the fastest
first. Survivors are printed with line and change, to be judged: a hole in the tests, or a change that means the same.

    python benchmarks/random_mutants.py                  # 100 of them, seed 0
    python benchmarks/random_mutants.py --n 20 --seed 3 --room ledger   # the same 20 as in a whole run of seed 3
    python benchmarks/random_mutants.py --room store --maps /tmp/maps --skip 7   # in pieces: maps kept, 7 were tried
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mutants import ROOT, copy_tree, imports_the_copy

LIMIT = 120
"""Seconds a mutant may take beyond four times what its tests took."""
ENOUGH = 0.9
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "store": (
        ("predictions/store/**/*.py",),
        (
            *(
                f"tests/unit/predictions/test_{n}.py"
                for n in ("store", "align", "reading", "audit", "some_rows", "sources")
            ),
            "tests/unit/predictions/test_faults.py",
            "tests/unit/predictions/test_zarr_tables.py",
            "tests/golden",
            "tests/laws/test_store_laws.py",
        ),
    ),
    "ledger": (
        ("design/ledger.py", "design/ledger_lines.py", "design/analysis_plan.py"),
        (*(f"tests/unit/{n}.py" for n in ("design/test_ledger", "design/test_analysis_plan", "verdict/test_looks")),),
    ),
    "choice": (
        ("stacking/choose.py", "stacking/panel.py", "stacking/constants.py"),
        (
            *(f"tests/unit/stacking/test_{n}.py" for n in ("nested_and_choice", "other_primaries", "conditions")),
            "tests/unit/stacking/test_nested_cautions.py",
        ),
    ),
    "inference": (
        ("_stats/*.py",),
        (
            *(f"tests/unit/verdict/test_{n}.py" for n in ("inference", "inference_null", "inference_wild", "several")),
            *(f"tests/unit/verdict/test_{n}.py" for n in ("intervals", "resampling", "decision", "replicates")),
            "tests/unit/stacking/test_nested_and_choice.py",
        ),
    ),
    "metrics": (
        ("reduce/metrics/*.py", "reduce/scoring/score.py", "reduce/scoring/score_table.py"),
        (
            *(f"tests/unit/reduce/test_{n}.py" for n in ("metrics", "ranks", "effect_weights", "score", "matched")),
            *(f"tests/unit/reduce/test_{n}.py" for n in ("beyond_samples", "diversity", "controls")),
        ),
    ),
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


@dataclass(frozen=True)
class Paths:
    """Which tests come by which line, and their seconds; see ``line_map``."""

    lines: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]

    def tests_of(self, change: Change) -> list[str]:
        """Tests that come by a change, the fastest first; all of the room for a line that nothing was seen to come by:
        one that runs at import or within a compiled kernel."""
        there = self.lines.get(change.file.name, {})
        stop = change.line + change.old.count("\n")
        found = {t for n in range(change.line, stop + 1) for t in there.get(str(n), ())} or set(self.seconds)
        return sorted(found, key=lambda t: (self.seconds[t], t))


def paths_of(tree: Path, room: str, maps: Path | None) -> Paths | None:
    """Run the tests of a room once without any change; None when they are red. ``maps``: where what was found is
    kept."""
    files = [str(f) for glob in ROOMS[room][0] for f in sorted((tree / "src" / "pertstack").glob(glob))]
    out = (maps or tree) / f"{room}.json"
    if out.exists():
        return Paths(**json.loads(out.read_text(encoding="utf-8")))
    more = {"LINE_MAP": str(out), "LINE_MAP_FILES": os.pathsep.join(files)}
    if _pytest(tree, ["-p", "line_map", *ROOMS[room][1]], more, None) != 0:
        return None
    return Paths(**json.loads(out.read_text(encoding="utf-8")))


def killed(tree: Path, change: Change, paths: Paths) -> bool:
    """Whether some test goes red, or nothing can be imported any more, or all hangs."""
    tests = paths.tests_of(change)
    try:
        return _pytest(tree, tests, {}, LIMIT + 4 * sum(paths.seconds[t] for t in tests)) != 0
    except subprocess.TimeoutExpired:
        return True


def _pytest(tree: Path, tests: list[str], more: dict[str, str], limit: float | None) -> int:
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    path = os.pathsep.join([str(tree / "src"), str(tree / "benchmarks")])
    environment = {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow", "--basetemp", str(tree / "t")]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        try:
            return running.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            raise


def main() -> int:
    """Draw, try, list the survivors; exit code 1 when fewer than nine of ten are killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=100, help="over all rooms, or of --room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=sorted(ROOMS), help="one room only")
    parser.add_argument("--skip", type=int, default=0, help="how many of the draw were tried before")
    parser.add_argument("--maps", type=Path, help="an existing folder that keeps which tests come by which line")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        tree = copy_tree(Path(folder), ROOT)
        if not imports_the_copy(tree):
            print("Python imports pertstack from elsewhere than the copy, so nothing would be tested.")
            return 1
        survivors, drawn = 0, 0
        for i, room in enumerate(ROOMS):
            if given.room not in (None, room):
                continue
            n = given.n if given.room else _share(given.n, len(ROOMS), i)
            dead = tried(tree, room, given, n)
            if dead is None:
                print(f"without any change the tests of {room} are RED")
                return 1
            drawn, survivors = drawn + len(dead), survivors + dead.count(False)
    minutes = (time.monotonic() - started) / 60
    print(f"{drawn - survivors} of {drawn} killed, {minutes:.0f} min")
    return int(drawn - survivors < ENOUGH * drawn)


def tried(tree: Path, room: str, given: argparse.Namespace, n: int) -> list[bool] | None:
    """Draw mutants of one room and try each; whether each was killed, or None when the tests are red without any."""
    paths = paths_of(tree, room, given.maps)
    if paths is None:
        return None
    source = tree / "src" / "pertstack"
    there = [c for glob in ROOMS[room][0] for f in sorted(source.glob(glob)) for c in changes_of(room, f)]
    print(f"{room}: {len(paths.seconds)} tests, {sum(paths.seconds.values()):.0f} s; {len(there)} mutants", flush=True)
    dead = []
    for change in random.Random(f"{given.seed} {room}").sample(there, min(n, len(there)))[given.skip :]:
        text = change.file.read_text(encoding="utf-8")
        change.file.write_text(change.applied(text), encoding="utf-8")
        dead.append(killed(tree, change, paths))
        change.file.write_text(text, encoding="utf-8")
        place = f"{change.file.relative_to(source)}:{change.line}"
        word = "killed" if dead[-1] else "ALIVE "
        print(f"{word} {place}  {change.old!r} -> {change.new!r}", flush=True)
    return dead


def _share(n: int, parts: int, i: int) -> int:
    return n // parts + (i < n % parts)


if __name__ == "__main__":
    raise SystemExit(main())
