"""What the libraries of file formats say of broken bytes, as a refusal that names the file.

Each library has exceptions of its own for a damaged file, and several let those of Python through. Whoever opens a file
that somebody else wrote does it inside ``damage_named``.
"""

from __future__ import annotations

import csv
import errno
import struct
import tokenize
import zipfile
from collections.abc import Collection, Iterator
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


def require_by_itself(root: Any, path: Path) -> None:
    """Refuse an HDF5 file parts of which lie in other files: whoever reads it reads those, as this user.

    Raises
    ------
    InputError
        Names the first external link, virtual array, or array with external storage.
    """
    import h5py  # slow to import

    seen, waiting = set(), [root]
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue  # what it leads to in this file is met by itself
            at = None if isinstance(link, h5py.ExternalLink) else group[name]
            if at is None or (isinstance(at, h5py.Dataset) and (at.is_virtual or at.external)):
                place = f"{group.name.rstrip('/')}/{name}"
                raise InputError(f"{path}: {place} lies in another file, which is not followed. Write the values.")
            address = h5py.h5o.get_info(at.id).addr
            if isinstance(at, h5py.Group) and address not in seen:
                waiting.append(at)
            seen.add(address)


def require_modest_members(path: Path, names: Collection[str] | None = None, *, most: int | None = None) -> None:
    """Refuse a zip archive of arrays one of which unpacks to far more than is packed: zeros take no room on the disk.

    Parameters
    ----------
    path : of an ``.npz`` file.
    names : of the arrays that will be read whole; None for all.
    most : bytes that an array may have whatever is packed; None for a gigabyte, fewer for names, which become objects.

    Raises
    ------
    InputError
        One has more than ``most``, and more than a hundred bytes for each that is packed; or it is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise damaged(path, error) from error
    for entry in entries:
        mine = names is None or entry.filename.removesuffix(".npy") in names
        if mine and entry.file_size > max(min(most or MODEST, MODEST), 100 * entry.compress_size):
            raise InputError(
                f"{path}: {entry.filename} unpacks to {entry.file_size:,} bytes, of {entry.compress_size:,} packed "
                f"ones. It is damaged, or made to fill the memory. Write it again where it was made."
            )


def require_modest_table(path: Path) -> None:
    """Refuse a parquet file that is to be read whole and declares far more cells than it can hold: one value repeated a
    billion times takes a few bytes on the disk.

    Raises
    ------
    InputError
        It declares more than a gigabyte and a thousand times what lies on the disk.
    """
    import pyarrow.parquet as pq

    facts, there = pq.read_metadata(path), path.stat().st_size
    if 8 * facts.num_rows * facts.num_columns > max(MODEST, PACKED_AT_MOST * there):
        raise InputError(
            f"{path} declares {facts.num_rows:,} rows of {facts.num_columns:,} columns, and the file has {there:,} "
            f"bytes. It is damaged, or made to fill the memory. Write it again where it was made."
        )


def _declared(element: Any) -> int:
    """Bytes of all arrays at or below a node; a node that cannot be followed is the reader's to refuse."""
    shape = getattr(element, "shape", None)
    if shape is not None:
        return prod(int(n) for n in shape) * int(getattr(element.dtype, "itemsize", 8) or 8)
    return sum(_declared(element[key]) for key in element)
