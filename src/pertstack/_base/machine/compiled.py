"""How the numeric kernels are compiled: once, without the GIL, cached on disk if the disk allows it.

Kernels are plain loops called from a thread pool; each writes to separate places, so results do not depend on the
number of threads. ``reassoc`` lets sums run in vector lanes; NaN keeps its meaning.
Kernels that call each other are in one file, because the cache on disk looks at one file only. The compiler itself is
imported on the first call of a kernel: most commands call none. Filling or copying a slice of an array (``out[:] = 0``)
takes the compiler up to a second, a loop next to nothing.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from pathlib import Path
from typing import Any

FAST = {"reassoc", "contract", "nsz", "arcp"}
_LOCK = threading.Lock()


class _Kernel:
    """A loop that is compiled, with all others of its file, when one of them is first called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.plain = function
        self.compiled: Callable[..., Any] | None = None
        update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        if self.compiled is None:
            with _LOCK:
                if self.compiled is None:
                    _compile(vars(sys.modules[self.plain.__module__]))
        assert self.compiled is not None
        return self.compiled(*args)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a loop for compilation on first use."""
    return _Kernel(function)


def _compile(names: dict[str, Any]) -> None:
    """Put compiled functions in the place of a module's own kernels, where compiled loops find each other; only then
    may another thread call one."""
    own = {n: k for n, k in names.items() if isinstance(k, _Kernel) and k.plain.__module__ == names["__name__"]}
    compiled = {name: _compiled(found.plain) for name, found in own.items()}
    if compiled and not any(_is_cached(found) for found in compiled.values()):
        _say_once()
    names.update(compiled)
    for name, found in own.items():
        found.compiled = compiled[name]


def _is_cached(compiled: Any) -> bool:
    """Whether an earlier run has left the machine code of a loop, for some types."""
    place, plain = compiled.stats.cache_path, compiled.py_func
    module = plain.__module__.rpartition(".")[2]
    return place is not None and any(Path(place).glob(f"{module}.{plain.__name__}-*.nbi"))


@cache
def _say_once() -> None:
    from pertstack._base.machine.progress import remark  # rich takes its time, and few ever need this

    remark("compiling loops for this machine, once after an installation; some 10 to 20 seconds of work")


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Falls back to no cache on disk if an installation is read-only."""
    import numba

    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "boundscheck": False}
    options["no_cfunc_wrapper"] = True  # an entry for C, which nobody calls
    try:
        made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place to keep a cache: read-only installation without a home folder
        made = numba.njit(**options)(function)
    return made
