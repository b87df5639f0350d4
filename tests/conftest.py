"""How random examples are drawn: the same ones each time in `make test`, thousands of new ones in `make laws`."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "gate")
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
