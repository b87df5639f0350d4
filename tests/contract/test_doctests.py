"""The examples in docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import pertstack

ROOT = Path(pertstack.__file__).parent
FILES = [p for p in sorted(ROOT.rglob("*.py")) if ">>> " in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_examples_of_a_module_run(file):
    """Those marked as not to be run stay out, of which there are few."""
    parts = ["pertstack", *file.relative_to(ROOT).with_suffix("").parts]
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    module = pytest.importorskip("torch") and import_module(name) if ".torch" in name else import_module(name)
    found = doctest.testmod(module, extraglobs={"np": np}, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not found.failed


def test_most_examples_are_run():
    skipped = sum(p.read_text(encoding="utf-8").count("doctest: +SKIP") for p in FILES)
    assert len(FILES) > 20 and skipped < 10
