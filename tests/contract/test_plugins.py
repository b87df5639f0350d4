"""A package of ten lines brings a base model and a combiner; ``ps.register`` does the same for a session."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pertstack as ps
from pertstack.fit import registry as models
from pertstack.stacking import registry as combiners

PACKAGE = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import pertstack as ps
from pertstack.fit.base import Needs
from pertstack.fit.baselines.model import Baseline
from pertstack.stacking.combiners.learned import linear

@dataclass
class Still(Baseline):
    "The control itself."
    name: ClassVar[str] = "still"
    needs: ClassVar[Needs] = Needs(uses_perturbation=False)
    def fit(self, rows, *, rng): return self
    def predict(self, rows): return rows.control.astype(np.float32)

@dataclass(frozen=True)
class Halves(ps.Combiner):
    "Half of the mean change."
    name: ClassVar[str] = "halves"
    family: ClassVar[str] = "reference"
    needs: ClassVar[frozenset] = frozenset()
    complexity: ClassVar[int] = 1
    def fit(self, evidence):
        return linear(self.name, evidence, np.full(evidence.n_models, 0.5 / evidence.n_models), learned=False)
"""


@pytest.fixture
def package(tmp_path):
    """Where a package with both entry points lies, as pip lays one out."""
    (tmp_path / "tiny_plugin.py").write_text(PACKAGE)
    info = tmp_path / "tiny_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n")
    points = "[pertstack.base_models]\nstill = tiny_plugin:Still\n[pertstack.combiners]\nhalves = tiny_plugin:Halves\n"
    (info / "entry_points.txt").write_text(points)
    return tmp_path


def run(code, path):
    full = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", full], capture_output=True, text=True, check=False)


def test_an_installed_package_is_found_by_name(package):
    done = run(
        "from pertstack.fit.registry import get_row\n"
        "from pertstack.stacking.registry import make_combiner, make_combiners\n"
        "assert get_row('still').kind == 'plugin'\n"
        "assert make_combiner('halves').name == 'halves'\n"
        "assert 'halves' not in [c.name for c in make_combiners()]\n"
        "assert 'halves' in [c.name for c in make_combiners(['halves'])]\n",
        package,
    )
    assert done.returncode == 0, done.stderr


def test_a_combiner_that_cannot_be_loaded_is_named(package):
    (package / "tiny_plugin.py").write_text("import nothing_of_this_name\n")
    done = run("from pertstack.stacking.registry import make_combiner\nmake_combiner('halves')", package)
    assert done.returncode == 1 and "tiny_plugin:Halves" in done.stderr and "nothing_of_this_name" in done.stderr
    fine = run("from pertstack.stacking.registry import make_combiner\nmake_combiner('simplex')", package)
    assert fine.returncode == 0, fine.stderr


def test_register_takes_both_and_refuses_a_name_twice(monkeypatch):
    monkeypatch.setattr(models, "_registered", {})
    monkeypatch.setattr(combiners, "_registered", {})
    names: dict[str, type] = {}
    exec(compile(PACKAGE, "plugin", "exec"), names)
    assert ps.register(names["Halves"]) is names["Halves"] and ps.register(names["Still"]) is names["Still"]
    assert combiners.make_combiner("halves").complexity == 1 and models.get_row("still").name == "still"
    other = type("Other", (names["Halves"],), {"name": "simplex"})
    with pytest.raises(ps.errors.ConflictError, match="simplex"):
        ps.register(other)
    with pytest.raises(ps.errors.InputError, match="not 3"):
        ps.register(3)
