"""One small simulated study, run once through the command line and looked at by many tests."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from copies import copied

PERTSTACK = Path(sys.executable).with_name("pertstack")
Run = Callable[..., subprocess.CompletedProcess[str]]
MODELS = "mean_treated,per_gene_linear,ridge,low_rank"


def pertstack(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in this process: its entry point, exit code and both streams.

    A process of its own takes seconds to load what is loaded here already; ``fresh_pertstack`` starts one.
    """
    from pertstack._base.machine.progress import show_progress
    from pertstack.cli.entry import main

    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, Path.cwd())
    code: object = 0
    try:
        sys.argv = ["pertstack", *map(str, words)]
        if cwd is not None:
            os.chdir(cwd)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as left:
                code = left.code
            except Exception:  # noqa: BLE001  (a defect is what the test must see, as the shell would)
                traceback.print_exc()
                code = 1
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        show_progress(False)
    return subprocess.CompletedProcess(words, int(code or 0), out.getvalue(), err.getvalue())


def fresh_pertstack(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The installed command in a separate process."""
    return subprocess.run(
        [str(PERTSTACK), *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )


def python_c(code: str, cwd: Path) -> None:
    """What ``python -c`` of a message does, in this process, where the libraries are loaded; only what it imports has
    a name."""
    with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        exec(compile(code, "<as printed>", "exec"), {"__name__": "__main__"})


def ok(*words: object, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = pertstack(*words, cwd=cwd)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes that run these tests; whoever makes something in it holds its lock."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "e2e"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def world(shared: Path) -> Path:
    """360 samples x 80 genes, 2 cell lines, 40 perturbations."""
    path, size = shared / "world.h5ad", ("--samples", 360, "--genes", 80, "--cell-lines", 2, "--perturbations", 40)
    with FileLock(shared / "world.lock"):
        if not path.exists():
            ok("simulate", path, *size, "--seed", 3)
    return path


def make_study(root: Path, world: Path, workers: int) -> Path:
    ok("init", root, "--data", world, "--seed", 1)
    ok("run", root, "--models", MODELS, "--workers", workers)
    return root


@pytest.fixture(scope="session")
def study(shared: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole road with one worker. Look, do not touch; copy before changing anything."""
    made, done = shared / "study", shared / "study.done"
    with FileLock(shared / "study.lock"):
        if not done.exists():
            make_study(made, world, workers=1)
            done.touch()
    return copied(made, tmp_path_factory.mktemp("one") / "study")
