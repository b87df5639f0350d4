"""Tiles from a source: rows with every model's prediction side by side, NaN where a model must not be used.

``iter_tiles`` is the one loop over rows that scoring, row-wise combiners and prediction share. The sums of
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
from pertstack.reduce.references import References
from pertstack.reduce.tile import Tile

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
    n_layers = len(source.models) + 2 + extra_layers
    most = rows_per_tile(len(source.gene_names), n_layers, memory // 2)
    chosen = ordered_blocks(source) if blocks is None else blocks
    lengths = [(block, len(source.obs(block))) for block in chosen]
    spans = [(block, a, min(n, a + most)) for block, n in lengths for a in range(0, n, most)]
    for turn, (block, start, stop) in enumerate(spans):
        for soon, first, last in spans[turn : turn + 2] if turn == 0 else spans[turn + 1 : turn + 2]:
            announce(source, soon, start=first, stop=last)
        tile = read_tile(source, references, block, start=start, stop=stop)
        yield tile, np.asarray(source.read(block, "treated", start=start, stop=stop))
