"""What the libraries of file formats say of broken bytes, as a refusal that names the file.

Each library has exceptions of its own for a damaged file, and several let those of Python through. Whoever opens a file
that somebody else wrote does it inside ``damage_named``.
"""

from __future__ import annotations

import csv
import errno
import struct
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from pertstack._base.errors import InputError, StackingError
from pertstack._base.files import storage_error
from pertstack._base.reading.dialects import BROKEN, damaged

MODEST = 10**9
"""Bytes that a table or list in a file may declare without being looked at."""
PACKED_AT_MOST = 1000
"""How many bytes one byte on the disk may stand for beyond that."""
_OURS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, SystemError)
_THEIRS = frozenset({"anndata", "h5py", "zarr", "numcodecs", "pyarrow", "numpy", "pandas", "zipfile", "pickle"})


@contextmanager
def damage_named(path: Path | str) -> Iterator[None]:
    """Run what reads a file; whatever its library says of broken bytes becomes an InputError that names the file."""
    path = Path(path)
    try:
        yield
    except StackingError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path} asks for more memory than there is ({error}). If the file is small it is damaged: copy it again "
            "from where it was made."
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise storage_error(error, path) from error
        known = (*BROKEN, *_OURS, csv.Error, struct.error, tokenize.TokenError, AssertionError)
        if not isinstance(error, known) and type(error).__module__.partition(".")[0] not in _THEIRS:
            raise
        raise damaged(path, error) from error


def require_modest(element: Any, path: Path) -> None:
    """Refuse a part of an HDF5 file or zarr folder that is to be read as a whole and declares far more values than the
    file can hold: such a part takes no room on the disk and all of the memory.

    Raises
    ------
    InputError
        It declares more than a gigabyte and a thousand times what lies on the disk.
    """
    declared = _declared(element)
    if declared <= MODEST:
        return
    path = Path(path)
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    there = sum(f.stat().st_size for f in files)
    if declared > PACKED_AT_MOST * there:
        raise InputError(
            f"{path}: {getattr(element, 'name', 'a part of it')} declares {declared:,} bytes of values, and the file "
            f"has {there:,}. It is damaged, or made to fill the memory. Copy it again from where it was made."
        )


def _declared(element: Any) -> int:
    """Bytes of all arrays at or below a node; a node that cannot be followed is the reader's to refuse."""
    shape = getattr(element, "shape", None)
    if shape is not None:
        return prod(int(n) for n in shape) * int(getattr(element.dtype, "itemsize", 8) or 8)
    return sum(_declared(element[key]) for key in element)
