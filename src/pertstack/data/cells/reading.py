"""Cells from a file, some megabytes at a time, as they are stored; the next ones are read while the last are summed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.cells.sums import Int64, Rows
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
    n = matrix.shape[0] * matrix.shape[1] if stored is None else int(stored.group["data"].shape[0])
    return max(1, -(-n // ENTRIES))


def _dense(matrix: RowSource, entries: int, first: int) -> Iterator[Block]:
    n, g = matrix.shape
    step = max(1, entries // max(1, g))
    for start in range(first, n, step):
        stop = min(n, start + step)
        yield Block(start, stop, Rows.of_dense(matrix.rows(start, stop)))


def _sparse(stored: Any, matrix: RowSource, *, entries: int, first: int) -> Iterator[Block]:
    """Whole rows of a matrix stored by rows, whole columns of one stored by columns."""
    n = matrix.shape[0 if stored.format == "csr" else 1]
    group = stored.group
    data, indices = group["data"], group["indices"]
    n_stored = min(int(data.shape[0]), int(indices.shape[0]))
    at = first
    while at < n:
        ends: Int64 = np.asarray(group["indptr"][at : min(n, at + 1_000_000) + 1], dtype=np.int64)
        if len(ends) < 2 or (np.diff(ends) < 0).any() or ends[0] < 0 or ends[-1] > n_stored:
            raise InputError(
                f"{getattr(matrix, 'path', 'The file')} is damaged: the ends of its rows do not fit its {n_stored:,} "
                f"stored values. Copy the file again."
            )
        row = 0
        while row < len(ends) - 1:
            stop = max(row + 1, int(np.searchsorted(ends, ends[row] + entries, side="right")) - 1)
            low, high = int(ends[row]), int(ends[stop])
            part = Rows(ends[row : stop + 1] - low, np.asarray(indices[low:high]), np.asarray(data[low:high]))
            yield Block(at + row, at + stop, part)
            row = stop
        at += len(ends) - 1
