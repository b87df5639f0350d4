"""The public surface says what it takes: every argument of every function and method of ``ps`` is in its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import pytest

import pertstack as ps


def surface() -> Iterator[tuple[str, Any]]:
    for name in ps.__all__:
        found = getattr(ps, name)
        if not callable(found):
            continue
        if not inspect.isclass(found):
            yield name, found
            continue
        if not is_dataclass(found) and not issubclass(found, Exception):
            yield name, found
        for key, value in inspect.getmembers(found):
            mine = str(getattr(value, "__module__", "")).startswith("pertstack")
            if mine and not key.startswith("_") and callable(value) and not inspect.isclass(value):
                yield f"{name}.{key}", value


@pytest.mark.parametrize(("name", "found"), list(surface()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_argument_is_explained(name, found):
    taken = [p for p in inspect.signature(found).parameters.values() if p.name not in ("self", "cls", "args", "kwargs")]
    text = inspect.getdoc(found) or ""
    assert text, f"{name} has no docstring"
    section = text.partition("Parameters\n----------\n")[2] if not inspect.isclass(found) else text
    missing = [p.name for p in taken if not any(p.name in line.split(" : ")[0] for line in section.splitlines())]
    assert not missing, f"{name} does not explain {missing}"
