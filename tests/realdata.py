"""Real data for tests: used where it lies beside the project, skipped cleanly where it does not. Never copied in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """Path of a real data file such as ``l1000_single_line/ht115_cpc006.h5ad``; skips the test where it is absent."""
    root = Path(os.environ.get("PERTSTACK_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = root / name
    if not path.exists():
        pytest.skip(f"real data {name} is not here (set PERTSTACK_DATA to the folder that holds it)")
    return path
