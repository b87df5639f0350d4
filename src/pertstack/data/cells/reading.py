"""Cells from a file, some megabytes at a time, as they are stored; the next ones are read while the last are summed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from typing import Any

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.cells.entries import Int64, Rows
from pertstack.data.readers.matrices import RowSource, StoredRows

ENTRIES = 4_000_000
"""Stored entries that are read at once (48 MB of float32 with their columns)."""


@dataclass(frozen=True)
class Block:
    """Cells start..stop of a file, or genes start..stop of one that is stored by columns."""

    start: int
    stop: int
    rows: Rows


def blocks(matrix: RowSource, *, first: int = 0) -> Iterator[Block]:
    """The cells of a matrix from ``first`` to the end. One block is read ahead.

    Raises
    ------
    InputError
        The parts of the matrix do not fit together.
    """
    stored = sparse_of(matrix)
    pieces = _dense(matrix, ENTRIES, first) if stored is None else _sparse(stored, matrix, entries=ENTRIES, first=first)
    yield from _ahead(pieces)


def columns(matrix: StoredRows, *, first: int = 0) -> Iterator[Block]:
    """A matrix that is stored by columns, some whole columns at a time: ``rows.indices`` are cells.

    Raises
    ------
    InputError
        The parts of the matrix do not fit together.
    """
    stored = matrix.sparse()
    yield from _ahead(_sparse(stored, matrix, entries=ENTRIES, first=first))


def _ahead(pieces: Iterator[Block]) -> Iterator[Block]:
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, pieces, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield block


def sparse_of(matrix: RowSource) -> Any | None:
    """anndata's view of a sparse matrix in a file; None for any other."""
    return matrix.sparse() if isinstance(matrix, StoredRows) else None


def n_blocks(matrix: RowSource) -> int:
    """About how many blocks there will be, for a progress bar."""
    stored = sparse_of(matrix)
    if stored is None:
        return max(1, -(-matrix.shape[0] * matrix.shape[1] // ENTRIES))
    return max(1, -(-int(stored.group["data"].shape[0]) // _at_once(stored.group, ENTRIES)))


def _dense(matrix: RowSource, entries: int, first: int) -> Iterator[Block]:
    n, g = matrix.shape
    step = max(1, entries // max(1, g))
    for start in range(first, n, step):
        stop = min(n, start + step)
        yield Block(start, stop, Rows.of_dense(matrix.rows(start, stop)))


def _at_once(group: Any, entries: int) -> int:
    """Entries that are read at once: fewer if they are read straight, which is as fast and stays in the cache."""
    straight = _place(group["data"]) is not None and _place(group["indices"]) is not None
    return max(1, entries // 4) if straight else entries


def _sparse(stored: Any, matrix: RowSource, *, entries: int, first: int) -> Iterator[Block]:
    """Whole rows of a matrix stored by rows, whole columns of one stored by columns. A block lasts until the one after
    the next is read."""
    n, group = matrix.shape[0 if stored.format == "csr" else 1], stored.group
    data, indices = group["data"], group["indices"]
    n_stored = min(int(data.shape[0]), int(indices.shape[0]))
    with _Pieces(data) as values, _Pieces(indices) as places:
        at, entries = first, _at_once(group, entries)
        while at < n:
            ends: Int64 = np.asarray(group["indptr"][at : min(n, at + 1_000_000) + 1], dtype=np.int64)
            if len(ends) < 2 or (np.diff(ends) < 0).any() or ends[0] < 0 or ends[-1] > n_stored:
                raise InputError(
                    f"{getattr(matrix, 'path', 'The file')} is damaged: the ends of its rows do not fit its "
                    f"{n_stored:,} stored values. Copy the file again."
                )
            row = 0
            while row < len(ends) - 1:
                stop = max(row + 1, int(np.searchsorted(ends, ends[row] + entries, side="right")) - 1)
                low, high = int(ends[row]), int(ends[stop])
                part = Rows(ends[row : stop + 1] - low, places.read(low, high), values.read(low, high))
                yield Block(at + row, at + stop, part)
                row = stop
            at += len(ends) - 1


class _Pieces:
    """A stored array, read piece by piece into two places in turn: fresh memory costs as much as reading does.

    An HDF5 array that lies in its file in one piece, as it would in memory, is read past the library.
    """

    def __init__(self, stored: Any) -> None:
        self.stored, self.rooms = stored, [np.empty(0, stored.dtype), np.empty(0, stored.dtype)]
        self.begin = _place(stored)
        self.file = None if self.begin is None else FileIO(stored.file.filename)

    def read(self, low: int, high: int) -> np.ndarray[Any, Any]:
        """Values low..high."""
        if not hasattr(self.stored, "read_direct") or self.stored.dtype.kind not in "iuf":
            return np.asarray(self.stored[low:high])
        self.rooms.reverse()
        if len(self.rooms[0]) < high - low:
            self.rooms[0] = np.empty((high - low) * 9 // 8, self.stored.dtype)
        out = self.rooms[0][: high - low]
        if self.file is None and len(out):
            self.stored.read_direct(out, np.s_[low:high])
        elif self.file is not None and self.begin is not None:
            self.file.seek(self.begin + low * out.itemsize)
            left = out.view(np.uint8).data
            while len(left):
                n = self.file.readinto(left)
                if not n:
                    raise InputError(f"{self.file.name} is cut short. Copy the file again.")
                left = left[n:]
        return out

    def __enter__(self) -> _Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()


def _place(stored: Any) -> int | None:
    """The byte of its file where an HDF5 array begins that lies there in one piece, as in memory; None for others."""
    if not hasattr(stored, "read_direct") or stored.chunks is not None or stored.is_virtual or stored.external:
        return None
    from h5py import h5t

    alike = stored.dtype.isnative and h5t.py_create(stored.dtype) == stored.id.get_type()
    plain = alike and stored.file.driver == "sec2" and not stored.file.userblock_size
    found = stored.id.get_offset() if plain else None
    return None if found is None else int(found)
