"""Tiles of the one pass: read one ahead while threads work on the last, and summed block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import announce
from pertstack.reduce.references import SLICED, References
from pertstack.reduce.sums.block_sums import BlockSums, Spread
from pertstack.reduce.sums.sum_kernels import ROWS

MOST_ROWS = 128
AHEAD = 2  # tiles the disk is asked for beyond the one that is read


def sum_blocks(tiles: Tiles, workers: int) -> Iterator[tuple[Block, BlockSums]]:
    """Blocks in their order with all their rows summed. The source is used by one thread alone, which reads a tile
    ahead, also into the next block.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(ThreadPoolExecutor(1))
        pool = stack.enter_context(ThreadPoolExecutor(workers)) if workers > 1 else None
        coming = reader.submit(tiles.read, 0)
        for turn, (block, start, last) in enumerate(tiles.order):
            sums, tile = coming.result()
            if turn + 1 < len(tiles.order):
                coming = reader.submit(tiles.read, turn + 1)
            sums.add(tile, start, _spreader(pool))
            if last:
                yield block, sums


class Tiles:
    """Two tiles that are filled in turn, made when first needed and kept from block to block: fresh memory is slow.

    Parameters
    ----------
    source, references : to read from, and what slices are cut against.
    blocks : in their order.
    k : genes of a slice.
    memory : bytes that both tiles may take.
    scratch : folder of what is too large for memory; None keeps it there.
    only_genes : moments of genes alone, no slices.
    """

    def __init__(
        self,
        source: BlockSource,
        references: References,
        blocks: list[Block],
        k: int,
        memory: int,
        scratch: Path | None,
        only_genes: bool = False,
    ) -> None:
        self.source, self.references, self.k, self.scratch = source, references, k, scratch
        self.only_genes = only_genes
        self.models = tuple(source.models)
        self.shape = (len(self.models) + 2, len(source.gene_names))
        self.lengths = {block: len(source.obs(block)) for block in blocks}
        self.rows = min(_rows_of_tile(self.shape[1], self.shape[0], memory), max(self.lengths.values()))
        self.order = [(b, a, a + self.rows >= n) for b, n in self.lengths.items() for a in range(0, n, self.rows)]
        self._made: dict[int, Float32] = {}
        self._sums: BlockSums | None = None
        self._announced = 0

    def read(self, turn: int) -> tuple[BlockSums, Float32]:
        """The tile of a turn, (M + 2, n, n_genes), and the sums it belongs to. The disk is asked for the next ones
        first, so that it has work while this tile is copied and summed.
        """
        for coming, first, _ in self.order[self._announced : turn + 1 + AHEAD]:
            announce(self.source, coming, start=first, stop=min(first + self.rows, self.lengths[coming]))
        self._announced = turn + 1 + AHEAD
        block, start, _ = self.order[turn]
        stop = min(start + self.rows, self.lengths[block])
        if start == 0 or self._sums is None:
            self._sums = self._new_sums(block)
        tile = self._space(turn % 2, stop - start)
        for layer, name in enumerate((*self.models, "treated", "control")):
            if layer >= len(self.models) or self._sums.usable[start:stop, layer].any():
                into = tile[layer]
                got = self.source.read(block, name, start=start, stop=stop, out=into)
                if got is not into:
                    into[...] = got
        return self._sums, tile

    def _new_sums(self, block: Block) -> BlockSums:
        usable = np.stack([self.source.sound(block, m) for m in self.models], axis=1)
        genes_of = np.stack([self.source.genes_of(block, m) for m in self.models])
        profiles = _profiles(self.references, block)
        kept = (self.k, self.models, self.scratch, self.only_genes)
        return BlockSums(block, usable, genes_of, profiles, *kept)

    def _space(self, which: int, n: int) -> Float32:
        """Contiguous whatever n is."""
        n_layers, n_genes = self.shape
        if which not in self._made:
            self._made[which] = np.empty(n_layers * self.rows * n_genes, dtype=np.float32)
        return self._made[which][: n_layers * n * n_genes].reshape(n_layers, n, n_genes)


def _rows_of_tile(n_genes: int, n_layers: int, memory: int) -> int:
    """Rows of a tile, a multiple of 8: two tiles fill at most 80 % of the memory, unless 8 rows are more than that."""
    rows = int(0.4 * memory) // (4 * n_genes * n_layers)
    return max(ROWS, min(MOST_ROWS, rows // ROWS * ROWS))


def _profiles(references: References, block: Block) -> dict[Reference, Float32]:
    """What slices are cut against, float32: (1, n_genes), or no row for the own control."""
    pooled, centroid = references.pooled(block.cell_line), references.centroid(block.cell_line, block.fold)
    own = np.zeros((0, len(pooled)), dtype=np.float32)
    made = {"own": own, "pooled": pooled.astype(np.float32)[None], "centroid": centroid.astype(np.float32)[None]}
    return {r: made[r] for r in SLICED}


def _spreader(pool: ThreadPoolExecutor | None) -> Spread:
    def spread(work: list[Callable[[], Any]]) -> None:
        if pool is None:
            for task in work:
                task()
        else:
            for done in [pool.submit(task) for task in work]:
                done.result()

    return spread
