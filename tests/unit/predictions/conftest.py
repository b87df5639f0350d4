"""Tests here need no power-cut safety, and waiting for a shared disk makes them slow: fsync does nothing, unless
asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_fsync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if "real_fsync" not in request.fixturenames:
        monkeypatch.setattr(os, "fsync", lambda fd: None)
    yield


@pytest.fixture
def real_fsync() -> None:
    """Ask for this to keep the real fsync."""
