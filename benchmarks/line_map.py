"""A pytest plugin: which tests come by which lines of chosen files, and how long each test takes.

    LINE_MAP=out.json LINE_MAP_FILES=/repo/src/a.py:/repo/src/b.py python -m pytest -p line_map tests/unit

The map is ``{"lines": {name of a file: {line: [test]}}, "seconds": {test: s}}``. What runs while a file is imported
belongs to no test and is left out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

_FILES = frozenset(os.environ["LINE_MAP_FILES"].split(os.pathsep))
_seen: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
_seconds: dict[str, float] = {}
_now = ""


def _lines(frame: FrameType, event: str, _: Any) -> Any:
    _seen[frame.f_code.co_filename][frame.f_lineno].add(_now)
    return _lines


def _calls(frame: FrameType, event: str, _: Any) -> Any:
    code = frame.f_code
    if not _now or code.co_filename not in _FILES or code.co_name == "<module>":
        return None
    return _lines(frame, event, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fixtures belong to the test that asks for them first."""
    global _now
    _now = item.nodeid
    threading.settrace(_calls)
    sys.settrace(_calls)
    try:
        return (yield)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        _now = ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Seconds of a test, its fixtures included."""
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    """Write the map."""
    lines = {Path(file).name: {n: sorted(tests) for n, tests in at.items()} for file, at in _seen.items()}
    Path(os.environ["LINE_MAP"]).write_text(json.dumps({"lines": lines, "seconds": _seconds}), encoding="utf-8")
