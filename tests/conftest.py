"""How random examples are drawn: the same ones each time in `make test`, thousands of new ones in `make laws`.

And no test waits for the disk: a study is flushed thousands of times against a power cut, which no test has. Processes
that tests start flush as they would for a user.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "gate")
FSYNC = os.fsync
LAW_EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "2000"))

settings.register_profile("gate", derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "laws",
    deadline=None,
    max_examples=LAW_EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(PROFILE)


@pytest.fixture(scope="session", autouse=True)
def _no_flush() -> Iterator[None]:
    """``os.fsync`` does nothing, unless a test asks for ``real_fsync``."""
    os.fsync = lambda fd: None  # type: ignore[assignment]
    yield
    os.fsync = FSYNC


@pytest.fixture
def real_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for this where the real fsync matters."""
    monkeypatch.setattr(os, "fsync", FSYNC)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `make laws` every law draws ``LAW_EXAMPLES`` examples, whatever number its decorator names for the gate."""
    if PROFILE != "laws":
        return
    for item in items:
        law = getattr(item, "obj", None)
        own = getattr(law, "_hypothesis_internal_use_settings", None)
        if own is not None:
            target = getattr(law, "__func__", law)
            target._hypothesis_internal_use_settings = settings(own, max_examples=max(own.max_examples, LAW_EXAMPLES))
