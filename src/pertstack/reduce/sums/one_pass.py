"""The one pass: every block of a source is read once, in tiles sized by the memory budget, and leaves moments and
slices.

While threads work on one tile the next is read. What was reduced before is a look-up by digest: a new block costs
reading that block alone. A new model costs reading its blocks again, all models of them, because its products with
the others are new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.digests import digest_array, digest_json, digest_names
from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import announce, block_samples
from pertstack.reduce.references import SLICED, References
from pertstack.reduce.sums.block_sums import BlockPart, BlockSums, Spread
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.reduce.sums.part_files import FORMAT, load_part, save_part
from pertstack.reduce.sums.reduction import Reduction
from pertstack.reduce.sums.sum_kernels import ROWS

K = 80
MOST_ROWS = 128
AHEAD = 2  # tiles the disk is asked for beyond the one that is read


def reduce_blocks(
    source: BlockSource,
    references: References,
    *,
    k: int = K,
    memory: int = 10**9,
    workers: int = 1,
    cache: Path | None = None,
    blocks: Iterable[Block] | None = None,
    on_block: Callable[[Block], None] | None = None,
) -> Reduction:
    """Gene moments, sample moments and top-gene slices of the source's development blocks, in one streamed read.

    Parameters
    ----------
    source : where rows come from, block by block.
    references : means per cell line over its development rows.
    k : top genes per sample that slices keep.
    memory : bytes for two tiles; at least 8 rows of every layer are held whatever it says.
    workers : threads. Results have the same bits for any number of them, any memory and any order of blocks.
    cache : folder where parts are kept per block and looked up by the digest of what went in; results are then
        mapped from there. Without it they are held in memory.
    blocks : only these blocks. Processes and hosts can share the work: each reduces some blocks into one cache, and
        a last call over all of them only looks up.
    on_block : called after each block, for progress.

    Returns
    -------
    Reduction
        A row counts in the gene moments when every model predicted it and none has seen it. ``findings`` says how
        many rows of each block were left out and by which models, and names test blocks of the source, which are
        never read here.

    Raises
    ------
    UnknownNameError
        One of ``blocks`` is not a development block with rows.
    InputError
        No models, no development blocks, or not one row that every model predicts.
    """
    chosen = _chosen(source, blocks)
    _check(source, chosen, k)
    made = _parts(_Asked(source, references, chosen, k=k, memory=memory, workers=workers, cache=cache))
    parts = {}
    for block, part in made:
        parts[block] = part
        if on_block is not None:
            on_block(block)
    parts = {b: parts[b] for b in chosen}
    findings = _findings(source, parts)
    if not any(p.complete.any() for p in parts.values()):
        raise InputError(
            f"There is not one row that all models ({first_few(source.models)}) predicted without having seen it, so "
            f"nothing can be learned from them together. {findings[0].message}"
        )
    tables = {b: block_samples(source, b) for b in parts}
    return Reduction(
        tuple(source.models), np.asarray(source.gene_names), parts, tables=tables, findings=tuple(findings)
    )


def keep_parts(
    source: BlockSource, references: References, blocks: Iterable[Block], *, cache: Path, memory: int = 10**9
) -> None:
    """Leave the parts of some blocks in the cache, for a later ``reduce_blocks`` that looks them up: one share of the
    work of several processes or hosts. Errors as there, but for blocks without a whole row.

    Parameters
    ----------
    source, references, blocks, memory : as for ``reduce_blocks``.
    cache : the folder that all of them write to.
    """
    chosen = _chosen(source, blocks)
    _check(source, chosen, K)
    for _ in _parts(_Asked(source, references, chosen, k=K, memory=memory, workers=1, cache=cache)):
        pass


@dataclass(frozen=True)
class _Asked:
    """What parts are made of, and how."""

    source: BlockSource
    references: References
    blocks: list[Block]
    k: int
    memory: int
    workers: int
    cache: Path | None


def _parts(asked: _Asked) -> Iterator[tuple[Block, BlockPart]]:
    """The part of every block: those that lie in the cache first, then those that are made."""
    source, references, cache, k = asked.source, asked.references, asked.cache, asked.k
    folders = {b: cache / _part_key(source, references, b, k) for b in asked.blocks} if cache is not None else {}
    found = {b: load_part(folder) for b, folder in folders.items()}
    yield from ((b, part) for b, part in found.items() if part is not None)
    new = [b for b in asked.blocks if found.get(b) is None]
    if not new:
        return
    tiles = _Tiles(source, references, new, k=k, memory=asked.memory, scratch=cache)
    for block, sums in _sum_blocks(tiles, asked.workers):
        part = sums.finish()
        if block in folders:
            save_part(folders[block], part, {"block": block.id, "models": list(source.models), "k": k})
            part = load_part(folders[block]) or part
        yield block, part


def gene_moments(
    source: BlockSource,
    references: References,
    *,
    memory: int = 10**9,
    workers: int = 1,
    blocks: Iterable[Block] | None = None,
) -> dict[Block, GeneMoments]:
    """Gene moments of each development block and nothing else, in one streamed read, with the bits of
    ``reduce_blocks``.

    They are all that squared-error weights need (ridge, simplex, empirical Bayes, global or per gene), for about half
    the work: no products per sample, no slices, no files. Rows that count and errors as there; a block without a row
    that every model predicts has count zero.

    Parameters
    ----------
    source, references, memory, workers, blocks : as in ``reduce_blocks``.
    """
    chosen = _chosen(source, blocks)
    _check(source, chosen, k=2)
    tiles = _Tiles(source, references, chosen, k=2, memory=memory, scratch=None, only_genes=True)
    return {block: sums.gene_moments() for block, sums in _sum_blocks(tiles, workers)}


def _chosen(source: BlockSource, blocks: Iterable[Block] | None) -> list[Block]:
    """Development blocks with rows, in plan order; only those asked for."""
    chosen = sorted(b for b in source.blocks() if b.role == "development" and len(source.obs(b)))
    if blocks is None:
        return chosen
    wanted = set(blocks)
    for block in wanted.difference(chosen):
        raise unknown_name("development block", block.id, (b.id for b in chosen))
    return [b for b in chosen if b in wanted]


def _part_key(source: BlockSource, references: References, block: Block, k: int) -> str:
    """Digest of everything a block's part depends on: layers, models in order, what is usable, references, k."""
    models = [
        [
            m,
            source.layer_digest(block, m),
            digest_array(source.sound(block, m)),
            digest_array(source.genes_of(block, m)),
        ]
        for m in source.models
    ]
    truth = [source.layer_digest(block, layer) for layer in ("treated", "control")]
    pooled, centroid = references.pooled(block.cell_line), references.centroid(block.cell_line, block.fold)
    profiles = [digest_array(pooled), digest_array(centroid)]
    genes = digest_names(map(str, source.gene_names))
    return digest_json([FORMAT, block.id, k, len(source.obs(block)), genes, truth, models, profiles])


def _sum_blocks(tiles: _Tiles, workers: int) -> Iterator[tuple[Block, BlockSums]]:
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


class _Tiles:
    """Two tiles that are filled in turn, made when first needed and kept from block to block: fresh memory is slow."""

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


def _check(source: BlockSource, blocks: list[Block], k: int) -> None:
    if not source.models:
        raise InputError("There are no models to reduce. Fit or add at least one base model.")
    if not blocks:
        raise InputError("There is no development block with rows to reduce. Provide a source with development rows.")
    if k < 2:
        raise InputError(f"k is {k}; slices need at least 2 top genes for a correlation. 80 is the default.")


def _findings(source: BlockSource, parts: dict[Block, BlockPart]) -> list[Finding]:
    found = []
    for block, part in parts.items():
        left = np.flatnonzero(~part.complete)
        if len(left):
            by_model = {
                m: int((~part.usable[:, j]).sum()) for j, m in enumerate(source.models) if not part.usable[:, j].all()
            }
            ids = [str(s) for s in source.obs(block).index[left[:10]]]
            message = (
                f"Block {block}: {len(left):,} of {len(part.usable):,} rows are left out of what squared-error "
                f"combiners learn from, because not every model predicted them unseen (missing by model: {by_model}). "
                "Predict these rows, or leave these models out, to win them back."
            )
            numbers = {"rows": len(part.usable), "left_out": len(left), "by_model": by_model}
            found.append(
                Finding(
                    "warning",
                    "rows_left_out",
                    message,
                    count=len(left),
                    examples=tuple(ids),
                    where=block.id,
                    numbers=numbers,
                )
            )
        for j, m in enumerate(source.models):
            lacking = int((~source.genes_of(block, m)).sum())
            if lacking and part.usable[:, j].any():
                text = f"Block {block}: model {m!r} lacks {lacking:,} genes; it takes part on the others only."
                found.append(
                    Finding(
                        "warning",
                        "genes_lacking",
                        text,
                        count=lacking,
                        examples=(),
                        where=block.id,
                        numbers={"model": m, "column": j},
                    )
                )
    unread = [b.id for b in sorted(source.blocks()) if b.role == "test"]
    if unread:
        text = f"{len(unread)} blocks of the held-out test were left unread: nothing is learned from them."
        found.append(Finding("note", "test_blocks_unread", text, count=len(unread), examples=tuple(unread[:10])))
    return found
