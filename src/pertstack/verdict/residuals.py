"""Absolute residuals of a cell line and fold as sorted lists, and the prediction intervals that follow from them.

Lists are thinned so that intervals can only widen; a query merges K lists and never forms residuals x rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._base.machine.compiled import kernel
from pertstack._base.machine.scratch import space
from pertstack.data.rows import Float32

KEEP = 512


@dataclass(frozen=True)
class SortedResiduals:
    """Absolute residuals of one cell line and fold, ascending per gene.

    Each kept value is the largest of the run it stands for, so that thinning can only widen an interval.
    """

    values: Float32  # (n_kept, n_genes)
    upto: np.ndarray[Any, np.dtype[np.int64]]  # (n_kept,) how many residuals are at or below each

    @property
    def n(self) -> int:
        """Residuals behind the list."""
        return int(self.upto[-1]) if len(self.upto) else 0

    @classmethod
    def of(cls, residuals: Float32, keep: int = KEEP, *, scratch: Path | None = None) -> SortedResiduals:
        """From residuals (n, n_genes) of either sign; an undefined one counts as infinitely large.

        Parameters
        ----------
        residuals : of one cell line and fold.
        keep : how many are kept per gene, at most.
        scratch : folder for a list that is long (it is mapped then); None keeps it in memory.
        """
        size = np.abs(np.asarray(residuals, dtype=np.float32))
        size[np.isnan(size)] = np.inf
        size.sort(axis=0)
        n, m = len(size), min(len(size), keep)
        upto = np.array([math.ceil((j + 1) * n / m) for j in range(m)], dtype=np.int64)
        values = space((m, size.shape[1]), np.float32, scratch)
        np.take(size, upto - 1, axis=0, out=values)
        return cls(values, upto)


@dataclass(frozen=True)
class CrossConformal:
    """Residual lists by cell line and fold; see ``collect_residuals``."""

    lists: Mapping[str, Mapping[int, SortedResiduals]]

    def knows(self, cell_line: str) -> bool:
        """Whether intervals of this cell line rest on its own residuals."""
        return cell_line in self.lists

    def intervals(
        self, cell_line: str, prediction: Float32 | Mapping[int, Float32], level: float = 0.9
    ) -> tuple[Float32, Float32]:
        """Lower and upper ends (n, n_genes) each.

        Parameters
        ----------
        cell_line : str
            Of all rows.
        prediction : (n, n_genes), or one such array per fold
            Per fold (each by models that never saw the fold) gives CV+; a single one uses the same centre for all.
        level : float
            Coverage to expect for a new group, 1 - alpha. What is proven for CV+ is ``guaranteed_coverage``.

        A cell line without residuals borrows those of all others (``knows`` tells). Too few groups for the level
        (alpha * (n + 1) < 1) give infinite ends, which is honest. A NaN prediction gives NaN ends.
        """
        if not isinstance(prediction, Mapping):
            return around(prediction, self.reach(cell_line, level))
        used, rank = self._used(cell_line, level)
        values, upto = _stack([r for _, r in used], slice(None))
        mu = np.stack([np.asarray(prediction[fold], dtype=np.float64) for fold, _ in used])
        hi, lo = np.empty(mu.shape[1:]), np.empty(mu.shape[1:])
        _upper(mu, values, upto, rank, hi)
        _upper(-mu, values, upto, rank, lo)
        return (-lo).astype(np.float32), hi.astype(np.float32)

    def reach(self, cell_line: str, level: float = 0.9) -> Array:
        """Half the width (1, n_genes) of intervals that have one centre: no row needs a search of its own."""
        used, rank = self._used(cell_line, level)
        lists = [r for _, r in used]
        reach = np.empty((1, lists[0].values.shape[1]))
        for g in range(0, reach.shape[1], _GENES):
            some = slice(g, g + _GENES)
            values, upto = _stack(lists, some)
            _upper(np.zeros((len(values), 1, values.shape[2])), values, upto, rank, reach[:, some])
        return reach

    def _used(self, cell_line: str, level: float) -> tuple[list[tuple[int, SortedResiduals]], int]:
        """The lists of a cell line, else those of all, with their folds; and which residual ends an interval."""
        if not 0 < level < 1:
            raise InputError(f"The level of an interval is {level}; give a share between 0 and 1, such as 0.9.")
        mine = self.lists.get(cell_line)
        used = list(mine.items()) if mine is not None else [x for m in self.lists.values() for x in m.items()]
        return used, math.ceil(level * (sum(r.n for _, r in used) + 1) - 1e-9)


_GENES = 512  # of which lists are put side by side at once


def around(prediction: Float32, reach: Array) -> tuple[Float32, Float32]:
    """Lower and upper ends (n, n_genes) of intervals with one centre, as wide on both sides."""
    middle = np.asarray(prediction, dtype=np.float64)
    return (middle - reach).astype(np.float32), (middle + reach).astype(np.float32)


def _stack(lists: list[SortedResiduals], genes: slice) -> tuple[Array, Array]:
    """Lists of unequal length as (K, longest, some genes) and (K, longest); the ends are padded with infinity."""
    longest, n_genes = max(len(r.values) for r in lists), lists[0].values[:, genes].shape[1]
    values = np.full((len(lists), longest, n_genes), np.inf)
    upto = np.empty((len(lists), longest), dtype=np.int64)
    for k, r in enumerate(lists):
        values[k, : len(r.values)] = r.values[:, genes]
        upto[k] = r.n
        upto[k, : len(r.values)] = r.upto
    return values, upto


@kernel
def _at_or_below(values, upto, k, g, x):  # type: ignore[no-untyped-def]
    """How many residuals of list k and gene g are <= x."""
    lo, hi = 0, values.shape[1]
    while lo < hi:
        mid = (lo + hi) // 2
        if values[k, mid, g] <= x:
            lo = mid + 1
        else:
            hi = mid
    return 0 if lo == 0 else upto[k, lo - 1]


@kernel
def _upper(mu, values, upto, rank, out):  # type: ignore[no-untyped-def]
    """``rank``-th smallest of all mu_k + residual, per row and gene: a binary search in each of the K lists."""
    n_lists, longest = values.shape[0], values.shape[1]
    for i in range(mu.shape[1]):
        for g in range(mu.shape[2]):
            best = np.inf
            for k in range(n_lists):
                lo, hi = 0, longest
                while lo < hi:
                    mid = (lo + hi) // 2
                    end = mu[k, i, g] + values[k, mid, g]
                    total = upto[k, mid]
                    for other in range(n_lists):
                        if other != k:
                            total += _at_or_below(values, upto, other, g, end - mu[other, i, g])
                    if total >= rank:
                        hi = mid
                    else:
                        lo = mid + 1
                if lo < longest:
                    best = min(best, mu[k, i, g] + values[k, lo, g])
            out[i, g] = best if best == best and mu[0, i, g] == mu[0, i, g] else np.nan
