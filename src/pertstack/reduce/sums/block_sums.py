"""Sums of one block while its tiles pass by, and what becomes of them: moments and slices of the block.

Threads share a tile by panels of genes for the sums and by runs of rows for the slices; every place is written by
one thread, and shares are put together in the order of the panels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.errors import IntegrityError, first_few
from pertstack._base.machine.scratch import space
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Reference
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.reduce.sums.sample_moments import SampleMoments
from pertstack.reduce.sums.slices import TopSlices
from pertstack.reduce.sums.sum_kernels import GENES, PANEL, add_panel, n_pairs, n_triples
from pertstack.reduce.top_kernels import cut_slices

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Spread = Callable[[list[Callable[[], Any]]], None]
_SLICE_ROWS = 16


@dataclass(frozen=True, eq=False)
class BlockPart:
    """Everything the pass keeps of one block. Arrays may lie on disk."""

    usable: Mask  # (n, M) rows a model predicted and has not seen
    gene: GeneMoments  # over the rows that every model predicts
    sample: SampleMoments  # of all rows
    slices: dict[Reference, TopSlices]  # of all rows

    @property
    def complete(self) -> Mask:
        """(n,) rows that entered the gene moments."""
        return np.asarray(self.usable.all(axis=1))


class BlockSums:
    """Running sums of a block; ``add`` tiles in the order of their rows, then ``finish``."""

    def __init__(
        self,
        block: Block,
        usable: Mask,
        genes_of: Mask,
        profiles: dict[Reference, Float32],
        k: int,
        models: tuple[str, ...],
        scratch: Path | None = None,
        only_genes: bool = False,
    ) -> None:
        """``usable`` (n, M), ``genes_of`` (M, n_genes), ``profiles`` each (1, n_genes), or (0, n_genes) for the own
        control. ``only_genes`` leaves out the products per row and the slices; then end with ``gene_moments``.
        """
        (n, n_models), n_genes = usable.shape, genes_of.shape[1]
        self.block, self.usable, self.genes_of, self.models = block, usable, genes_of, models
        self.profiles = {} if only_genes else profiles
        self.n_columns, self.n_genes = n_models + 2, n_genes
        self.pooled = profiles["pooled"][0]
        self.lacking = (~genes_of).astype(np.int8)
        self.lacking[genes_of.all(axis=1), 0] = -1
        strips = -(-n_genes // GENES)
        self.gene_sum = np.zeros((strips, self.n_columns, GENES))
        self.pivot = np.zeros((strips, self.n_columns, GENES))
        self.pivot_row = int(np.argmax(usable.all(axis=1))) if usable.all(axis=1).any() else -1
        self.gene_cross = np.zeros((strips, n_pairs(self.n_columns), 9 * GENES))
        self.row_sum = np.zeros((n, self.n_columns))
        self.row_pairs = 0 if only_genes else n_pairs(self.n_columns)
        self.triangle = np.zeros((n, self.n_columns * (self.n_columns + 1) // 2 if self.row_pairs else 0))
        k = min(k, n_genes)
        self.slices = {r: _empty_slices(n, n_models, k, scratch) for r in self.profiles}
        self.panels = [(a, min(n_genes, a + PANEL)) for a in range(0, n_genes, PANEL)]

    def add(self, tile: Float32, start: int, spread: Spread) -> None:
        """Add some rows, each once.

        Parameters
        ----------
        tile : (M + 2, n, n_genes) float32: predictions, treated, control.
        start : position of the first row in the block.
        spread : does the pieces of work, side by side or not.
        """
        n = tile.shape[1]
        rows = slice(start, start + n)
        usable = np.ascontiguousarray(self.usable[rows].T)
        complete = usable.all(axis=0)
        pivot_row = self.pivot_row - start if start <= self.pivot_row < start + n else -1
        totals = np.empty((len(self.panels), n, self.n_columns))
        crosses = np.empty((len(self.panels), n, self.row_pairs, 9))
        work: list[Callable[[], Any]] = []
        for p, (low, high) in enumerate(self.panels):
            into_genes = (pivot_row, self.pivot, self.gene_sum, self.gene_cross)
            args = (tile, self.pooled, self.lacking, usable, complete, low, high, *into_genes)
            work.append(_call(add_panel, *args, totals[p], crosses[p]))
        for reference, profile in self.profiles.items():
            part = self.slices[reference]
            into = (part.genes[rows], part.y[rows], part.offset[rows], part.delta[rows])
            for a in range(0, n, _SLICE_ROWS):
                b = min(n, a + _SLICE_ROWS)
                work.append(_call(cut_slices, tile, profile, self.lacking, usable, a, b, *into))
        spread(work)
        for p in range(len(self.panels)):
            self.row_sum[rows] += totals[p]
        if not self.row_pairs:
            return
        cross = crosses[0]
        for p in range(1, len(self.panels)):
            cross += crosses[p]
        self.triangle[rows] += _triangle(cross, self.n_columns)

    def finish(self) -> BlockPart:
        """The block's part.

        Raises
        ------
        IntegrityError
            A value is NaN or infinite although the source calls it sound.
        """
        return BlockPart(self.usable, self.gene_moments(), self._sample(), self.slices)

    def gene_moments(self) -> GeneMoments:
        """The block's gene moments alone; raises as ``finish``."""
        self._refuse_not_finite()
        return self._gene()

    def _refuse_not_finite(self) -> None:
        bad = ~np.isfinite(self.row_sum)
        if bad.any():
            names = (*self.models, "treated", "control")
            columns, rows = [names[c] for c in np.flatnonzero(bad.any(axis=0))], np.flatnonzero(bad.any(axis=1))
            raise IntegrityError(
                f"Block {self.block}: values that are NaN or infinite in {first_few(columns)}, rows "
                f"{first_few(rows)}, although they are marked as predicted. A sum over them would be meaningless. "
                "Commit these rows again as missing."
            )

    def _gene(self) -> GeneMoments:
        count = float(self.usable.all(axis=1).sum())
        total = self._by_gene(self.gene_sum)  # from the pivot
        raw = _symmetric(self.gene_cross, self.n_columns)[: self.n_genes]
        step = total / max(count, 1.0)
        scatter = raw - count * step[:, :, None] * step[:, None, :]
        mean = self._by_gene(self.pivot) + step
        available = self.genes_of.T.copy() if count else np.ones((self.n_genes, self.n_columns - 2), dtype=bool)
        return GeneMoments(np.full(self.n_genes, count), mean, scatter, available)

    def _by_gene(self, strips: Float64) -> Float64:
        """(n_genes, D) from (n_strips, D, GENES)."""
        return strips.transpose(0, 2, 1).reshape(-1, self.n_columns)[: self.n_genes]

    def _sample(self) -> SampleMoments:
        whole = self.usable & self.genes_of.all(axis=1)  # (n, M)
        mean = self.row_sum / self.n_genes
        i, j = np.triu_indices(self.n_columns)
        triangle = self.triangle - self.n_genes * mean[:, i] * mean[:, j]
        known = np.concatenate([whole, np.ones((len(whole), 2), dtype=bool)], axis=1)
        mean[~known] = np.nan
        triangle[~(known[:, i] & known[:, j])] = np.nan
        return SampleMoments(self.n_genes, mean, triangle)


def _call(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


def _empty_slices(n: int, n_models: int, k: int, scratch: Path | None) -> TopSlices:
    genes = space((n, k), np.int32, scratch)
    y, offset = (space((n, k), np.float32, scratch) for _ in range(2))
    return TopSlices(genes, y, offset, space((n, n_models, k), np.float32, scratch))


def _symmetric(cross: Float64, n_columns: int) -> Float64:
    """(n_strips * GENES, D, D) from the products of column blocks, (n_strips, pairs, 9 * GENES)."""
    strips, triples = len(cross), n_triples(n_columns)
    products = cross.reshape(strips, -1, 3, 3, GENES)
    full = np.empty((strips, GENES, n_columns, n_columns))
    for q, (a, b) in enumerate(combinations_with_replacement(range(triples), 2)):
        for i in range(3 * a, min(3 * a + 3, n_columns)):
            for j in range(max(i, 3 * b), min(3 * b + 3, n_columns)):
                full[:, :, i, j] = full[:, :, j, i] = products[:, q, i - 3 * a, j - 3 * b]
    return full.reshape(-1, n_columns, n_columns)


def _triangle(cross: Float64, n_columns: int) -> Float64:
    """(n, D (D + 1) / 2) from the products of column blocks, (n, pairs, 9)."""
    place = {pair: q for q, pair in enumerate(combinations_with_replacement(range(n_triples(n_columns)), 2))}
    pick = [
        place[i // 3, j // 3] * 9 + 3 * (i % 3) + j % 3 for i, j in combinations_with_replacement(range(n_columns), 2)
    ]
    answer: Float64 = cross.reshape(len(cross), -1)[:, pick]
    return answer
