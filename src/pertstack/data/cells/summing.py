"""The one pass over the cells of a file: by rows, or by columns if they are stored so, with sums kept on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.machine.progress import remark, track
from pertstack.data.cells.choice import Kind
from pertstack.data.cells.entries import BadCell, Int64, Rows, add_totals
from pertstack.data.cells.groups import Groups, Mask
from pertstack.data.cells.held import HeldCells
from pertstack.data.cells.kept import KeptSums
from pertstack.data.cells.reading import blocks, columns, n_blocks, sparse_of
from pertstack.data.cells.sums import GroupSums, Space
from pertstack.data.choices import Normalise
from pertstack.data.readers.matrices import RowSource, StoredRows, SubsetRows


def sum_cells(
    matrix: RowSource, groups: Groups, kind: Kind, *, normalise: Normalise, names: pd.Index[Any], where: str
) -> GroupSums:
    """One pass over the cells (two if they are stored by columns); a run that was killed is gone on with.

    Parameters
    ----------
    matrix : values of the cells, (n_cells, n_genes).
    groups : of every cell.
    kind : what the values are.
    normalise : how sums become profiles, which says what is summed.
    names : of the cells, for messages.
    where : the file, for messages.

    Raises
    ------
    InputError
        A cell has values of another kind than the others, or values that cannot be used.
    """
    space: Space = "log1p" if normalise == "mean_log1p" else "counts"
    stored, group, half = _as_stored(matrix, groups)
    sums = GroupSums.empty(groups.n_groups, matrix.shape[1], space)
    kept = KeptSums.of(stored, (space, kind), (group, half))
    first = kept.load(sums)
    by_columns = (found := sparse_of(stored)) is not None and found.format == "csc"
    if first:
        what = "genes" if by_columns else "cells"
        remark(f"{where}: the first {first:,} {what} were summed by a run that did not end; going on from there.")
    try:
        if by_columns:
            assert isinstance(stored, StoredRows)
            _sum_columns(stored, sums, kind, group=group, half=half, first=first, kept=kept)
        else:
            _sum_rows(stored, sums, kind, group=group, half=half, first=first, kept=kept)
    except BadCell as bad:
        kept.done()
        cell = int(np.searchsorted(matrix.index, bad.row)) if stored is not matrix else bad.row  # type: ignore[attr-defined]
        if (bad.values < 0).any():
            raise _negative(matrix, stored, names, kind, where) from None
        raise _unusable(names[cell], bad.values, kind, where) from None
    kept.done()
    sums.require_exact()
    return sums


def _as_stored(matrix: RowSource, groups: Groups) -> tuple[RowSource, Int64, Mask]:
    """The file itself if the cells are some of its rows, in its order; rows that are left out have no group."""
    if not isinstance(matrix, SubsetRows) or (np.diff(matrix.index) <= 0).any():
        return matrix, groups.of_cell, groups.half
    n = matrix.source.shape[0]
    group, half = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=bool)
    group[matrix.index], half[matrix.index] = groups.of_cell, groups.half
    return matrix.source, group, half


def _sum_rows(
    matrix: RowSource, sums: GroupSums, kind: Kind, *, group: Int64, half: Mask, first: int, kept: KeptSums
) -> None:
    held = HeldCells(sums, log=kind in ("counts", "log1p_counts"))
    for block in track(blocks(matrix, first=first), "summing cells", n_blocks(matrix)):
        rows, cells = counted(block.rows, kind), slice(block.start, block.stop)
        if not held.is_room(rows):
            held.pour()
            kept.keep(sums, block.start)
        try:
            held.add(rows, group[cells], half[cells])
        except BadCell as bad:
            ends = block.rows.indptr[bad.row : bad.row + 2]
            raise BadCell(block.start + bad.row, block.rows.data[ends[0] : ends[1]]) from None
    held.pour()


def _sum_columns(
    matrix: StoredRows, sums: GroupSums, kind: Kind, *, group: Int64, half: Mask, first: int, kept: KeptSums
) -> None:
    """Depths of all cells first, if they are needed; then gene by gene."""
    counting, totals = kind in ("counts", "log1p_counts"), np.zeros(len(group))
    if counting:
        for block in track(columns(matrix), "counting cells", n_blocks(matrix)):
            add_totals(counted(block.rows, kind), totals)
    for block in track(columns(matrix, first=first), "summing genes", n_blocks(matrix)):
        try:
            part = counted(block.rows, kind)
            sums.add_columns(part, group, half, first=block.start, totals=totals, whole=counting)
        except BadCell as bad:
            raise BadCell(bad.row, block.rows.data[block.rows.indices == bad.row]) from None
        kept.keep(sums, block.stop)
    sums.count_cells(group, half, totals)


def counted(rows: Rows, kind: Kind) -> Rows:
    """Logarithms of counts as counts."""
    return rows if kind != "log1p_counts" else replace(rows, data=np.rint(np.expm1(rows.data.astype(np.float64))))


def _negative(matrix: RowSource, stored: RowSource, names: pd.Index[Any], kind: Kind, where: str) -> InputError:
    """How many values are below zero, and in which cells."""
    by_columns = (found := sparse_of(stored)) is not None and found.format == "csc"
    n, cells = 0, set[int]()
    for block in columns(stored) if by_columns else blocks(stored):  # type: ignore[arg-type]
        at = np.flatnonzero(block.rows.data < 0)
        in_block = np.searchsorted(block.rows.indptr, at, side="right") - 1 + block.start
        of = np.asarray(block.rows.indices[at] if by_columns else in_block)
        if stored is not matrix:
            assert isinstance(matrix, SubsetRows)
            place = np.minimum(np.searchsorted(matrix.index, of), len(matrix.index) - 1)
            of = place[matrix.index[place] == of]
        n, cells = n + len(of), cells | set(of.tolist())
    what = "logarithms" if kind == "log" else "counts"
    return InputError(
        f"{where}: the cells hold {what}, and {n:,} of their values {'is' if n == 1 else 'are'} below zero, in "
        f"{len(cells):,} of {len(names):,} cells ({first_few([names[c] for c in sorted(cells)])}), which is no "
        f"expression: background was taken away, or the file is damaged, and no sum would show it. Name the layer of "
        f"counts as they were measured (--treated-layer LAYER), or leave these cells out."
    )


def _unusable(name: object, values: np.ndarray[Any, Any], kind: Kind, where: str) -> InputError:
    odd = values[~np.isfinite(values)]
    if len(odd):
        return InputError(
            f"{where}: cell {str(name)!r} has the value {odd[0]:g}, which is no expression. Remove such cells, or "
            f"name the layer of counts with --treated-layer."
        )
    if kind in ("counts", "log1p_counts"):
        part = values[values != np.rint(values)]
        said = f"{part[0]:g}" if len(part) else f"{values.max(initial=0):g}"
        return InputError(
            f"{where}: cell {str(name)!r} has the value {said}, while the other cells hold counts: counts and "
            f"logarithms are mixed, or the file is damaged. Put all cells on one scale first."
        )
    return InputError(
        f"{where}: cell {str(name)!r} has the value {values.max(initial=0):g}, while the other cells hold logarithms: "
        f"counts and logarithms are mixed, or the file is damaged. Put all cells on one scale first."
    )
