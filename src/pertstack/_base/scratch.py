"""A folder for copies of what cannot be read where it lies; it goes when the process ends."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path


def scratch_path(name: str) -> Path:
    """A place for a file called ``name`` in a fresh folder below TMPDIR; nothing lies there yet."""
    return Path(tempfile.mkdtemp(dir=_folder().name)) / name


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pertstack-")
