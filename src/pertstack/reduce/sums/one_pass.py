"""The one pass: every block of a source is read once, in tiles sized by the memory budget, and leaves moments and
slices.

While threads work on one tile the next is read. What was reduced before is a look-up by digest: a new block costs
reading that block alone. A new model costs reading its blocks again, all models of them, because its products with
the others are new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pertstack._base.digests import digest_array, digest_json, digest_names
from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import block_samples
from pertstack.reduce.references import References
from pertstack.reduce.sums.block_sums import BlockPart
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.reduce.sums.part_files import FORMAT, load_part, save_part
from pertstack.reduce.sums.reduction import Reduction
from pertstack.reduce.sums.sum_tiles import Tiles, sum_blocks

K = 80


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
        tuple(source.models),
        np.asarray(source.gene_names),
        parts,
        tables=tables,
        findings=tuple(findings),
        scratch=cache,
    )


def make_parts(
    source: BlockSource,
    references: References,
    blocks: Iterable[Block],
    *,
    cache: Path | None = None,
    memory: int = 10**9,
) -> dict[Block, BlockPart]:
    """The parts of some blocks: one share of the work of several processes or hosts. Errors as for ``reduce_blocks``,
    but for blocks without a whole row.

    Parameters
    ----------
    source, references, blocks, memory : as for ``reduce_blocks``.
    cache : the folder that all of them write to, for a later ``reduce_blocks`` that looks them up; None if whoever
        asked leaves them there with ``keep_part``.
    """
    chosen = _chosen(source, blocks)
    _check(source, chosen, K)
    return dict(_parts(_Asked(source, references, chosen, k=K, memory=memory, workers=1, cache=cache)))


def keep_part(source: BlockSource, references: References, block: Block, *, part: BlockPart, cache: Path) -> None:
    """Leave a part that ``make_parts`` made elsewhere in a cache, where ``reduce_blocks`` looks it up.

    Parameters
    ----------
    source, references, block : that it was made of.
    part : the sums.
    cache : the folder.
    """
    _keep(cache / _part_key(source, references, block, K), source, block, k=K, part=part)


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
    tiles = Tiles(source, references, new, k=k, memory=asked.memory, scratch=cache)
    for block, sums in sum_blocks(tiles, asked.workers):
        part = sums.finish()
        if block in folders:
            _keep(folders[block], source, block, k=k, part=part)
            part = load_part(folders[block]) or part
        yield block, part


def _keep(folder: Path, source: BlockSource, block: Block, *, k: int, part: BlockPart) -> None:
    save_part(folder, part, {"block": block.id, "models": list(source.models), "k": k})


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
    tiles = Tiles(source, references, chosen, k=2, memory=memory, scratch=None, only_genes=True)
    return {block: sums.gene_moments() for block, sums in sum_blocks(tiles, workers)}


def _chosen(source: BlockSource, blocks: Iterable[Block] | None) -> list[Block]:
    """Development blocks with rows, in plan order; only those asked for."""
    there, wanted = source.blocks(), None if blocks is None else set(blocks)
    asked = there if wanted is None else [b for b in there if b in wanted]  # tables of the others are not read
    chosen = sorted(b for b in asked if b.role == "development" and len(source.obs(b)))
    for block in (wanted or set()).difference(chosen):
        raise unknown_name("development block", block.id, (b.id for b in there if b.role == "development"))
    return chosen


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
