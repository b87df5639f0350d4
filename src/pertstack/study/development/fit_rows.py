"""Which rows a job of a study gets, where its predictions go, what is already done.

The callables here travel to worker processes, so they carry only the path of the study. Rows to predict come without
treated values; those of the test are not even in the store these functions open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import keyed_hash64
from pertstack._base.errors import ConflictError, InputError
from pertstack._base.machine.scratch import space
from pertstack.data.cells import CellChoice
from pertstack.data.cells.raw import RawCells
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.design.blocks import Block
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.groups import apart
from pertstack.design.plan.known import sharing
from pertstack.design.provenance import FittedOn
from pertstack.fit.jobs.job import Job, JobRecord, JobRows
from pertstack.predictions.store.files.names import nested_name
from pertstack.predictions.store.store import PredictionStore
from pertstack.study.folder import StudyFolder

ANCHORS = 256
"""Rows that every fit embeds besides those it predicts (docs/decisions/0007-aligned-embeddings.md)."""


@dataclass(frozen=True)
class _OfStudy:
    """A callable of a study that can be sent to another process."""

    root: Path

    @cached_property
    def folder(self) -> StudyFolder:
        return StudyFolder.open(self.root)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.root,)


class StudyRows(_OfStudy):
    """Fit rows of a job, and its blocks to predict."""

    def __call__(self, job: Job) -> JobRows:
        anchors = anchor_rows(self.folder) if job.scope == "pooled" else None
        return JobRows(
            fit_rows(self.folder, job, self.folder.path("jobs")), self._blocks(job), anchors, raw_cells(self.folder)
        )

    def _blocks(self, job: Job) -> Iterator[tuple[Block, PredictRows]]:
        store = self.folder.store
        for block in predicted_blocks(store, job):
            yield block, predict_rows(self.folder, block)


class StudyCommit(_OfStudy):
    """Commits a predicted block with the facts of the job that made it."""

    def __call__(
        self, job: Job, block: Block, predicted: Float32, embedding: Float32 | None, record: JobRecord
    ) -> None:
        store = self.folder.store
        fitted_on = FittedOn(
            "plan", self.folder.plan.digest, job.fold, ids_digest=record.fit_ids_digest, also_held_out=job.also
        )
        name = layer_name(job, block)
        facts = {**record.to_json(), "kind": "cross_fit", "scale": "treated"}
        ids = store.sample_ids(block)
        if embedding is not None:
            store.commit_embedding(block, name, embedding, sample_ids=ids, fitted_on=fitted_on, meta=facts)
        store.commit(
            block, name, predicted, sample_ids=ids, gene_names=store.gene_names, fitted_on=fitted_on, meta=facts
        )


class StudyAnchors(_OfStudy):
    """Keeps the anchor rows as a fit embeds them beside the study's predictions."""

    def __call__(self, job: Job, anchors: PredictRows, embedded: Float32, record: JobRecord) -> None:
        self.folder.store.commit_anchors(
            job.model,
            embedded,
            sample_ids=anchors.sample_ids,
            job_digest=job.digest,
            fit_ids_digest=record.fit_ids_digest,
        )


class StudyDone(_OfStudy):
    """Whether every block of a job is committed; refuses a job whose name holds other parameters."""

    def __call__(self, job: Job) -> bool:
        store = self.folder.store
        blocks = predicted_blocks(store, job)
        there = [b for b in blocks if store.status(b, layer_name(job, b)) == "committed"]
        for block in there:
            found = store.record(block, layer_name(job, block)).meta.get("job_digest")
            if found != job.digest:
                raise ConflictError(
                    f"{job.model!r} is already in this study with other parameters or of another kind ({block.id}). "
                    f"Predictions are never overwritten: take it out first with "
                    f'`pertstack withdraw {quote(str(self.root))} {quote(job.model)} --why "..."`, or use another name.'
                )
        return len(there) == len(blocks)


def raw_cells(folder: StudyFolder) -> RawCells | None:
    """The file of cells that a study was made of, and how it was read; None if it was made of profiles."""
    choices = folder.choices
    if not choices.get("made"):
        return None
    options = {
        "mapping": choices["map"],
        "controls": choices.get("controls", "plate_mean"),
        "control_label": choices.get("control_label"),
        "treated_layer": choices.get("treated_layer"),
        "cells": CellChoice.from_json(choices["cells"]),
        "seed": choices["seed"],
    }
    return RawCells(str(choices["data"]), options)


def predicted_blocks(store: PredictionStore, job: Job) -> list[Block]:
    """Blocks a job predicts: its fold (both of a nested fit, the test of a final one), of its cell line."""
    folds = (job.fold,) if job.also is None else (job.fold, job.also)
    return [b for b in store.blocks() if b.fold in folds and job.cell_line in (None, b.cell_line)]


def layer_name(job: Job, block: Block) -> str:
    """Where a job's predictions of a block are kept: under the model, or, for a nested fit, beside it."""
    if job.also is None:
        return job.model
    assert job.fold is not None
    return nested_name(job.model, job.also if block.fold == job.fold else job.fold)


def predict_rows(folder: StudyFolder, block: Block) -> PredictRows:
    """A block as a model sees it: control and metadata."""
    store = folder.store
    return PredictRows(folder.gene_names, store.read(block, "control"), store.obs(block), folder.side)


def anchor_ids(plan: FoldPlan) -> list[str]:
    """The development samples that every fit embeds: those of the smallest keyed hash, at most ``ANCHORS``, sorted."""
    key = plan.salt.encode()
    ids = plan.sample_ids("development")
    return sorted(sorted(ids, key=lambda s: (keyed_hash64(s, key, b"pertstack.anchor"), s))[:ANCHORS])


def anchor_rows(folder: StudyFolder) -> PredictRows:
    """The anchor rows as a model sees them: control and metadata, nothing treated.

    Fits of one cell line alone embed none: their frames would be tied by rows of other lines, which they never met.
    """
    store, ids = folder.store, anchor_ids(folder.plan)
    place = {s: (b, i) for b in store.blocks("development") for i, s in enumerate(store.sample_ids(b))}
    control = np.empty((len(ids), len(folder.gene_names)), np.float32)
    obs = []
    for k, sample in enumerate(ids):
        block, row = place[sample]
        store.read(block, "control", start=row, stop=row + 1, out=control[k : k + 1])
    for block in sorted({place[s][0] for s in ids}):
        obs.append(store.obs(block))
    return PredictRows(folder.gene_names, control, pd.concat(obs).loc[ids], folder.side)


def fit_rows(folder: StudyFolder, job: Job, scratch: Path | None = None) -> FitRows:
    """Support, and development rows outside the job's folds (all of them for a final fit); of its cell line if it
    has one. If groups are ``parts``, without development rows that share a part with a row of the folds left out
    (of the test, for a final fit). Many rows are mapped from a nameless file, of which the system keeps in memory what
    it can.

    Parameters
    ----------
    folder : the study.
    job : what is fitted.
    scratch : folder of that file; None keeps all rows in memory.

    Raises
    ------
    InputError
        There are none, as for a cell line whose rows are all in one fold.
    """
    store = folder.store
    left_out = (job.fold, job.also)
    able = [*store.blocks("support"), *store.blocks("development")]
    blocks = [b for b in able if b.fold not in left_out and job.cell_line in (None, b.cell_line)]
    if not blocks:
        raise InputError(
            f"There are no rows to fit {job} on: {'the study' if job.cell_line is None else job.cell_line} has no "
            f"development samples outside the folds left out. Use --scope pooled, which learns from all cell lines, or "
            f"make the study with 3 or more folds."
        )
    total, n_genes = sum(store.n_samples(b) for b in blocks), len(folder.gene_names)
    control, treated = (space((total, n_genes), np.float32, scratch) for _ in range(2))
    start = 0
    for block in blocks:
        stop = start + store.n_samples(block)
        store.read(block, "control", out=control[start:stop])
        store.read(block, "treated", out=treated[start:stop])
        start = stop
    obs = pd.concat([store.obs(b) for b in blocks])
    group = folder.plan.groups.reindex(obs.index).to_numpy(dtype=object)
    rows = FitRows(folder.gene_names, control, obs, side=folder.side, treated=treated, group=group)
    return _apart(folder, job, rows) if apart(folder.plan.group_by) else rows


def _apart(folder: StudyFolder, job: Job, rows: FitRows) -> FitRows:
    """The fit rows that share no part with what the job predicts; support stays."""
    samples = folder.samples
    left_out = [k for k in (job.fold, job.also) if k is not None]
    asked = samples["role"] == "test" if job.fold is None else samples["fold"].isin(left_out)
    near = sharing(samples["perturbation"], samples.loc[asked, "perturbation"])
    role = samples["role"].reindex(rows.obs.index)
    kept = (role == "support") | ~rows.obs["perturbation"].astype(str).isin(near)
    if not kept.any():
        raise InputError(
            f"Every row that {job} could be fitted on shares a part with what it predicts, so grouped by parts nothing "
            "is left. Make the parts support (`pertstack init ... --group parts --support kind=single`), or use more "
            "folds."
        )
    return rows.take(kept.to_numpy())
