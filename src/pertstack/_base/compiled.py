"""How the numeric kernels are compiled: once, without the GIL, cached on disk where the disk allows it.

Kernels are plain loops called from a thread pool; each writes to places of its own, so results do not depend on the
number of threads. ``reassoc`` lets sums run in vector lanes; NaN keeps its meaning.
Kernels that call each other stand in one file, because the cache on disk looks at one file only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

FAST = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop for speed; falls back to no cache on disk where an installation is read-only."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "boundscheck": False}
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place to keep a cache: read-only installation without a home folder
        compiled = numba.njit(**options)(function)
    return compiled
