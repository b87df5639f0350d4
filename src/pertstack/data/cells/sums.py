"""Sums over cells, group by group: what pseudobulk profiles, their standard errors and their two halves come from.

Everything is summed as whole numbers (counts as they are, logarithms in steps of 2^-30), so parts of the data can be
summed anywhere, in any order and any size, and merge to the same bits. Which cell belongs to which group is said by
``groups.py``; what becomes of the sums by ``profiles.py``.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.cells.entries import (
    SQUARE_STEP,
    STEP,
    BadCell,
    Int64,
    Rows,
    add_column_entries,
    add_counts,
    add_logs,
)

Space = Literal["counts", "log1p"]

SUM, SQUARE, PRODUCT, HALF = range(4)
"""What is summed for each group and gene: the value, its square, value x depth of the cell, and the value over the
cells of the first half."""
IN_MEMORY = 10**9
"""Sums of more bytes than this lie in a nameless temporary file."""
_LIMIT = 2.0**62
_FINE, _UNUSABLE, _UNSORTED = 0, 1, 2


def _require_room(size: int, n_groups: int, n_genes: int) -> None:
    """InputError if the disk of temporary files has no room for so many bytes of sums."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"{n_groups:,} groups of cells x {n_genes:,} genes need {size / 1e9:,.0f} GB while they are summed, and "
            f"{folder} has {free / 1e9:,.0f} GB free. Point TMPDIR to a larger disk; or are perturbation, cell line "
            f"and batch in other columns (--dry-run, --map)?"
        )


@dataclass
class GroupSums:
    """Sums over the cells of each group; ``merge`` adds those of other cells.

    ``space`` says what was summed: counts, or log1p values in steps of ``STEP`` (squares of ``SQUARE_STEP``).
    """

    space: Space
    values: Int64  # (n_groups, n_genes, 4): SUM, SQUARE, PRODUCT, HALF
    n_cells: Int64  # (n_groups,)
    n_half: Int64  # (n_groups,) cells of the first half
    depth: Int64  # (n_groups, 3): sum of depths, of their squares, of the depths of the first half
    highest: float = 0.0  # value and depth of a cell, to know that no sum ran over
    deepest: float = 0.0

    @classmethod
    def empty(cls, n_groups: int, n_genes: int, space: Space) -> GroupSums:
        """No cell yet. Large sums lie in a temporary file, so memory stays bounded.

        Parameters
        ----------
        n_groups, n_genes : first two axes of the sums.
        space : what the values of cells are summed as.

        Raises
        ------
        InputError
            The temporary folder has too little room.
        """
        shape = (n_groups, n_genes, 4)
        zeros: Int64
        size = n_groups * n_genes * 4 * 8
        if size > IN_MEMORY:
            _require_room(size, n_groups, n_genes)
            stream = tempfile.TemporaryFile(prefix="pertstack-cells-")  # noqa: SIM115 (lives as long as the map)
            stream.truncate(size)
            zeros = np.memmap(stream, dtype=np.int64, mode="r+", shape=shape)
        else:
            zeros = np.zeros(shape, dtype=np.int64)
        count = np.zeros(n_groups, dtype=np.int64)
        return cls(space, zeros, count, count.copy(), np.zeros((n_groups, 3), dtype=np.int64))

    @property
    def n_groups(self) -> int:
        return int(self.values.shape[0])

    @property
    def n_genes(self) -> int:
        return int(self.values.shape[1])

    def add(self, rows: Rows, group: Int64, half: np.ndarray[Any, np.dtype[np.bool_]], *, log: bool = False) -> None:
        """Add cells.

        Parameters
        ----------
        rows : the values of some cells, sparse.
        group : array, shape (n_cells,)
            Group of each cell; a negative number leaves it out.
        half : array, shape (n_cells,), bool
            Cells of the first half of their group.
        log : sum log1p of counts per 10,000 of each cell instead of its counts (``space`` "log1p" only).

        Raises
        ------
        BadCell
            A value is missing, infinite or negative, no whole number if counts are summed, or too large for a
            logarithm. Nothing can be done with the sums then.
        """
        into = (self.n_genes, group, half, self.values, self.n_cells, self.n_half, self.depth)
        if self.space == "counts":
            at, why, highest, deepest = add_counts(*rows.parts, *into)
        else:
            at, why, highest, deepest = add_logs(*rows.parts, *into, log)
        self.highest, self.deepest = max(self.highest, highest), max(self.deepest, deepest)
        if why == _UNSORTED:
            try:
                self.add(rows.sorted_from(at, self.n_genes), group[at:], half[at:], log=log)
            except BadCell as bad:
                raise BadCell(int(at) + bad.row) from None
        elif why != _FINE:
            raise BadCell(int(at))

    def add_columns(
        self,
        columns: Rows,
        group: Int64,
        half: np.ndarray[Any, np.dtype[np.bool_]],
        *,
        first: int,
        totals: np.ndarray[Any, np.dtype[np.float64]],
        whole: bool,
    ) -> None:
        """Add some genes of all cells; ``count_cells`` then says once how many cells there were.

        Parameters
        ----------
        columns : some columns of the matrix; ``indices`` are cells.
        first : gene of the first of these columns.
        group : of every cell, as in ``add``.
        half : of every cell, as in ``add``.
        totals : array, shape (n_cells,)
            Counts of all genes of each cell; see ``add_totals``. Not used for logarithms.
        whole : values are counts (also if logarithms of counts per 10,000 are summed).

        Raises
        ------
        BadCell
            As ``add``.
        """
        into = (first, group, half, totals, self.values)
        log = self.space == "log1p"
        at, cell, why, highest = add_column_entries(*columns.parts, *into, log, whole)
        self.highest = max(self.highest, highest)
        if why == _UNSORTED:
            rest = columns.sorted_from(at, len(group))
            self.add_columns(rest, group, half, first=first + at, totals=totals, whole=whole)
        elif why != _FINE:
            raise BadCell(int(cell))

    def count_cells(
        self,
        group: Int64,
        half: np.ndarray[Any, np.dtype[np.bool_]],
        totals: np.ndarray[Any, np.dtype[np.float64]],
    ) -> None:
        """Cells and depths of cells whose values came by columns.

        Parameters
        ----------
        group : array, shape (n_cells,)
            As in ``add``.
        half : array, shape (n_cells,), bool
            As in ``add``.
        totals : array, shape (n_cells,)
            Counts of all genes of each cell.
        """
        used = group >= 0
        g, first, depth = group[used], half[used], totals[used].astype(np.int64)
        np.add.at(self.n_cells, g, 1)
        np.add.at(self.n_half, g[first], 1)
        if self.space == "counts":
            np.add.at(self.depth[:, 0], g, depth)
            np.add.at(self.depth[:, 1], g, depth * depth)
            np.add.at(self.depth[:, 2], g[first], depth[first])
            self.deepest = max(self.deepest, float(depth.max(initial=0)))

    def merge(self, other: GroupSums) -> GroupSums:
        """Sums over the cells of both; the same bits in any order. Both must have the same groups, genes and space."""
        if self.space != other.space or self.values.shape != other.values.shape:
            raise ValueError(
                f"Sums of {self.values.shape[:2]} groups and genes ({self.space}) cannot be merged with "
                f"{other.values.shape[:2]} ({other.space})."
            )
        return GroupSums(
            self.space,
            self.values + other.values,
            self.n_cells + other.n_cells,
            n_half=self.n_half + other.n_half,
            depth=self.depth + other.depth,
            highest=max(self.highest, other.highest),
            deepest=max(self.deepest, other.deepest),
        )

    def require_exact(self) -> None:
        """That no sum ran over 64 bits.

        Raises
        ------
        InputError
            One may have: the group is too large for its values.
        """
        most = float(self.n_cells.max(initial=0))
        largest = max(self.highest**2, self.highest * self.deepest, self.deepest**2)
        if self.space == "log1p":
            largest = max(self.highest / STEP, self.highest**2 / SQUARE_STEP)
        if most * largest > _LIMIT:
            raise InputError(
                f"A group of {most:,.0f} cells with values up to {self.highest:,.0f} and up to {self.deepest:,.0f} "
                f"counts in a cell is too large to be summed exactly. Split it with --by, for example by donor or "
                f"batch."
            )

    def take(self, groups: Int64) -> Int64:
        """(n, n_genes, 4) sums of some groups, in the order asked for."""
        return np.asarray(self.values[groups])

    def save(self, path: Path) -> None:
        """Write the sums to one ``.npz`` file, so that they can be merged elsewhere."""
        with path.open("wb") as stream:
            np.savez(
                stream,
                space=np.str_(self.space),
                values=self.values,
                n_cells=self.n_cells,
                n_half=self.n_half,
                depth=self.depth,
                most=np.array([self.highest, self.deepest]),
            )

    @classmethod
    def load(cls, path: Path) -> GroupSums:
        """What ``save`` wrote."""
        with np.load(path) as z:
            space: Space = "counts" if str(z["space"]) == "counts" else "log1p"
            highest, deepest = z["most"].tolist()
            return cls(space, z["values"], z["n_cells"], z["n_half"], z["depth"], highest, deepest)
