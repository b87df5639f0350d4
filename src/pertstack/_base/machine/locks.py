"""One lock for everything that writes into a folder; whoever only reads is not held up.

The system frees the lock when its holder ends, also by ``kill -9``: a lock cannot be left behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from pertstack._base.files import storage_error

_HELD: ContextVar[frozenset[tuple[int, str]]] = ContextVar("held_locks", default=frozenset())


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``; a step inside a step that holds it goes straight on.

    Parameters
    ----------
    on_wait : called once when another process holds the lock, before this one waits for it.

    Raises
    ------
    StorageError
        The lock file cannot be made.
    """
    me = (os.getpid(), str(Path(path).resolve()))
    if me in _HELD.get():
        yield
        return
    lock = FileLock(path, thread_local=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire()
    except OSError as error:
        raise storage_error(error, path) from error
    token = _HELD.set(_HELD.get() | {me})
    try:
        yield
    finally:
        _HELD.reset(token)
        lock.release()
