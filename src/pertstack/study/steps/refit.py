"""Fitting the final models of a study again, to predict samples it has never seen.

The jobs are those recorded with the predictions: same rows, parameters and seed, hence the same model. Predictions go
to arrays in a scratch folder, rows by position in the new file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_names
from pertstack._base.errors import InputError, ModelFailedError
from pertstack.data import DataFile, load_side, save_side
from pertstack.data.rows import Float32, PredictRows
from pertstack.design.blocks import Block
from pertstack.fit.jobs.cross_fit import cross_fit
from pertstack.fit.jobs.job import Job, JobRecord, JobRows
from pertstack.predictions.sources.embedding import RowEmbeddings
from pertstack.predictions.sources.training_distance import COLUMN
from pertstack.study.development.fit_rows import anchor_ids, anchor_rows, fit_rows, raw_cells
from pertstack.study.folder import StudyFolder
from pertstack.study.new_rows.new_samples import merged_side, open_new

ROWS = 512


def with_distance(folder: StudyFolder, file: DataFile) -> pd.DataFrame:
    """Metadata of the new samples, with the distance of each perturbation to those of the study's development rows."""
    distance = folder.training_distance
    features = (
        None
        if distance is None
        else merged_side(folder.side, file, folder.gene_names, other=folder.other_gene_names).best()
    )
    if distance is None or features is None:
        return file.obs
    return file.obs.assign(**{COLUMN: distance.with_features(features).of(file.obs["perturbation"])})


@dataclass(frozen=True)
class NewSamples:
    """Rows of final jobs that predict a new file, a few hundred at a time; travels to workers as paths."""

    root: Path
    new: Path
    place: Path
    reading: Mapping[str, Any] | None = None  # as the command was told; see ``open_new``

    @cached_property
    def folder(self) -> StudyFolder:
        return StudyFolder.open(self.root)

    @cached_property
    def file(self) -> DataFile:
        return open_new(self.folder, self.new, self.reading)

    def positions(self, job: Job) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows of the new file that a job predicts: all, or those of its cell line."""
        lines = self.file.obs["cell_line"].astype(str).to_numpy()
        mine = np.ones(len(lines), dtype=bool) if job.cell_line is None else lines == job.cell_line
        return np.flatnonzero(mine).astype(np.int64)

    def part(self, job: Job, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return self.positions(job)[number * ROWS : (number + 1) * ROWS]

    def __call__(self, job: Job) -> JobRows:
        anchors = anchor_rows(self.folder) if job.scope == "pooled" else None
        return JobRows(fit_rows(self.folder, job, self.place), self._blocks(job), anchors, raw_cells(self.folder))

    def _blocks(self, job: Job) -> Iterator[tuple[Block, PredictRows]]:
        side, order = load_side(self.place / "side"), self.file.var.index.get_indexer(pd.Index(self.folder.gene_names))
        for number in range(-(-len(self.positions(job)) // ROWS)):
            rows = self.part(job, number)
            control = np.ascontiguousarray(self.file.read_control(rows)[:, order])
            yield (
                Block("new", None, number),
                PredictRows(self.folder.gene_names, control, self.file.obs.iloc[rows], side),
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.root, self.new, self.place, self.reading)


@dataclass(frozen=True)
class KeepArrays:
    """Writes predicted rows into the model's array under the scratch folder."""

    rows: NewSamples
    models: tuple[str, ...]

    def path(self, model: str) -> Path:
        return self.rows.place / f"model_{self.models.index(model)}.npy"

    def embedding_path(self, model: str, part: int | str) -> Path:
        """Where the embeddings of a part of the new rows are kept, or those of the ``anchors``."""
        return self.rows.place / f"embedding_{self.models.index(model)}_{part}.npy"

    def __call__(
        self, job: Job, block: Block, predicted: Float32, embedding: Float32 | None, record: JobRecord
    ) -> None:
        del record
        if embedding is not None and job.scope == "pooled":
            np.save(self.embedding_path(job.model, block.segment), embedding)
        array = np.load(self.path(job.model), mmap_mode="r+")
        array[self.rows.part(job, block.segment)] = predicted
        array.flush()


@dataclass(frozen=True)
class KeepAnchors:
    """Keeps the anchor rows as a fit embeds them, beside the predicted rows."""

    keep: KeepArrays

    def __call__(self, job: Job, anchors: PredictRows, embedded: Float32, record: JobRecord) -> None:
        del anchors, record
        np.save(self.keep.embedding_path(job.model, "anchors"), embedded)


def new_embeddings(
    folder: StudyFolder, models: Sequence[str], file: DataFile, *, place: Path, reading: Mapping[str, Any] | None = None
) -> dict[str, RowEmbeddings]:
    """Embeddings of the new file's rows, with their anchors, by every model that was fitted again and gave them.

    Parameters
    ----------
    folder : of the study.
    models : names.
    file : new samples.
    place : folder that ``refit_and_predict`` filled.
    reading : as in ``open_new``.
    """
    keep = KeepArrays(NewSamples(folder.root, Path(file.path), place, reading), tuple(models))
    names = digest_names(anchor_ids(folder.plan))
    found = {}
    for model in keep.models:
        if keep.embedding_path(model, "anchors").is_file():
            parts = range(-(-file.n_samples // ROWS))
            values = np.concatenate([np.load(keep.embedding_path(model, part)) for part in parts])
            anchors = np.load(keep.embedding_path(model, "anchors"))
            found[model] = RowEmbeddings(values, anchors, names, f"final {model}")
    return found


def refit_and_predict(
    folder: StudyFolder,
    models: Sequence[str],
    file: DataFile,
    *,
    place: Path,
    workers: int,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Float32]:
    """Predictions (n_samples, n_genes) of each model for the new file, memory-mapped; NaN where a model has no answer.

    Parameters
    ----------
    folder : of the study.
    models : names; all fitted here.
    file : new samples, from ``open_new``.
    place : folder for predictions, embeddings (``new_embeddings``) and logs.
    workers : processes.
    reading : as in ``open_new``: workers open the file again.

    Raises
    ------
    InputError
        A model was added, not fitted here.
    ModelFailedError
        A fit that succeeded before fails now.
    """
    jobs = [job for model in models for job in final_jobs(folder, model)]
    save_side(place / "side", merged_side(folder.side, file, folder.gene_names, other=folder.other_gene_names))
    keep = KeepArrays(NewSamples(folder.root, Path(file.path), place, reading), tuple(models))
    for model in models:
        np.save(keep.path(model), np.full((file.n_samples, len(folder.gene_names)), np.nan, np.float32))
    results = cross_fit(
        jobs,
        rows_for=keep.rows,
        commit=keep,
        done=_never,
        log_dir=place / "jobs",
        seed=int(folder.choices["seed"]),
        workers=workers,
        plan_digest=folder.plan.digest,
        commit_anchors=KeepAnchors(keep),
    )
    failed = [r for r in results if not r.ok]
    if failed:
        raise ModelFailedError(f"{failed[0].job} could not be fitted again: {failed[0].error}")
    return {model: np.load(keep.path(model), mmap_mode="r") for model in models}


def _never(job: Job) -> bool:
    del job
    return False


def final_jobs(folder: StudyFolder, model: str) -> list[Job]:
    """The final jobs of a model, as recorded with its predictions of the test."""
    store, found = folder.store, {}
    for block in store.blocks("test"):
        if store.status(block, model) == "committed":
            facts = store.record(block, model).meta.get("job")
            if facts is None:
                raise InputError(
                    f"{model!r} was added to the study, so it cannot be fitted here. Provide its predictions for the "
                    f"new samples: --predictions {model}=FILE."
                )
            job = Job(**facts)
            found[job.folder] = job
    if not found:
        raise InputError(f"{model!r} has no final fit (no predictions of the test). Run `pertstack fit` for it again.")
    return list(found.values())
