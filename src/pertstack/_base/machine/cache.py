"""Where things are kept that can be made again: environments of external models, sums of a run that did not end."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$PERTSTACK_CACHE``, else ``pertstack`` in the user's cache folder."""
    chosen = os.environ.get("PERTSTACK_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "pertstack"
