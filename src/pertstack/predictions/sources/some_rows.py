"""Some rows of a source: a sample of a study, for numbers that need not look at every row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_array, digest_json
from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource, Mask
from pertstack.predictions.sources.embedding import EmbeddingSource, RowEmbeddings

Rows = np.ndarray[Any, np.dtype[np.int64]]


class Reads(Protocol):
    """A source, or a store."""

    @property
    def gene_names(self) -> Names: ...

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32: ...


def spread_rows(source: BlockSource, most: int) -> dict[Block, Rows]:
    """About ``most`` rows, the same share of every block and evenly spread in it; all rows if there are no more."""
    lengths = {block: len(source.obs(block)) for block in source.blocks()}
    share = min(1.0, most / max(sum(lengths.values()), 1))
    count = {block: int(np.ceil(share * n)) for block, n in lengths.items()}
    return {b: ((np.arange(count[b]) + 0.5) * n / max(count[b], 1)).astype(np.int64) for b, n in lengths.items()}


def some_groups(source: BlockSource, most: int, *, seed: int) -> BlockSource:
    """The source with about ``most`` rows, of whole groups drawn at random; the source itself if it has no more.

    Parameters
    ----------
    source : with a column ``group`` in ``obs``.
    most : rows; one group is taken even if it has more.
    seed : of the draw.
    """
    blocks = list(source.blocks())
    groups = {block: source.obs(block)["group"].astype(str).to_numpy() for block in blocks}
    names, size = np.unique(np.concatenate([np.zeros(0, str), *groups.values()]), return_counts=True)
    if size.sum() <= most:
        return source
    order = np.random.default_rng([seed, 11]).permutation(len(names))
    kept = names[order[: max(1, int((np.cumsum(size[order]) <= most).sum()))]]
    return SomeRows(source, {block: np.flatnonzero(np.isin(groups[block], kept)) for block in blocks})


def read_at(source: Reads, block: Block, layer: str, *, rows: Rows, out: Float32 | None = None) -> Float32:
    """Rows of a layer at given positions, (len(rows), n_genes); nothing between them is read.

    Parameters
    ----------
    source : to read from.
    block : of the source.
    layer : a model, "control", "treated" or "effect".
    rows : positions in the block, ascending.
    out : float32 array to fill; None makes one.
    """
    out = np.empty((len(rows), len(source.gene_names)), dtype=np.float32) if out is None else out
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    for first, last in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        if last > first:
            into = out[first:last]
            got = source.read(block, layer, start=int(rows[first]), stop=int(rows[last - 1]) + 1, out=into)
            if got is not into:
                into[...] = got
    return out


class SomeRows:
    """A ``BlockSource`` that shows only some rows of another, by their ascending positions in each block."""

    def __init__(self, source: BlockSource, rows: Mapping[Block, Rows]) -> None:
        self.source, self.rows = source, {b: r for b, r in rows.items() if len(r)}

    @classmethod
    def of_blocks(cls, source: BlockSource, blocks: Iterable[Block]) -> SomeRows:
        """All rows of some blocks, such as those that an evidence may see."""
        return cls(source, {b: np.arange(len(source.obs(b))) for b in blocks})

    @property
    def gene_names(self) -> Names:
        return self.source.gene_names

    @property
    def models(self) -> tuple[str, ...]:
        return self.source.models

    def blocks(self) -> list[Block]:
        return [b for b in self.source.blocks() if b in self.rows]

    def obs(self, block: Block) -> pd.DataFrame:
        return self.source.obs(block).iloc[self.rows[block]]

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        return read_at(self.source, block, layer, rows=self.rows[block][start:stop], out=out)

    def sound(self, block: Block, model: str) -> Mask:
        return self.source.sound(block, model)[self.rows[block]]

    def genes_of(self, block: Block, model: str) -> Mask:
        return self.source.genes_of(block, model)

    def embedding(self, block: Block, model: str, *, start: int, stop: int) -> RowEmbeddings | None:
        rows = self.rows[block][start:stop]
        if not isinstance(self.source, EmbeddingSource) or not len(rows):
            return None
        found = self.source.embedding(block, model, start=int(rows[0]), stop=int(rows[-1]) + 1)
        return None if found is None else replace(found, values=found.values[rows - rows[0]])

    def layer_digest(self, block: Block, layer: str) -> str:
        return digest_json([self.source.layer_digest(block, layer), digest_array(self.rows[block])])
