"""Cells held back until there are many, then summed group by group.

The sums of one group fit the cache of a processor, those of all groups do not: a cell that is added by itself waits for
memory at every entry. So cells are packed as they are read (gene and count of an entry in four bytes), taken group by
group and added up in a small table, which goes to the sums once. Whole numbers are summed, so the bits are those of
``GroupSums.add``; a cell that does not pack (a huge count, genes out of order, something wrong) goes there at once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertstack._base.machine.hosts import processors
from pertstack.data.cells.entries import Int64, Rows
from pertstack.data.cells.held_kernels import hold_logs, pack_counts, pour_counts, pour_logs
from pertstack.data.cells.sums import GroupSums

APART = 1_000_000
"""Held entries above which groups are shared among threads."""
HELD = 64_000_000
"""Packed entries that are held, in 256 MB; of logarithms, which are not packed, a third."""
Bool = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, Any]


@dataclass
class HeldCells:
    """Cells on their way into sums: ``add`` some while there ``is_room``, then ``pour`` all.

    ``log`` as in ``GroupSums.add``.
    """

    sums: GroupSums
    log: bool = False
    _n: int = 0  # entries held
    _genes: Numbers = field(default_factory=lambda: np.empty(0, np.uint32))  # of each entry; with its count, if packed
    _logs: Numbers = field(default_factory=lambda: np.empty(0, np.float32))  # of each entry, if logs are summed
    _cells: list[tuple[Numbers, ...]] = field(default_factory=list)  # group, half, end of entries, depth, top

    @property
    def counts(self) -> bool:
        """Whether counts are summed."""
        return self.sums.space == "counts"

    def is_room(self, rows: Rows) -> bool:
        """Whether some more cells can be held, beside those that are."""
        return not self._cells or self._n + len(rows.data) <= len(self._genes)

    def add(self, rows: Rows, group: Int64, half: Bool) -> None:
        """Hold some cells.

        Parameters
        ----------
        rows : the values of some cells, sparse.
        group : array, shape (n_cells,)
            Group of each cell; a negative number leaves it out.
        half : array, shape (n_cells,), bool
            Cells of the first half of their group.

        Raises
        ------
        BadCell
            As ``GroupSums.add``.
        """
        indptr, indices, data = rows.parts
        of_logs = np.float64 if self.log else data.dtype
        if len(self._genes) < self._n + len(data) or (not self.counts and self._logs.dtype != of_logs):
            assert self._n == 0, "pour first"
            self._genes = np.empty(max(len(data), HELD if self.counts else HELD // 3), np.uint32)
            self._logs = np.empty(0 if self.counts else len(self._genes), of_logs)
        ends, depth, top = (np.zeros(len(group), dtype=np.int64) for _ in range(3))
        into = (group, self._genes, self._n, ends, depth, top)
        if self.counts:
            pack_counts(indptr, indices, data, self.sums.n_genes, _count_bits(self.sums.n_genes), *into)
        else:
            hold_logs(indptr, indices, data, self.sums.n_genes, self.log, self._logs, *into)
        self._n = int(ends.max(initial=self._n))
        held = top >= 0
        self._cells.append((np.where(held, group, -1), half, ends, depth, top))
        if not held.all():
            self.sums.add(rows, np.where(held, -1, group), half, log=self.log)

    def pour(self) -> None:
        """Put all cells that are held into the sums."""
        if not self._cells:
            return
        group, half, ends, depth, top = (np.concatenate(parts) for parts in zip(*self._cells, strict=True))
        begins = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
        order = np.lexsort((~half, group))
        order = order[group[order] >= 0]
        cells = (group, half, begins, ends)

        def of_some(some: Int64) -> float:
            table = np.zeros((self.sums.n_genes, 2), dtype=np.int64)
            of_half = np.zeros(self.sums.n_genes, dtype=np.int64)
            if not self.counts:
                return float(pour_logs(some, *cells, self._genes, self._logs, table, of_half, self.sums.values))
            bits = _count_bits(self.sums.n_genes)
            pour_counts(some, *cells, depth, top, self._genes, bits, table, of_half, self.sums.values)
            return float(top[some].max(initial=0))

        parts = _whole_groups(order, group, (ends - begins)[order], processors() if self._n > APART else 1)
        with ThreadPoolExecutor(len(parts)) as pool:  # groups have places of their own, so threads change no bit
            self.sums.highest = max(self.sums.highest, *pool.map(of_some, parts))
        depth = depth[order] if self.counts else np.zeros(len(order))
        self.sums.count_cells(group[order], half[order], depth)
        self._cells, self._n = [], 0


def _count_bits(n_genes: int) -> int:
    """Bits of a packed entry that its count has beside its gene; 19 at most, so that its square has 38."""
    return min(19, max(0, 32 - max(1, n_genes - 1).bit_length()))


def _whole_groups(order: Int64, group: Int64, entries: Int64, n_parts: int) -> list[Int64]:
    """Cells in the order of their groups, in so many parts of about as many entries, none of which parts a group."""
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0][: len(order)])
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(entries)])
    wanted = before[-1] * np.arange(1, n_parts) // n_parts
    cuts = starts[np.minimum(np.searchsorted(before[starts], wanted), len(starts) - 1)] if len(starts) else []
    return np.split(order, cuts)
