"""The door for predictions made elsewhere: read, match by name, check scale and alignment, commit block by block.

Values pass once, a few rows at a time, into staged files (``streaming.py``); only when every check has passed does
anything become visible. What came in is reported by ``add_report.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, IntegrityError, MisalignedError
from pertstack._base.findings import Finding
from pertstack._base.machine.progress import track
from pertstack.data import Card
from pertstack.data.choices import Normalise
from pertstack.design.blocks import Block
from pertstack.predictions.importers.add_report import AddReport, report_on
from pertstack.predictions.importers.by_key import KeyMatch, by_id_or_key
from pertstack.predictions.importers.by_name import (
    Missing,
    check_folds,
    check_names,
    genes_not_predicted,
    samples_not_predicted,
)
from pertstack.predictions.importers.cards import mapped_file, named_transform
from pertstack.predictions.importers.checks.meaning import check_meaning
from pertstack.predictions.importers.checks.sampled import Place, Sampled, measured_rows
from pertstack.predictions.importers.checks.scale import Scale, refuse_the_truth
from pertstack.predictions.importers.checks.shift import check_shift
from pertstack.predictions.importers.fitted import FittedOnBlocks, Kin
from pertstack.predictions.importers.key_findings import of_several
from pertstack.predictions.importers.readers.files import PredictionFile
from pertstack.predictions.importers.readers.gene_lists import positional, with_genes
from pertstack.predictions.importers.readers.merge import Marks, is_merge_file, open_merge_predictions
from pertstack.predictions.importers.readers.opening import as_paths, open_file, refuse_repeats
from pertstack.predictions.importers.records import cards_of, file_meta, refuse_straddling, slots_in_words
from pertstack.predictions.importers.streaming import stream_into
from pertstack.predictions.store.files.names import encode_name, nested_name, refuse_kept_name
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.store import PredictionStore


def add_predictions(
    store: PredictionStore,
    name: str,
    paths: str | Path | Iterable[str | Path],
    *,
    fitted_on: Any,
    scale: Scale,
    missing: Missing = "refuse",
    marks: Marks | None = None,
    layer: str | None = None,
    meta: Mapping[str, Any] | None = None,
    n_rows: int | None = None,
    own_card: Card | None = None,
    card: Mapping[str, Any] | None = None,
    transform: str | None = None,
    without: int | None = None,
    samples: pd.DataFrame | None = None,
    columns: Mapping[str, str] | None = None,
    genes: Path | None = None,
    other_names: Mapping[str, str] | None = None,
    space: Normalise | None = None,
    kin: Kin | None = None,
) -> AddReport:
    """Admit one model's predictions into a store.

    Parameters
    ----------
    store
        Of the study; it holds the measured rows.
    name
        Of the model.
    paths
        One file or several (one per fold or cell line): .h5ad, .zarr, .npz, .parquet, .csv, .tsv, .arrow, .feather.
    fitted_on
        What the model was fitted on: a fold plan (or its digest, or 'plan'), a list of ids, a table fold -> ids,
        'unknown'.
    scale
        'treated', or 'delta' (the stored control is added).
    missing
        'refuse' rows and genes that a covered block lacks, or 'record' them as not predicted.
    marks
        Gives the fingerprints of all rows of the study, by which MERGE-style rows without ids are recognised; without
        it those of the test are not. Asked only for such files.
    layer
        AnnData: where the predictions are; None to find them.
    meta
        Plain JSON, kept in the records.
    n_rows
        Rows read at once; None for as many as ``files.CHUNK_BYTES`` hold.
    own_card, card
        The study's preprocessing card, with which the files' cards must agree (None: they are not looked at), and a
        card for all files, if they carry none themselves (in the file, or as ``<file>.card.json``).
    transform
        A named map of the values as given to the study's scale; see ``cards.named_transform``.
    without
        The files hold nested predictions: of every fold but this one, by fits that left out both that row's fold and
        this one (docs/howto/nested-predictions.md). ``fitted_on`` must be the plan.
    genes
        A list of gene names for files whose columns have none.
    other_names
        Second name of a gene -> its name in the study.
    space
        How the samples of the study were made of cells, if they were: predicted cells are averaged likewise.
    kin
        Which rows of a block are of one group with a listed fit row: they count as seen.
    samples, columns
        The study's sample table, and which columns of the files say what: rows whose ids are no samples of the study
        are then matched by what was done (``by_key.py``).

    Raises
    ------
    MisalignedError, IntegrityError, InputError, ConflictError, StorageError
        Nothing was committed (a conflict is looked for in every block before the first one is published).
    """
    _check_options(name, scale, missing)
    own_genes = [str(g) for g in store.gene_names]
    mapping = None if transform is None else named_transform(transform, scale)
    files = _open(paths, store, marks, {"layer": layer, "told": set((columns or {}).values())})
    said = cards_of(files, own_card, card, scale=scale, mapping=mapping, name=name)
    if mapping is not None:
        files = [mapped_file(f, mapping) for f in files]
    places = {s: Place(b, i) for b in store.blocks() for i, s in enumerate(store.sample_ids(b))}
    known = None if samples is None else samples[samples.index.isin(list(places))]
    named = [with_genes(f, own_genes, genes, other=other_names) for f in files]
    options = {"space": space, "own_genes": own_genes, "differences": scale == "delta"}
    files, matches = _matched([f for f, _ in named], known, columns, options)
    said += [*(f for _, told in named for f in told), *_of_matches(matches, name)]
    check_names(files, places)
    missing_genes = genes_not_predicted(files, own_genes, missing)
    fitted = FittedOnBlocks(fitted_on, store, kin)
    check_folds(files, places, fitted)
    refuse_straddling(matches, places, fitted)
    if without is not None:
        fitted = fitted.without(without, places, [s for f in files for s in f.sample_ids])
        name = nested_name(name, without)
    given = {} if transform is None else {"transform": transform}
    coming = _Coming(
        name,
        files,
        scale,
        missing,
        places=places,
        own_genes=own_genes,
        missing_genes=missing_genes,
        fitted=fitted,
        facts={**file_meta(files), "scale": scale, **given, **dict(meta or {})},
        by_position=positional(own_genes) or any(f.code == "genes_by_list" for _, told in named for f in told),
    )
    records, gone, findings = _committed(store, coming, n_rows)
    return report_on(store, name, records, gone=gone, missing_genes=missing_genes, findings=[*said, *findings])


@dataclass(frozen=True)
class _Coming:
    """What comes in, once it is known which rows and genes of the study it speaks of."""

    name: str
    files: list[PredictionFile]
    scale: Scale
    missing: Missing
    places: dict[str, Place]  # of every sample of the study
    own_genes: list[str]
    missing_genes: list[str]
    fitted: FittedOnBlocks
    facts: dict[str, Any]  # kept in the records
    by_position: bool  # columns got their names by their place

    @property
    def ids(self) -> list[str]:
        """Predicted samples, file by file."""
        return [s for f in self.files for s in f.sample_ids]

    @property
    def blocks(self) -> list[Block]:
        """Blocks that hold a predicted sample."""
        return sorted({self.places[s].block for s in self.ids})


def _committed(
    store: PredictionStore, coming: _Coming, n_rows: int | None
) -> tuple[tuple[Record, ...], dict[Block, tuple[str, ...]], list[Finding]]:
    """Values are staged, judged, and published in all blocks or none: records, samples not predicted, findings."""
    blocks = coming.blocks
    gone = samples_not_predicted(store, coming.files, blocks, missing=coming.missing)
    gaps = set(coming.missing_genes)
    predicted_genes = [g for g in coming.own_genes if g not in gaps]
    with ExitStack() as stack:
        writers = {
            block: stack.enter_context(
                store.writer(
                    block,
                    coming.name,
                    gene_names=predicted_genes,
                    fitted_on=coming.fitted.of(block),
                    meta=coming.facts,
                    missing_samples=gone.get(block, ()),
                    missing_genes=coming.missing_genes,
                )
            )
            for block in blocks
        }
        sampled, empty = stream_into(
            store,
            coming.files,
            coming.places,
            own_genes=coming.own_genes,
            missing_genes=coming.missing_genes,
            writers=writers,
            scale=coming.scale,
            missing=coming.missing,
            n_rows=n_rows,
        )
        findings = _judge(store, sampled, coming)
        for writer in track(writers.values(), f"Checking {coming.name}", len(writers)):
            writer.prepare()
        records = tuple(writers[b].commit() for b in track(blocks, f"Committing {coming.name}", len(blocks)))
    for block, names in empty.items():
        gone[block] = (*gone.get(block, ()), *names)
    return records, gone, findings


def _check_options(name: str, scale: str, missing: str) -> None:
    encode_name(name)
    refuse_kept_name(name)
    if scale not in ("treated", "delta"):
        raise InputError(
            f"scale={scale!r} is not known. Say 'treated' (what is measured) or 'delta' (treated - control)."
        )
    if missing not in ("refuse", "record"):
        raise InputError(f"missing={missing!r} is not known. Say 'refuse' or 'record'.")


def _open(
    paths: str | Path | Iterable[str | Path], store: PredictionStore, marks: Marks | None, reading: Mapping[str, Any]
) -> list[PredictionFile]:
    files = []
    for path in as_paths(paths):
        if path.name.casefold().endswith(".npz") and is_merge_file(path):
            files.append(open_merge_predictions(path, store, marks))
        else:
            files.append(open_file(path, **reading))
    return files


def _matched(
    files: list[PredictionFile],
    samples: pd.DataFrame | None,
    columns: Mapping[str, str] | None,
    options: Mapping[str, Any],
) -> tuple[list[PredictionFile], list[KeyMatch]]:
    """Files with the study's sample ids; rows that go by another name are matched by what was done."""
    found = [None if samples is None else by_id_or_key(f, samples, columns, **options) for f in files]
    files = [f if m is None else m.file for f, m in zip(files, found, strict=True)]
    refuse_repeats(files)
    return files, [m for m in found if m is not None]


def _of_matches(matches: list[KeyMatch], name: str) -> list[Finding]:
    return [replace(f, where=name) for f in of_several([m.findings for m in matches], [m.missing for m in matches])]


def _judge(store: PredictionStore, sampled: Sampled, coming: _Coming) -> list[Finding]:
    """Scale, alignment and, if columns got their names by position, their order; an error ends the addition before
    anything is visible."""
    places, scale, name = coming.places, coming.scale, coming.name
    development = [i for i, s in enumerate(sampled.ids) if places[s].block.role == "development"]
    there = [places[sampled.ids[i]] for i in development]
    treated, control = (measured_rows(store, layer, there, genes=sampled.genes) for layer in ("treated", "control"))
    rows = np.isfinite(treated).all(axis=1) & np.isfinite(control).all(axis=1)
    values = sampled.values[development][rows]
    refuse_the_truth(values, treated[rows], control[rows], scale=scale, name=name, slots=slots_in_words(coming.files))
    lines = [there[i].block.cell_line for i in np.flatnonzero(rows)]
    findings = check_meaning(
        values, treated[rows], control[rows], scale=scale, name=name, lines=lines, by_position=coming.by_position
    )
    for finding in findings:
        if finding.severity == "error":
            raise IntegrityError(finding.message)
    if scale == "delta":
        control = measured_rows(store, "control", [places[s] for s in sampled.ids], genes=sampled.genes)
        sampled = replace(sampled, values=sampled.values + control)
    genes = coming.files[0].gene_names
    shifts = check_shift(store, sampled, coming.ids, places=places, name=name, file_genes=genes)
    for finding in shifts:
        if finding.severity == "error":
            raise MisalignedError(finding.message)
    return findings + shifts
