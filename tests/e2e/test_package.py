"""Wheel and sdist: built, installed alone in an empty folder, and used there without the sources."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.mark.slow
def test_the_archives_hold_what_they_must(built: Path):
    wheel, sdist = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    inside = zipfile.ZipFile(wheel).namelist()
    for needed in ("py.typed", "write/templates/report.html.j2", "write/templates/page.js", "leaderboard.schema.json"):
        assert any(name.endswith(needed) for name in inside), needed
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in inside)
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(n.endswith("/README.md") for n in names) and any(n.endswith("/LICENSE") for n in names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_alone_and_works_in_an_empty_folder(built: Path, tmp_path: Path, kind: str):
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, pertstack = tmp_path / "venv/bin/python", tmp_path / "venv/bin/pertstack"
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "constraints.txt",
        next(built.glob(kind)),
        cwd=tmp_path,
    )
    assert run(pertstack, "--version", cwd=tmp_path).startswith("pertstack ")
    size = ("--samples", 240, "--genes", 40, "--cell-lines", 1, "--perturbations", 30)
    run(pertstack, "simulate", "world.h5ad", *size, cwd=tmp_path)
    run(pertstack, "init", "study", "--data", "world.h5ad", cwd=tmp_path)
    run(python, ROOT / "docs/tutorials/perturb_seq_files.py", cwd=tmp_path)  # and the leaderboard of the README
    board = run(pertstack, "evaluate", "cells.h5ad", "gears.h5ad", "state.h5ad", "mine.h5ad", cwd=tmp_path)
    assert "gears scores best" in " ".join(board.split())
    run(pertstack, "fit", "study", "--models", "mean_treated,ridge", cwd=tmp_path)
    run(pertstack, "stack", "study", "--combiners", "mean,simplex", cwd=tmp_path)
    run(pertstack, "verdict", "study", cwd=tmp_path)
    run(pertstack, "report", "study", cwd=tmp_path)
    assert (tmp_path / "study" / "report.html").stat().st_size > 50_000
