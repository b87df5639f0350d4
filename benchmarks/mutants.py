"""Switch every named guard off, one at a time, and see the test that commits the mistake go red.

``tests/pitfalls/mutants.toml`` lists the guards: a file under ``src/pertstack``, a piece of text that occurs in it
exactly once, what to put in its place, and the tests that must fail then. The tree is copied first; nothing in the
working tree is touched. Without any change all named tests must pass.

    python benchmarks/mutants.py                     # all of them, a table at the end
    python benchmarks/mutants.py --only sound,shift  # those whose names hold one of these words
    python benchmarks/mutants.py --jobs 2
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "pitfalls" / "mutants.toml"
COPIED = ("src", "tests", "benchmarks", "pyproject.toml", "constraints.txt", "README.md", "docs")
LIMIT = 600
"""Seconds of work for the tests of a mutant; on a busy machine they may take six times as long."""


@dataclass(frozen=True)
class Mutant:
    """One guard, how it is switched off, and the tests that must see it."""

    name: str
    file: str  # below src/pertstack
    old: str
    new: str
    tests: tuple[str, ...]  # node ids below tests/pitfalls

    def applied(self, text: str) -> str:
        """The file with the guard off.

        Raises
        ------
        ValueError
            The piece of text does not occur exactly once.
        """
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: the text to replace occurs {found} times in {self.file}, not once.")
        return text.replace(self.old, self.new)


def load(path: Path = LIST) -> list[Mutant]:
    """All mutants of the list, names unique."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    found = [Mutant(r["name"], r["file"], r["old"], r["new"], tuple(r["tests"])) for r in rows]
    names = [m.name for m in found]
    if len(set(names)) != len(names):
        raise ValueError(f"Names occur twice: {sorted({n for n in names if names.count(n) > 1})}.")
    return found


def copy_tree(target: Path, whole: Path = ROOT) -> Path:
    """The parts of the repository that tests need, in a folder of their own."""
    for name in COPIED:
        source = whole / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("*.pyc"))  # compiled kernels stay
        elif source.exists():
            shutil.copy2(source, target / name)
    return target


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def run_tests(tree: Path, tests: tuple[str, ...], limit: int = LIMIT) -> tuple[int, list[str]]:
    """Exit code of pytest on tests of a tree, and the node ids that failed (its last line when none did).

    Raises
    ------
    TimeoutExpired
        They did not end within that many seconds of work.
    """
    nodes = [f"tests/pitfalls/{t}" for t in tests]
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    environment = {**inherited, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    pytest = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-m", "", *nodes]
    command = ["sh", "-c", f'ulimit -t {limit}; exec "$@"', "sh", *pytest]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=6 * limit, check=False
    )
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        raise subprocess.TimeoutExpired(command, limit)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    failed = [line.split(" ")[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return done.returncode, failed or lines[-1:]


def imports_the_copy(tree: Path) -> bool:
    """Whether Python takes pertstack from the tree and not from somewhere else."""
    code = "import pertstack; print(pertstack.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip()).resolve().is_relative_to(tree.resolve())


def try_mutant(mutant: Mutant, trees: queue.SimpleQueue[Path]) -> str:
    """``red`` when every named test failed with the guard off in one of the trees, which is put back; else what
    happened. A tree is used again, so that what Python and numba compiled for it is."""
    tree = trees.get()
    path = tree / "src" / "pertstack" / mutant.file
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutant.applied(text), encoding="utf-8")
        code, failed = run_tests(tree, mutant.tests)
    except subprocess.TimeoutExpired:
        return f"no answer within {LIMIT} s of work"
    finally:
        path.write_text(text, encoding="utf-8")
        trees.put(tree)
    if code not in (0, 1):
        return f"pytest ended with {code}: {failed[-1][:150]}"
    green = [t for t in mutant.tests if not any(f.startswith(f"tests/pitfalls/{t}") for f in failed)]
    return "red" if not green else f"GREEN: {', '.join(green)}"


def main() -> int:
    """All mutants; exit code 1 when some guard can be switched off without a test going red."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="words, comma-separated, one of which a name must hold")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    given = parser.parse_args()
    words = [w for w in given.only.split(",") if w]
    mutants = [m for m in load() if not words or any(w in m.name for w in words)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants.") as folder:
        work = Path(folder)
        tree = copy_tree(_made(work / "whole"))  # as it is now: others may go on working in the repository
        if not imports_the_copy(tree):
            print("Python imports pertstack from elsewhere than the copy, so nothing would be tested.")
            return 1
        tests = tuple(sorted({t for m in mutants for t in m.tests}))
        code, said = run_tests(tree, tests, LIMIT * max(1, len(tests) // 10))
        print(
            f"without any change: {'green' if code == 0 else 'RED'} ({len(tests)} tests; {said[-1][:150]})", flush=True
        )
        if code:
            return 1
        survived, trees = 0, queue.SimpleQueue[Path]()
        for i in range(given.jobs):
            trees.put(tree if i == 0 else copy_tree(_made(work / f"tree{i}"), tree))
        with ThreadPoolExecutor(given.jobs) as pool:
            for mutant, outcome in zip(mutants, pool.map(lambda m: try_mutant(m, trees), mutants), strict=True):
                survived += outcome != "red"
                print(f"{outcome:5} {mutant.name}  ({mutant.file})", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{len(mutants) - survived} of {len(mutants)} guards seen red, {minutes:.0f} min")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
