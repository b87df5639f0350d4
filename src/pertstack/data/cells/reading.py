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
COLUMNS_IN_MEMORY = 2 * 10**9


@dataclass(frozen=True)
class Block:
    """Cells start..stop of a file."""

    start: int
    stop: int
    rows: Rows


def blocks(matrix: RowSource, *, entries: int = ENTRIES) -> Iterator[Block]:
    """The cells of a matrix from front to end. One block is read ahead.

    Raises
    ------
    InputError
        The matrix is stored by columns and too large to be turned round, or its parts do not fit together.
    """
    stored = matrix.sparse() if isinstance(matrix, StoredRows) else None
    pieces = _dense(matrix, entries) if stored is None else _sparse(stored, entries, matrix)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, pieces, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield block


def n_blocks(matrix: RowSource, *, entries: int = ENTRIES) -> int:
    """About how many blocks there will be, for a progress bar."""
    stored = matrix.sparse() if isinstance(matrix, StoredRows) else None
    n = matrix.shape[0] * matrix.shape[1] if stored is None else int(stored.group["data"].shape[0])
    return max(1, -(-n // entries))


def _dense(matrix: RowSource, entries: int) -> Iterator[Block]:
    n, g = matrix.shape
    step = max(1, entries // max(1, g))
    for start in range(0, n, step):
        stop = min(n, start + step)
        yield Block(start, stop, Rows.of_dense(matrix.rows(start, stop)))


def _sparse(stored: Any, entries: int, matrix: RowSource) -> Iterator[Block]:
    n = matrix.shape[0]
    if stored.format == "csc":
        yield from _turned(stored, n)
        return
    group = stored.group
    data, indices = group["data"], group["indices"]
    n_stored = min(int(data.shape[0]), int(indices.shape[0]))
    at = 0
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


def _turned(stored: Any, n: int) -> Iterator[Block]:
    """A matrix stored by columns, turned round in memory."""
    size = int(stored.group["data"].shape[0]) * 24
    if size > COLUMNS_IN_MEMORY:
        raise InputError(
            f"The cells are stored by columns (CSC), and turning them round needs about {size / 1e9:.0f} GB of memory. "
            f"Do it once where there is room: data.X = data.X.tocsr(); data.write_h5ad('cells_by_row.h5ad')."
        )
    turned = stored.to_memory().tocsr()
    yield Block(0, n, Rows(turned.indptr.astype(np.int64), turned.indices, turned.data))
