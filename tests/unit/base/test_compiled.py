"""Loops that are compiled: the first use is announced, later ones come from the disk."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pertstack._base.machine.compiled import _say_once
from pertstack._base.machine.progress import show_progress

LOOP = """
from pertstack._base.machine.compiled import kernel

@kernel
def twice(x):
    return 2 * x

@kernel
def never_called(x):
    return x
"""


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as a new process would import it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


def test_the_first_use_says_what_takes_so_long_and_the_next_says_nothing(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a_loop.py"
    path.write_text(LOOP)
    said = []
    show_progress(True)
    try:
        for _ in range(2):
            _say_once.cache_clear()
            assert loaded(path, monkeypatch).twice(4) == 8
            said.append(capsys.readouterr().err)
    finally:
        show_progress(False)
        _say_once.cache_clear()
    assert said[0].startswith("compiling loops for this machine, once") and said[1] == ""
