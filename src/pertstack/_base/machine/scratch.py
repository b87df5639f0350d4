"""Room for what does not fit into memory, or cannot be read where it lies; it goes when the process ends."""

from __future__ import annotations

import math
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.files import storage_error

IN_MEMORY = 2**23
"""Bytes of an array above which it is kept in a file."""


def space(shape: tuple[int, ...], dtype: Any, folder: Path | None) -> np.ndarray[Any, Any]:
    """Zeros in memory, or mapped from a nameless file in ``folder`` if they are many.

    Parameters
    ----------
    shape : of the array.
    dtype : of the array.
    folder : if the file lies; None keeps any array in memory.

    Raises
    ------
    StorageError
        The disk has no room for the file; it is reserved here, because a write to a map cannot say so.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if folder is None or n_bytes <= IN_MEMORY:
        return np.zeros(shape, dtype=dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, n_bytes)
            return np.asarray(np.memmap(stream, dtype=dtype, mode="w+", shape=shape))
    except OSError as error:
        raise storage_error(error, folder) from error


def scratch_path(name: str) -> Path:
    """A place for a file called ``name`` in a fresh folder below TMPDIR; nothing lies there yet."""
    return Path(tempfile.mkdtemp(dir=scratch_folder())) / name


def scratch_folder() -> Path:
    """The folder below TMPDIR that goes when the process ends."""
    return Path(_folder().name)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pertstack-")
