"""The door for predictions made elsewhere: read, match by name, check scale and alignment, commit block by block.

Values pass once, a few rows at a time, into staged files; only when every check has passed does anything become
visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pertstack._base.digests import digest_json
from pertstack._base.errors import InputError, IntegrityError, MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack._base.progress import progress_bar, track
from pertstack.data import Card
from pertstack.design.blocks import Block
from pertstack.predictions.align import Take, likely_cause, match
from pertstack.predictions.importers.cards import NamedTransform, check_cards, named_transform, sidecar
from pertstack.predictions.importers.files import NamedChunk, PredictionFile
from pertstack.predictions.importers.fitted import FittedOnBlocks, check_file_folds
from pertstack.predictions.importers.merge import is_merge_file, open_merge_predictions
from pertstack.predictions.importers.opening import as_paths, open_file, refuse_repeats
from pertstack.predictions.importers.sampled import Place, Sampled, Sampler, measured_rows
from pertstack.predictions.importers.scale import Scale, check_scale
from pertstack.predictions.importers.shift import check_shift
from pertstack.predictions.names import NESTED_PREFIX, TRUTH_LAYERS, encode_name
from pertstack.predictions.record import Record
from pertstack.predictions.store import PredictionStore
from pertstack.predictions.writer import RowWriter

Missing = Literal["refuse", "record"]


@dataclass(frozen=True)
class AddReport:
    """What came in and what did not."""

    name: str
    committed: tuple[Record, ...]
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)  # block id -> samples recorded as missing
    missing_genes: tuple[str, ...] = ()
    not_covered: tuple[Block, ...] = ()  # blocks without any row in the files: they stay 'missing'
    findings: tuple[Finding, ...] = ()

    @property
    def n_samples(self) -> int:
        """Samples predicted."""
        return sum(r.grid.n - len(r.missing_samples) for r in self.committed)

    def __str__(self) -> str:
        gone = sum(len(names) for names in self.missing.values())
        said = [f"{self.name}: {self.n_samples:,} samples in {len(self.committed)} blocks added"]
        said += [f"{gone:,} samples recorded as not predicted"] * bool(gone)
        said += [f"{len(self.missing_genes):,} genes recorded as not predicted"] * bool(self.missing_genes)
        said += [f"{len(self.not_covered)} blocks without predictions"] * bool(self.not_covered)
        return "; ".join(said)


def add_predictions(
    store: PredictionStore, name: str, paths: str | Path | Iterable[str | Path], *, fitted_on: Any, scale: Scale,
    missing: Missing = "refuse", truth: PredictionStore | None = None, layer: str | None = None,
    meta: Mapping[str, Any] | None = None, n_rows: int | None = None,
    own_card: Card | None = None, card: Mapping[str, Any] | None = None, transform: str | None = None,
) -> AddReport:  # fmt: skip
    """Admit one model's predictions into a store.

    Parameters
    ----------
    paths
        One file or several (one per fold or cell line): .h5ad, .zarr, .npz, .parquet, .csv, .tsv, .arrow, .feather.
    fitted_on
        What the model was fitted on: a fold plan (or its digest, or 'plan'), a list of ids, a table fold -> ids,
        'unknown'.
    scale
        'treated', or 'delta' (the stored control is added).
    missing
        'refuse' rows and genes that a covered block lacks, or 'record' them as not predicted.
    truth
        Store of held-out treated values, used only to recognise MERGE-style rows without ids.
    own_card, card
        The study's preprocessing card, with which the files' cards must agree (None: they are not looked at), and a
        card for all files, where they carry none themselves (in the file, or as ``<file>.card.json``).
    transform
        A named map of the values as handed in to the study's scale; see ``cards.named_transform``.

    Raises
    ------
    MisalignedError, IntegrityError, InputError, ConflictError, StorageError
        Nothing was committed (a conflict is looked for in every block before the first one is published).
    """
    _check_options(name, scale, missing)
    mapping = None if transform is None else named_transform(transform, scale)
    files = _open(paths, store, truth, layer)
    on_cards = _on_cards(files, own_card, card, scale, mapping, name)
    if mapping is not None:
        files = [_mapped(f, mapping) for f in files]
    places = {s: Place(b, i) for b in store.blocks() for i, s in enumerate(store.sample_ids(b))}
    own_genes = [str(g) for g in store.gene_names]
    _check_names(files, places)
    missing_genes = _missing_genes(files, own_genes, missing)
    fitted = FittedOnBlocks(fitted_on, store)
    _check_folds(files, places, fitted)
    blocks = sorted({places[s].block for f in files for s in f.sample_ids})
    gone = _missing_samples(store, files, blocks, missing)
    mapped = {} if transform is None else {"transform": transform}
    facts = {**_file_meta(files), "scale": scale, **mapped, **dict(meta or {})}
    with ExitStack() as stack:
        gaps = set(missing_genes)
        predicted_genes = [g for g in own_genes if g not in gaps]
        writers = {
            block: stack.enter_context(
                store.writer(
                    block, name, gene_names=predicted_genes, fitted_on=fitted.of(block), meta=facts,
                    missing_samples=gone.get(block, ()), missing_genes=missing_genes,
                )
            )
            for block in blocks
        }  # fmt: skip
        sampled, empty = _stream(store, files, places, own_genes, missing_genes, writers, scale, missing, n_rows)
        all_ids = [s for f in files for s in f.sample_ids]
        findings = _judge(store, sampled, all_ids, places, scale, name)
        for writer in track(writers.values(), f"Checking {name}", len(writers)):
            writer.prepare()
        records = tuple(writers[block].commit() for block in track(blocks, f"Committing {name}", len(blocks)))
    for block, names in empty.items():
        gone[block] = (*gone.get(block, ()), *names)
    return _report(store, name, records, gone, missing_genes, [*on_cards, *findings])


def _report(
    store: PredictionStore, name: str, records: tuple[Record, ...], gone: Mapping[Block, tuple[str, ...]],
    missing_genes: list[str], findings: list[Finding],
) -> AddReport:  # fmt: skip
    """What came in, what did not, and what is to be said of it."""
    written = {r.block for r in records}
    uncovered = tuple(b for b in store.blocks() if b not in written and store.status(b, name) != "committed")
    said = [*findings, *_in_sample(records, store), *([_uncovered(name, uncovered)] if uncovered else [])]
    lost = {b.id: tuple(s) for b, s in sorted(gone.items()) if s}
    return AddReport(name, records, lost, tuple(missing_genes), uncovered, tuple(said))


def _check_folds(files: list[PredictionFile], places: Mapping[str, Place], fitted: FittedOnBlocks) -> None:
    """Folds that a file names must part the samples as the plan does, where it claims to follow the plan."""
    for file in files:
        if file.folds is not None and fitted.by_plan:
            own_folds = [places[s].block.fold for s in file.sample_ids]
            check_file_folds(np.asarray(file.folds), file.sample_ids, own_folds, file.path)


def _check_options(name: str, scale: str, missing: str) -> None:
    encode_name(name)
    if name in TRUTH_LAYERS or name.startswith(NESTED_PREFIX):
        raise InputError(
            f"A model cannot be called {name!r}; the store keeps that name for itself. Choose another name."
        )
    if scale not in ("treated", "delta"):
        raise InputError(
            f"scale={scale!r} is not known. Say 'treated' (what is measured) or 'delta' (treated - control)."
        )
    if missing not in ("refuse", "record"):
        raise InputError(f"missing={missing!r} is not known. Say 'refuse' or 'record'.")


def _open(
    paths: str | Path | Iterable[str | Path], store: PredictionStore, truth: PredictionStore | None, layer: str | None
) -> list[PredictionFile]:
    files = []
    for path in as_paths(paths):
        if path.name.casefold().endswith(".npz") and is_merge_file(path):
            files.append(open_merge_predictions(path, store, truth))
        else:
            files.append(open_file(path, layer=layer))
    refuse_repeats(files)
    return files


def _on_cards(
    files: list[PredictionFile], own: Card | None, given: Mapping[str, Any] | None, scale: Scale,
    mapping: NamedTransform | None, name: str,
) -> list[Finding]:  # fmt: skip
    """The study's card against the one in each file, else beside it, else the one handed in."""
    if own is None:
        return []
    cards: dict[str, Mapping[str, Any] | None] = {
        str(f.path): next((c for c in (f.card, sidecar(f.path), given) if c is not None), None) for f in files
    }
    return check_cards(own, cards, scale=scale, transform=mapping, name=name)


def _mapped(file: PredictionFile, mapping: NamedTransform) -> PredictionFile:
    return replace(file, rows=lambda n_rows: (mapping(values, file.path) for values in file.rows(n_rows)))


def _check_names(files: list[PredictionFile], places: Mapping[str, Place]) -> None:
    for file in files:
        foreign = [s for s in file.sample_ids if s not in places]
        if foreign:
            cause = likely_cause(file.sample_ids, list(places))
            raise MisalignedError(
                f"{file.path}: {len(foreign):,} of {len(file.sample_ids):,} samples are not in this study: "
                f"{first_few(foreign)}. "
                f"The study's samples look like {first_few(places, 3)}. "
                + (f"Likely cause: {cause}" if cause else "Leave them out, or map the ids to the study's.")
            )


def _missing_genes(files: list[PredictionFile], own: list[str], missing: Missing) -> list[str]:
    given = set(files[0].gene_names)
    for file in files[1:]:
        if set(file.gene_names) != given:
            raise MisalignedError(
                f"{file.path} and {files[0].path} predict different genes ({len(file.gene_names):,} and "
                f"{len(given):,}; only one "
                f"has {first_few(sorted(given.symmetric_difference(file.gene_names)))}). Files of one model must agree."
            )
    absent = [g for g in own if g not in given]
    gap = absent if missing == "record" and len(absent) < len(own) else []
    for file in files:
        match("gene", file.gene_names, own, missing=gap, where=str(file.path))
    return gap


def _missing_samples(
    store: PredictionStore, files: list[PredictionFile], blocks: list[Block], missing: Missing
) -> dict[Block, tuple[str, ...]]:
    given = {s for f in files for s in f.sample_ids}
    gone = {b: tuple(s for s in store.sample_ids(b) if s not in given) for b in blocks}
    gone = {b: names for b, names in gone.items() if names}
    if gone and missing == "refuse":
        n = sum(len(names) for names in gone.values())
        raise MisalignedError(
            f"{first_few(str(f.path) for f in files)}: {n:,} samples of {len(gone)} blocks are not predicted, such as "
            f"{first_few(s for names in gone.values() for s in names)}. If they really were not, say so with "
            f"missing='record' "
            f"(--missing record); combiners then know of the gap."
        )
    return gone


def _file_meta(files: list[PredictionFile]) -> dict[str, Any]:
    """What the files say of the model, and which files they were."""
    facts: dict[str, Any] = {"files": [f.path.name for f in files]}
    for file in files:
        for key, value in file.meta.items():
            if facts.setdefault(key, value) != value:
                facts[key] = [facts[key], value]
    facts["model_digest"] = digest_json({k: v for k, v in facts.items() if k not in ("files", "timestamp")})
    return facts


def _stream(
    store: PredictionStore, files: list[PredictionFile], places: Mapping[str, Place], own_genes: list[str],
    missing_genes: list[str], writers: Mapping[Block, RowWriter], scale: Scale, missing: Missing, n_rows: int | None,
) -> tuple[Sampled, dict[Block, list[str]]]:  # fmt: skip
    """Every value, once: into the writers, and a few into the sample that is checked."""
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
                _place_chunk(store, chunk, columns, places, writers, scale)
    return sampler.done(), empty


def _without_empty(
    chunk: NamedChunk, places: Mapping[str, Place], writers: Mapping[Block, RowWriter], empty: dict[Block, list[str]]
) -> NamedChunk:
    """Rows that are NaN throughout were not predicted; where that may be recorded, it is."""
    nothing = np.isnan(chunk.values).all(axis=1)
    if not nothing.any():
        return chunk
    for i in np.flatnonzero(nothing):
        name = chunk.sample_ids[i]
        writers[places[name].block].announce_missing([name])
        empty.setdefault(places[name].block, []).append(name)
    kept = np.flatnonzero(~nothing)
    ids = [chunk.sample_ids[i] for i in kept]
    return NamedChunk(chunk.path, chunk.start, ids, chunk.gene_names, chunk.values[kept])


def _place_chunk(
    store: PredictionStore, chunk: NamedChunk, columns: Take | None, places: Mapping[str, Place],
    writers: Mapping[Block, RowWriter], scale: Scale,
) -> None:  # fmt: skip
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
            values = values + measured_rows(store, "control", [places[n] for n in names], genes)
        writers[block].append(values, names)


def _judge(
    store: PredictionStore, sampled: Sampled, all_ids: list[str], places: dict[str, Place], scale: Scale, name: str
) -> list[Finding]:
    """Scale and alignment; an error ends the addition before anything is visible."""
    development = [i for i, s in enumerate(sampled.ids) if places[s].block.role == "development"]
    there = [places[sampled.ids[i]] for i in development]
    treated, control = (measured_rows(store, layer, there, sampled.genes) for layer in ("treated", "control"))
    rows = np.isfinite(treated).all(axis=1) & np.isfinite(control).all(axis=1)
    findings = check_scale(sampled.values[development][rows], treated[rows], control[rows], scale, name)
    for finding in findings:
        if finding.severity == "error":
            raise IntegrityError(finding.message)
    values = sampled.values
    if scale == "delta":
        own = [places[s] for s in sampled.ids]
        values = values + measured_rows(store, "control", own, sampled.genes)
    shifts = check_shift(store, replace(sampled, values=values), all_ids, places, name)
    for finding in shifts:
        if finding.severity == "error":
            raise MisalignedError(finding.message)
    return findings + shifts


def _in_sample(records: tuple[Record, ...], store: PredictionStore) -> list[Finding]:
    """Rows the model was fitted on are kept, but never stacked; say how many."""
    seen, examples, unknown = 0, [], False
    for record in records:
        assert record.fitted_on is not None
        ids = store.sample_ids(record.block)
        saw = record.fitted_on.saw(record.block, ids)
        if saw is None:
            unknown = True
            continue
        seen += int(saw.sum())
        examples += [ids[i] for i in np.flatnonzero(saw)[:10]]
    found = []
    if seen:
        text = (
            f"{records[0].model}: {seen:,} rows were predicted by a model that was fitted on them. They are kept, but "
            f"never "
            f"stacked or scored."
        )
        found.append(Finding("warning", "in_sample_rows", text, seen, tuple(examples[:10]), records[0].model))
    if unknown:
        text = (
            f"{records[0].model}: nobody can say which samples it was fitted on. It is kept as unverified and takes "
            f"part only "
            f"where that is accepted explicitly."
        )
        found.append(Finding("warning", "unverified", text, where=records[0].model))
    return found


def _uncovered(name: str, blocks: tuple[Block, ...]) -> Finding:
    text = (
        f"{name}: no predictions yet for {len(blocks)} blocks: {first_few(b.id for b in blocks)}. Add them under the "
        f"same name, "
        f"or the model takes part only where it is there."
    )
    return Finding("warning", "blocks_not_covered", text, len(blocks), tuple(b.id for b in blocks[:10]), name)
