"""Every value of the files, once: a few rows at a time, to the writer of its block, and a few into a sample to check.

Names were matched before (``by_name.py``); nothing becomes visible here, for the writers only stage.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pertstack._base.machine.progress import progress_bar
from pertstack.design.blocks import Block
from pertstack.predictions.importers.by_name import Missing
from pertstack.predictions.importers.checks.sampled import Place, Sampled, Sampler, measured_rows
from pertstack.predictions.importers.checks.scale import Scale
from pertstack.predictions.importers.readers.files import NamedChunk, PredictionFile
from pertstack.predictions.store.align import Take, match
from pertstack.predictions.store.store import PredictionStore
from pertstack.predictions.store.writer import RowWriter


def stream_into(
    store: PredictionStore,
    files: list[PredictionFile],
    places: Mapping[str, Place],
    *,
    own_genes: list[str],
    missing_genes: list[str],
    writers: Mapping[Block, RowWriter],
    scale: Scale,
    missing: Missing,
    n_rows: int | None,
) -> tuple[Sampled, dict[Block, list[str]]]:
    """Every value, once: into the writers, and a few into the sample that is checked. Also the samples of each block
    whose rows are empty.

    Parameters
    ----------
    store : of the study.
    files : of one model.
    places : sample -> block and row.
    own_genes : genes of the study.
    missing_genes : that no file predicts.
    writers : one per covered block.
    scale : of the files; "delta" has the control added.
    missing : "record" takes whole rows of NaN for samples not predicted.
    n_rows : of a chunk; None for as many as ``CHUNK_BYTES`` hold.
    """
    gaps = set(missing_genes)
    predicted = np.flatnonzero([g not in gaps for g in own_genes])
    sampler = Sampler(sum(len(f.sample_ids) for f in files), predicted)
    empty: dict[Block, list[str]] = {}
    for file in files:
        columns = match("gene", file.gene_names, own_genes, missing=missing_genes, where=str(file.path))
        with progress_bar() as bar:
            task = bar.add_task(f"Reading {file.path.name}", total=len(file.sample_ids))
            for chunk in file.chunks(n_rows):
                bar.advance(task, len(chunk.sample_ids))
                if missing == "record":
                    chunk = _without_empty(chunk, places, writers, empty)
                sampler.see(chunk, columns)
                _place_chunk(store, chunk, columns, places=places, writers=writers, scale=scale)
    return sampler.done(), empty


def _without_empty(
    chunk: NamedChunk, places: Mapping[str, Place], writers: Mapping[Block, RowWriter], empty: dict[Block, list[str]]
) -> NamedChunk:
    """Rows that are NaN throughout were not predicted; if that may be recorded, it is."""
    nothing = np.isnan(chunk.values).all(axis=1)
    if not nothing.any():
        return chunk
    for i in np.flatnonzero(nothing):
        name = chunk.sample_ids[i]
        writers[places[name].block].announce_missing([name])
        empty.setdefault(places[name].block, []).append(name)
    kept = np.flatnonzero(~nothing)
    ids = [chunk.sample_ids[i] for i in kept]
    return NamedChunk(chunk.path, chunk.start, ids, gene_names=chunk.gene_names, values=chunk.values[kept])


def _place_chunk(
    store: PredictionStore,
    chunk: NamedChunk,
    columns: Take | None,
    *,
    places: Mapping[str, Place],
    writers: Mapping[Block, RowWriter],
    scale: Scale,
) -> None:
    """Rows of a chunk to their blocks, predicted genes in the store's order, in the treated scale."""
    genes = None if columns is None else np.flatnonzero(columns >= 0)
    by_block: dict[Block, list[int]] = {}
    for i, name in enumerate(chunk.sample_ids):
        by_block.setdefault(places[name].block, []).append(i)
    for block, rows in by_block.items():
        names = [chunk.sample_ids[i] for i in rows]
        values = chunk.values if len(rows) == len(chunk.sample_ids) else chunk.values[rows]
        if columns is not None:
            values = np.take(values, columns[genes], axis=1)
        if scale == "delta":
            values = values + measured_rows(store, "control", [places[n] for n in names], genes=genes)
        writers[block].append(values, names)
