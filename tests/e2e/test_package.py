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


def test_the_wheel_made_of_the_sdist_holds_every_file_of_the_package_and_nothing_else(built: Path):
    wheel, sdist = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (p for p in (ROOT / "src").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert inside == {p.relative_to(ROOT / "src").as_posix() for p in files}
    assert {"pertstack/py.typed", "pertstack/write/templates/report.html.j2"} <= inside
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "constraints.txt", "Makefile"} <= names


def test_the_wheel_works_in_an_empty_folder_beside_the_libraries_of_this_environment(built: Path, tmp_path: Path):
    """Seconds instead of the minutes of an environment of its own, which the slow test makes."""
    wheel, place = next(built.glob("*.whl")), tmp_path / "installed"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        place,
        wheel,
        cwd=tmp_path,
    )
    command = (sys.executable, place / "bin" / "pertstack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        found = run(sys.executable, "-c", "import pertstack; print(pertstack.__file__)", cwd=tmp_path)
        assert Path(found.strip()).is_relative_to(place)
        assert run(*command, "--version", cwd=tmp_path).startswith("pertstack ")
        size = ("--samples", 80, "--genes", 12, "--cell-lines", 1, "--perturbations", 16)
        run(*command, "simulate", "world.h5ad", *size, cwd=tmp_path)
        run(*command, "init", "study", "--data", "world.h5ad", cwd=tmp_path)
    assert (tmp_path / "study" / "plan" / "folds.parquet").exists()


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
