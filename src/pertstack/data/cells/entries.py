"""Stored entries of cells, and the loops that add them to the sums of their groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.machine.compiled import kernel

Int64 = np.ndarray[Any, np.dtype[np.int64]]


STEP = 2.0**-30  # of a logarithm; float32 values from 2^-6 up are whole multiples of it


SQUARE_STEP = 2.0**-24


class BadCell(ValueError):
    """A cell whose values cannot be summed; ``row`` is its position among the rows that were passed, ``values`` what
    it holds, if that is known."""

    def __init__(self, row: int, values: np.ndarray[Any, Any] | None = None) -> None:
        super().__init__(f"row {row} cannot be summed")
        self.row, self.values = row, np.empty(0) if values is None else values


@dataclass(frozen=True)
class Rows:
    """Some rows of a sparse matrix: row i has ``data[indptr[i]:indptr[i+1]]`` in the columns ``indices[...]``."""

    indptr: Int64
    indices: np.ndarray[Any, Any]
    data: np.ndarray[Any, Any]

    @classmethod
    def of_dense(cls, values: np.ndarray[Any, Any]) -> Rows:
        """Rows of an ordinary array; NaN counts as a value."""
        row, column = np.nonzero(values)
        indptr = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(np.bincount(row, minlength=len(values)), out=indptr[1:])
        return cls(indptr, column.astype(np.int32), values[row, column])

    def sorted_from(self, row: int, n_genes: int) -> Rows:
        """The rows from ``row`` on, each column once and in order (an entry may be stored in several parts)."""
        from scipy.sparse import csr_array

        first = self.indptr[row]
        shape = (len(self.indptr) - 1 - row, n_genes)
        rest = csr_array((self.data[first:], self.indices[first:], self.indptr[row:] - first), shape=shape, copy=True)
        rest.sum_duplicates()
        return Rows(rest.indptr.astype(np.int64), rest.indices, rest.data)

    @property
    def parts(self) -> tuple[Int64, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """indptr, indices, data in one of the two pairs of types that the loops are compiled for."""
        if self.data.dtype == np.float32 and self.indices.dtype == np.int32:
            return self.indptr, self.indices, self.data
        return self.indptr, self.indices.astype(np.int64), self.data.astype(np.float64)


@kernel
def _row(indices: Any, data: Any, first: int, last: int, n_genes: int, whole: bool) -> Any:
    """Whether a row can be used as it is, and its sum."""
    total, before = 0.0, -1
    for k in range(first, last):
        x = np.float64(data[k])
        if not (x >= 0.0 and x < 4e15) or indices[k] < 0 or indices[k] >= n_genes or (whole and x != np.floor(x)):
            return 1, 0.0
        if indices[k] <= before:
            return 2, 0.0
        before = indices[k]
        total += x
    return 0, total


@kernel
def add_counts(
    indptr: Any,
    indices: Any,
    data: Any,
    n_genes: int,
    group: Any,
    half: Any,
    values: Any,
    n_cells: Any,
    n_half: Any,
    depth: Any,
) -> Any:
    highest, deepest = 0.0, 0.0
    for r in range(len(group)):
        g = group[r]
        if g < 0:
            continue
        why, total = _row(indices, data, indptr[r], indptr[r + 1], n_genes, True)
        if why > 0:
            return r, why, highest, deepest
        d, first = np.int64(total), half[r]
        for k in range(indptr[r], indptr[r + 1]):
            c, j = np.int64(data[k]), indices[k]
            highest = max(highest, np.float64(c))
            values[g, j, 0] += c
            values[g, j, 1] += c * c
            values[g, j, 2] += c * d
            if first:
                values[g, j, 3] += c
        n_cells[g] += 1
        depth[g, 0] += d
        depth[g, 1] += d * d
        deepest = max(deepest, total)
        if first:
            n_half[g] += 1
            depth[g, 2] += d
    return 0, 0, highest, deepest


@kernel
def add_logs(
    indptr: Any,
    indices: Any,
    data: Any,
    n_genes: int,
    group: Any,
    half: Any,
    values: Any,
    n_cells: Any,
    n_half: Any,
    depth: Any,
    take_log: bool,
) -> Any:
    highest = 0.0
    for r in range(len(group)):
        g = group[r]
        if g < 0:
            continue
        why, total = _row(indices, data, indptr[r], indptr[r + 1], n_genes, take_log)
        if why > 0:
            return r, why, highest, 0.0
        scale, first = 1e4 / max(total, 1.0), half[r]
        for k in range(indptr[r], indptr[r + 1]):
            x, j = np.float64(data[k]), indices[k]
            if take_log:
                x = np.log1p(x * scale)
            if x > 64.0:
                return r, 1, highest, 0.0
            highest = max(highest, x)
            v = np.int64(np.rint(x * 1073741824.0))  # 1 / STEP
            values[g, j, 0] += v
            values[g, j, 1] += np.int64(np.rint(x * x * 16777216.0))  # 1 / SQUARE_STEP
            if first:
                values[g, j, 3] += v
        n_cells[g] += 1
        if first:
            n_half[g] += 1
    return 0, 0, highest, 0.0


def add_totals(columns: Rows, totals: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Add the values of some columns to the totals of their cells."""
    _add_totals(*columns.parts[1:], totals)


@kernel
def _add_totals(indices: Any, data: Any, totals: Any) -> None:
    for k in range(len(data)):
        if indices[k] >= 0 and indices[k] < len(totals):  # others are refused when they are summed
            totals[indices[k]] += np.float64(data[k])


@kernel
def add_column_entries(
    indptr: Any,
    indices: Any,
    data: Any,
    first_gene: int,
    group: Any,
    half: Any,
    totals: Any,
    values: Any,
    log: bool,
    whole: bool,
) -> Any:
    highest, n_groups = 0.0, len(values)
    table = np.zeros((n_groups, 1, 4), dtype=np.int64)  # one gene of all groups, close together
    for column in range(len(indptr) - 1):
        before = -1
        for k in range(indptr[column], indptr[column + 1]):
            if indices[k] < 0 or indices[k] >= len(group):
                return column, 0, 1, highest
            if indices[k] <= before:
                return column, 0, 2, highest
            before = indices[k]
        j, apart = first_gene + column, 4 * (indptr[column + 1] - indptr[column]) >= n_groups
        into = table[:, 0] if apart else values[:, j]
        for k in range(indptr[column], indptr[column + 1]):
            r, x = indices[k], np.float64(data[k])
            g = group[r]
            if g < 0:
                continue
            if not (x >= 0.0 and x < 4e15) or (whole and x != np.floor(x)):
                return column, r, 1, highest
            if log:
                if whole:
                    x = np.log1p(x * (1e4 / max(totals[r], 1.0)))
                if x > 64.0:
                    return column, r, 1, highest
                v, square = np.int64(np.rint(x * 1073741824.0)), np.int64(np.rint(x * x * 16777216.0))
            else:
                v = np.int64(x)
                square = v * v
                into[g, 2] += v * np.int64(totals[r])
            highest = max(highest, x)
            into[g, 0] += v
            into[g, 1] += square
            if half[r]:
                into[g, 3] += v
        if apart:
            values[:, j] += table[:, 0]
            table[:] = 0
    return 0, 0, 0, highest
