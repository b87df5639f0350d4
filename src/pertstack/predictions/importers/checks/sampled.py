"""A few hundred predicted rows, spread evenly over the files, with the measured rows they belong to: what the checks
look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.importers.readers.files import NamedChunk
from pertstack.predictions.sources.some_rows import read_at
from pertstack.predictions.store.align import Take
from pertstack.predictions.store.reader import StoreReader

SAMPLED_ROWS = 400
SAMPLED_GENES = 2000
RUNS = 8
_AT_ONCE = 64  # measured rows that are held whole before their genes are taken


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample is in the store."""

    block: Block
    row: int


@dataclass(frozen=True)
class Sampled:
    """Some predicted rows and genes as given, with the names of the rows."""

    ids: tuple[str, ...]
    positions: tuple[int, ...]  # among all rows of all files
    genes: Take  # positions in the store's gene list of the columns kept
    values: Float32  # (m, len(genes))


class Sampler:
    """Keeps some rows and every so-many-th gene while chunks pass by; ``predicted`` are the store's genes in the files.

    Of few rows all; of many, half spread evenly and half in ``RUNS`` stretches, in which exchanged rows can be seen.
    """

    def __init__(self, n_rows: int, predicted: Take, most: int = SAMPLED_ROWS) -> None:
        spread = np.linspace(0, n_rows - 1, min(most if n_rows <= most else most // 2, n_rows)).round().astype(int)
        length = most // (2 * RUNS)
        starts = np.linspace(0, n_rows - length, RUNS).round().astype(int) if n_rows > most else np.empty(0, int)
        self._wanted = {*spread.tolist(), *(int(s) + i for s in starts for i in range(length))}
        kept = np.linspace(0, len(predicted) - 1, min(SAMPLED_GENES, len(predicted))).round().astype(np.intp)
        self._genes: Take = predicted[kept]
        self._seen = 0
        self._kept: list[tuple[str, int, Float32]] = []

    def see(self, chunk: NamedChunk, columns: Take | None) -> None:
        """Look at the next chunk; ``columns`` maps the store's genes to the file's (-1: not predicted)."""
        there = self._genes if columns is None else columns[self._genes]
        for i, name in enumerate(chunk.sample_ids):
            if self._seen + i in self._wanted:
                self._kept.append((name, self._seen + i, np.array(chunk.values[i][there], dtype=np.float32)))
        self._seen += len(chunk.sample_ids)

    def done(self) -> Sampled:
        values = [row for _, _, row in self._kept]
        return Sampled(
            tuple(name for name, _, _ in self._kept),
            tuple(at for _, at, _ in self._kept),
            self._genes,
            np.stack(values) if values else np.empty((0, len(self._genes)), np.float32),
        )


def measured_rows(
    store: StoreReader, layer: str, places: Sequence[Place | None], *, genes: Take | None = None
) -> Float32:
    """Rows of a measured layer, (len(places), n genes) float32; NaN if there is no place or the layer is not
    committed.

    Parameters
    ----------
    store : of the study.
    layer : "control" or "treated".
    places : block and row; None for no place.
    genes : positions of genes; None for all.
    """
    out = np.full((len(places), store.facts.n_genes if genes is None else len(genes)), np.nan, np.float32)
    where: dict[Block, list[tuple[int, int]]] = {}
    for i, place in enumerate(places):
        if place is not None:
            where.setdefault(place.block, []).append((place.row, i))
    for block, found in where.items():
        if store.status(block, layer) == "committed":
            rows, at = np.array(sorted(found)).T
            for first in range(0, len(rows), _AT_ONCE):
                piece = slice(first, first + _AT_ONCE)
                read = read_at(store, block, layer, rows=rows[piece])
                out[at[piece]] = read if genes is None else read[:, genes]
    return out
