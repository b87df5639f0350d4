"""The public names of the package, written down; and what importing it may and may not do."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import pertstack

PUBLIC = {
    "Evaluation",
    "ArrayEmbedding",
    "BaseModel",
    "Combiner",
    "CombinerEstimator",
    "Leaderboard",
    "Study",
    "StackFit",
    "StackingError",
    "__version__",
    "evaluate",
    "errors",
    "register",
    "stack",
}


def test_public_names_are_the_written_ones():
    assert set(pertstack.__all__) == PUBLIC
    assert set(dir(pertstack)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(pertstack, name) is not None


def test_public_functions_keep_their_signatures():
    """Also after everything else was touched: no folder shares their names."""
    import pertstack.stacking
    import pertstack.study.study

    parameters = inspect.signature(pertstack.stack).parameters
    assert {"predictions", "treated", "control", "folds"} <= set(parameters)
    assert "data" in inspect.signature(pertstack.Study.create).parameters
    assert pertstack.stacking.__name__ == "pertstack.stacking" and pertstack.stack.__doc__


def test_importing_prints_nothing_and_needs_only_the_core():
    """torch, rdkit, dask, xarray and uv are blocked: the core must not miss them."""
    code = """
import importlib.util, sys

extras = {"torch", "rdkit", "dask", "distributed", "xarray", "uv"}
look = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in extras else look(name, package)

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in extras:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import pertstack, pertstack.cli.entry
pertstack.Study, pertstack.stack
from pertstack.fit.registry import list_models
assert len(list_models()) > 8
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


SLOW = {"anndata", "dask", "matplotlib", "narwhals", "numba", "rdkit", "scipy", "sklearn", "torch", "xarray", "zarr"}


@pytest.mark.parametrize(
    ("code", "not_imported"),
    [
        ("from pertstack.cli.entry import app; app(['--help'], standalone_mode=False)", SLOW | {"numpy", "pandas"}),
        ("import pertstack; pertstack.stack, pertstack.Study, pertstack.Leaderboard", SLOW),
    ],
)
def test_importing_leaves_out_what_is_slow_to_import(code: str, not_imported: set[str]):
    """What a command does not need it does not wait for; each of these takes from 0.1 to 2 seconds to import."""
    code += f"; import sys; found = {not_imported} & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
