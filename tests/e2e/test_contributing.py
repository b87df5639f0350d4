"""The examples of CONTRIBUTING.md run as printed, and the notebooks of the documentation cell by cell."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from .conftest import ok

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"## (Add [^\n]*)\n.*?```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.S)
NOTEBOOKS = sorted(p for p in (ROOT / "docs" / "tutorials").glob("*.md") if p.name != "index.md")


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_an_example_for_contributors_runs(title: str, code: str, monkeypatch: pytest.MonkeyPatch):
    import pertstack.fit.registry as registry

    monkeypatch.setattr(registry, "_registered", {})
    module = types.ModuleType("contributed")
    monkeypatch.setitem(sys.modules, "contributed", module)
    names = vars(module)
    exec(compile(code, title, "exec"), names)
    if "HalfShift" in names:
        assert "half_shift" in [row.name for row in registry.list_models()]


def test_there_is_an_example_for_each_kind():
    assert [title for title, _ in EXAMPLES] == ["Add a base model", "Add a combiner", "Add a metric"]


def tutorial_outputs() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("tutorial_outputs", ROOT / "docs" / "tutorial_outputs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_of(page: str) -> list[str]:
    """Lines without their numbers, in any order: numbers may differ in the last digit, and neighbours change places."""
    return sorted(" ".join(re.sub(r"[-+−]?\d[\d.,]*", "#", line).split()) for line in page.splitlines())


SLOW = ("simulated-study", "outside-models")  # a whole study each; `make test-all` runs them


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in NOTEBOOKS]
)
def test_a_tutorial_runs_cell_by_cell(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    printed = path.read_text(encoding="utf-8")
    run = tutorial_outputs().with_outputs(
        printed, path.name, lambda cell, _: f"../images/tutorial-{path.stem}-{cell}.png"
    )
    assert len(re.findall(r"^% what it shows$", run, flags=re.M)) >= 1
    assert words_of(run) == words_of(printed), "python docs/tutorial_outputs.py writes the outputs again"
    for picture in re.findall(r"\]\((\.\./images/[^)]*)\)", printed):
        assert (path.parent / picture).exists(), picture
    for line in re.findall(r"^pertstack [^\n]+", path.read_text(), flags=re.M):
        ok(line.split()[1], "--help")


def test_what_describes_the_package_agrees_with_it():
    import yaml

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    assert citation["version"] == recipe["context"]["version"] == version and citation["cff-version"] == "1.2.0"
    assert json.loads((ROOT / ".zenodo.json").read_text())["license"].lower() == citation["license"].lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = {"matplotlib": "matplotlib-base", "xxhash": "python-xxhash"}  # as grayskull names them
    wanted = {re.sub(r"^[\w-]+", lambda m: conda.get(m[0], m[0]), line) for line in project["dependencies"]}
    run = {line.replace(" ", "") for line in recipe["requirements"]["run"]}
    assert run == wanted | {f"python{project['requires-python']}"}


def test_git_keeps_what_the_package_needs():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    assert {"CITATION.cff", "CONTRIBUTING.md", ".zenodo.json", "Dockerfile", ".pre-commit-config.yaml"} <= set(tracked)
