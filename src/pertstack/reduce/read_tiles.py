"""Tiles from a source: rows with every model's prediction side by side, NaN where a model must not be used.

``read_cuts`` is the one loop over rows that scoring, row-wise combiners and prediction share. The sums of
``one_pass.py`` read for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd

from pertstack._base.machine.memory import rows_per_tile
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource, ReadsAhead
from pertstack.predictions.sources.embedding import EmbeddingSource, RowEmbeddings
from pertstack.predictions.sources.some_rows import Rows, SomeRows
from pertstack.reduce.references import References
from pertstack.reduce.tile import Tile

Cut = tuple[Block, Rows]
"""A tile to be read: ascending rows of a block."""
SAMPLE_COLUMNS = ("sample_id", "block", "cell_line", "fold", "perturbation", "group")


def ordered_blocks(source: BlockSource) -> list[Block]:
    """The source's blocks in plan order: development by fold, then test; by cell line, then segment."""
    return sorted(source.blocks())


def block_samples(source: BlockSource, block: Block) -> pd.DataFrame:
    """Rows of one block: sample_id, block (its id), cell_line, fold (<NA> for test), perturbation, group."""
    obs = source.obs(block)
    columns = {
        "sample_id": np.asarray(obs.index, dtype=object),
        "block": block.id,
        "cell_line": block.cell_line,
        "fold": pd.array([block.fold] * len(obs), dtype="Int64"),
        "perturbation": np.asarray(obs["perturbation"], dtype=object),
        "group": np.asarray(obs["group" if "group" in obs else "perturbation"], dtype=object),
    }
    return pd.DataFrame(columns)


def samples_of(source: BlockSource) -> pd.DataFrame:
    """All rows of a source in plan order, columns as in ``block_samples``."""
    parts = [block_samples(source, block) for block in ordered_blocks(source)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(SAMPLE_COLUMNS))


def read_tile(source: BlockSource, references: References, block: Block, *, start: int, stop: int) -> Tile:
    """Some rows of a block with all predictions. A model's row is NaN where it is not sound, its genes where it has
    none.

    Parameters
    ----------
    source : to read from.
    references : give the pooled control.
    block : of the source.
    start, stop : rows [start, stop), in plan order.
    """
    models, n_genes = tuple(source.models), len(source.gene_names)
    predictions = np.empty((len(models), stop - start, n_genes), dtype=np.float32)
    available = np.zeros((len(models), stop - start), dtype=bool)
    genes = np.zeros((len(models), n_genes), dtype=bool)
    for m, model in enumerate(models):
        available[m] = source.sound(block, model)[start:stop]
        genes[m] = source.genes_of(block, model)
        if available[m].any():
            into = predictions[m]
            got = source.read(block, model, start=start, stop=stop, out=into)
            if got is not into:
                into[...] = got
        predictions[m][~available[m]] = np.nan
        if not genes[m].all():
            predictions[m][:, ~genes[m]] = np.nan
    embed = partial(_embedding, source, block, start, stop) if isinstance(source, EmbeddingSource) else None
    return Tile(
        block,
        models,
        source.gene_names,
        obs=source.obs(block).iloc[start:stop],
        predictions=predictions,
        control=np.asarray(source.read(block, "control", start=start, stop=stop)),
        pooled=references.pooled(block.cell_line).astype(np.float32),
        available=available,
        gene_available=genes,
        embed=embed,
    )


def _embedding(source: EmbeddingSource, block: Block, start: int, stop: int, model: str) -> RowEmbeddings | None:
    return source.embedding(block, model, start=start, stop=stop)


def announce(source: BlockSource, block: Block, *, start: int, stop: int) -> None:
    """Ask a source that can read ahead for every layer of some rows, in the order they are read.

    Parameters
    ----------
    source : without read-ahead nothing happens.
    block : of the source.
    start, stop : rows [start, stop).
    """
    if isinstance(source, ReadsAhead):
        for layer in (*source.models, "control", "treated"):
            source.prefetch(block, layer, start=start, stop=stop)


def iter_tiles(
    source: BlockSource,
    references: References,
    memory: int = 10**9,
    *,
    extra_layers: int = 4,
    blocks: Sequence[Block] | None = None,
) -> Iterator[tuple[Tile, Float32]]:
    """Tiles in plan order with their treated profiles (n, n_genes).

    Parameters
    ----------
    source : to read from.
    references : give the pooled control.
    memory : bytes, half of which go to one tile.
    extra_layers : arrays of a tile's size that the caller makes of it.
    blocks : some blocks, in the order given; None for all.
    """
    most = rows_at_once(source, memory, extra_layers)
    return read_cuts(source, references, equal_cuts(source, most, blocks))


def rows_at_once(source: BlockSource, memory: int, extra_layers: int) -> int:
    """Rows of a tile that half of the memory holds, with the arrays that are made of it.

    Parameters
    ----------
    source, memory, extra_layers : as in ``iter_tiles``.
    """
    return rows_per_tile(len(source.gene_names), len(source.models) + 2 + extra_layers, memory // 2)


def equal_cuts(source: BlockSource, most: int, blocks: Sequence[Block] | None = None) -> list[Cut]:
    """Blocks cut into tiles, one after the other.

    Parameters
    ----------
    source : whose rows.
    most : rows of a tile.
    blocks : some blocks, in the order given; None for all.
    """
    lengths = [(block, len(source.obs(block))) for block in (ordered_blocks(source) if blocks is None else blocks)]
    return [(block, np.arange(a, min(n, a + most))) for block, n in lengths for a in range(0, n, most)]


def read_cuts(source: BlockSource, references: References, cuts: Sequence[Cut]) -> Iterator[tuple[Tile, Float32]]:
    """A tile of each cut, with its treated profiles (n, n_genes).

    Parameters
    ----------
    source, references : as in ``iter_tiles``.
    cuts : in the order in which they are read.
    """
    for turn, (block, rows) in enumerate(cuts):
        for soon, next_rows in cuts[turn : turn + 2] if turn == 0 else cuts[turn + 1 : turn + 2]:
            if _in_a_row(next_rows):
                announce(source, soon, start=int(next_rows[0]), stop=int(next_rows[-1]) + 1)
        at_once = _in_a_row(rows)
        from_, start = (source, int(rows[0])) if at_once else (SomeRows(source, {block: rows}), 0)
        stop = start + len(rows)
        tile = read_tile(from_, references, block, start=start, stop=stop)
        yield tile, np.asarray(from_.read(block, "treated", start=start, stop=stop))


def _in_a_row(rows: Rows) -> bool:
    return bool(rows[-1] - rows[0] + 1 == len(rows))
