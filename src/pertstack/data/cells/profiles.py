"""From sums over cells to profiles: the space a study lives in, the standard error of each value, the two halves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from pertstack.data.cells.entries import SQUARE_STEP, STEP, Int64
from pertstack.data.cells.sums import HALF, PRODUCT, SQUARE, SUM, GroupSums
from pertstack.data.choices import Normalise
from pertstack.data.readers.matrices import Float32

Float64 = np.ndarray[Any, np.dtype[np.float64]]
KEPT = 5 * 10**7
"""Values of profiles that are kept once they are made (200 MB)."""
AT_ONCE = 64
PER: dict[str, float] = {"cp10k": 1e4, "5e4": 5e4}


class SumSource(Protocol):
    """Sums that may still have to be made: ``sums`` makes them when first asked for."""

    @property
    def n_genes(self) -> int: ...

    @property
    def sums(self) -> GroupSums: ...


@dataclass(frozen=True)
class Profiles:
    """Profiles of groups of cells, made from their sums when asked for. A ``RowSource``; row i is group ``at[i]``.

    ``part`` says of which cells: all, the first or the second half of each group.
    """

    source: SumSource
    normalise: Normalise
    at: Int64
    part: str = "all"
    divisible: bool = True  # whether every group has two cells at least

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.at), self.source.n_genes

    def rows(self, start: int, stop: int) -> Float32:
        """Rows start..stop, float32."""
        if self.part == "all" and len(self.at) * self.source.n_genes <= KEPT:
            return self._kept[start:stop].copy()
        return self._made(start, stop)

    @cached_property
    def _kept(self) -> Float32:
        """All rows, if they are few: a study reads them several times."""
        out = np.empty(self.shape, dtype=np.float32)
        for start in range(0, len(out), AT_ONCE):
            out[start : start + AT_ONCE] = self._made(start, start + AT_ONCE)
        return out

    def _made(self, start: int, stop: int) -> Float32:
        groups = self.at[start:stop]
        values, n, depth = self._of_part(groups)
        return profile(values, n, depth, normalise=self.normalise).astype(np.float32)

    def _of_part(self, groups: Int64) -> tuple[Int64, Int64, Int64]:
        """Sums, cells and depths (n, ...) of all cells or of a half."""
        s = self.source.sums
        if self.part == "all":
            return s.values[groups, :, SUM], s.n_cells[groups], s.depth[groups, 0]
        first = s.values[groups, :, HALF], s.n_half[groups], s.depth[groups, 2]
        if self.part == "first":
            return first
        rest = s.values[groups, :, SUM] - first[0]
        return rest, s.n_cells[groups] - first[1], s.depth[groups, 0] - first[2]

    @property
    def halves(self) -> tuple[Profiles, Profiles] | None:
        """Profiles of two disjoint halves of the cells of each group; None if a group has one cell."""
        if not self.divisible:
            return None
        return replace(self, part="first"), replace(self, part="second")

    @cached_property
    def error(self) -> StandardErrors:
        """Standard errors of the same rows."""
        return StandardErrors(self.source, self.normalise, self.at)


@dataclass(frozen=True)
class StandardErrors:
    """Standard error of every value of ``Profiles``, over the cells of the group. A ``RowSource``."""

    source: SumSource
    normalise: Normalise
    at: Int64

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.at), self.source.n_genes

    def rows(self, start: int, stop: int) -> Float32:
        """Rows start..stop, float32; NaN for groups of one cell."""
        groups = self.at[start:stop]
        s = self.source.sums
        found = standard_error(s.take(groups), s.n_cells[groups], s.depth[groups], normalise=self.normalise)
        return found.astype(np.float32)


def profile(total: Int64, n_cells: Int64, depth: Int64, *, normalise: Normalise) -> Float64:
    """Pseudobulk profiles, (n, n_genes).

    Parameters
    ----------
    total : array, shape (n, n_genes)
        Sums over the cells of each group: counts, or log1p values in steps of ``STEP``.
    n_cells, depth : arrays, shape (n,)
        Cells, and counts of all genes, of each group.
    normalise
        ``cp10k`` and ``5e4``: log1p of counts per 10,000 or 50,000 of the group; ``mean_log1p``: mean over cells;
        ``sum``: the sums themselves. A group without a single count (or cell) is zero.
    """
    if normalise == "sum":
        return total.astype(np.float64)
    if normalise == "mean_log1p":
        return np.asarray(total * STEP / np.maximum(n_cells, 1)[:, None])
    return np.asarray(np.log1p(PER[normalise] * (total / np.maximum(depth, 1)[:, None])))


def standard_error(values: Int64, n_cells: Int64, depth: Int64, *, normalise: Normalise) -> Float64:
    """Standard error of each value of a profile over the cells of its group, (n, n_genes); NaN for one cell.

    A mean has the spread of its cells over the root of their number. The share ``r = sum(c) / sum(d)`` of a gene in the
    counts of a group is a ratio of sums, with variance ``n / (n - 1) * sum((c - r d)^2) / sum(d)^2`` (Cochran 1977,
    Sampling Techniques, section 6.4); its logarithm follows by the first derivative.

    Parameters
    ----------
    values : array, shape (n, n_genes, 4)
        SUM, SQUARE and PRODUCT (value x depth of the cell) of each group.
    n_cells : array, shape (n,)
        Of each group.
    depth : array, shape (n, 3)
        Sum of depths and of their squares.
    normalise : str
        How sums become profiles: a mean of logarithms, or a share of the counts.
    """
    n = n_cells.astype(np.float64)[:, None]
    few = np.where(n > 1, n, np.nan)
    if normalise == "mean_log1p":
        mean = values[..., SUM] * STEP / n
        spread = np.maximum(values[..., SQUARE] * SQUARE_STEP / n - mean**2, 0.0)
        return np.asarray(np.sqrt(spread / (few - 1)))
    total, square = values[..., SUM].astype(np.float64), values[..., SQUARE].astype(np.float64)
    if normalise == "sum":
        return np.asarray(np.sqrt(np.maximum(square - total**2 / n, 0.0) * n / (few - 1)))
    d, d2 = np.maximum(depth[:, 0].astype(np.float64), 1.0)[:, None], depth[:, 1].astype(np.float64)[:, None]
    r = total / d
    residual = np.maximum(square - 2 * r * values[..., PRODUCT] + r**2 * d2, 0.0)
    of_share = np.sqrt(residual * n / (few - 1)) / d
    return np.asarray(PER[normalise] * of_share / (1 + PER[normalise] * r))
