"""One job from start to end: rows, fit, predict block by block, check, commit, record. Runs in a worker process.

The job boundary is here: whatever a model raises ends its own job, is written to its log and ``job.json``, and goes no
further.
"""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from pertstack._base.digests import digest_names
from pertstack._base.errors import IntegrityError, LeakError, ModelFailedError, first_few
from pertstack._base.files import remove, write_json
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.design.blocks import Block
from pertstack.fit.base import BaseModel
from pertstack.fit.jobs.fit_rows import keep_fit_errors
from pertstack.fit.jobs.job import Commit, CommitAnchors, Job, JobRecord, JobResult, JobRows, RowsFor, versions
from pertstack.fit.jobs.job_files import BESIDE, write_job
from pertstack.fit.jobs.memory import peak_memory, reset_peak_memory
from pertstack.fit.registry import build, load_target

Answered = tuple[Block, PredictRows]


@dataclass(frozen=True)
class Setting:
    """What all jobs of a run share; picklable, handed to every worker once."""

    rows_for: RowsFor
    commit: Commit
    log_dir: Path
    seed: int
    threads: int = 1
    plan_digest: str | None = None
    commit_anchors: CommitAnchors | None = None

    def folder(self, job: Job) -> Path:
        return self.log_dir / job.folder

    def log(self, job: Job) -> Path:
        return self.folder(job) / "log.txt"


class Boundary:
    """Ends an exception at the edge of its job: the traceback goes to the log, type and message to the result."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not isinstance(error, Exception | SystemExit):
            return False  # Ctrl-C passes
        traceback.print_exception(error, file=sys.stderr)
        self.error = error
        return True


def run_job(job: Job, setting: Setting, *, own_process: bool = False) -> JobResult:
    """Run one job. Never raises for what the model does; the result says how it went.

    Parameters
    ----------
    job : which model, without which fold.
    setting : where rows come from, where predictions and logs go.
    own_process : the process runs nothing but jobs, so that its file descriptors 1 and 2 can be sent to the log as
        well.
    """
    folder, started = setting.folder(job), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    boundary, record = Boundary(), None
    for name in ("job.json", *BESIDE[1:]):  # of an earlier attempt
        (folder / name).unlink(missing_ok=True)
    with _logging_to(setting.log(job), own_process), boundary, threadpool_limits(limits=setting.threads):
        record = _fit_and_commit(job, setting, folder, started)
    seconds, error = time.perf_counter() - started, boundary.error
    result = JobResult(job, "done", seconds, record, log=str(setting.log(job)))
    if error is not None:
        result = replace(result, status="failed", error=in_words(error), error_type=type(error).__name__)
    write_job(folder, result)
    return result


def in_words(error: BaseException) -> str:
    """Message of an error, never empty."""
    if isinstance(error, MemoryError):
        return (
            f"out of memory ({error}). Use fewer workers, fewer rows, or a smaller batch."
            if str(error)
            else ("out of memory. Use fewer workers, fewer rows, or a smaller batch.")
        )
    return str(error) or type(error).__name__


def _fit_and_commit(job: Job, setting: Setting, folder: Path, started: float) -> JobRecord:
    reset_peak_memory()
    model = build(load_target(job.target), job.params, job.model)
    _give_place(model, folder, setting.plan_digest)
    rows: JobRows = setting.rows_for(job)
    if hasattr(model, "raw_cells"):
        model.raw_cells = rows.cells
    fit_ids = frozenset(rows.fit.obs.index)
    fitted_at = time.perf_counter()
    seed = job.seed(setting.seed)
    with _own_matter(job):
        model.fit(rows.fit, rng=np.random.default_rng(seed))
    fit_seconds = time.perf_counter() - fitted_at
    record = JobRecord(
        job,
        seed,
        rows.fit.n_samples,
        fit_ids_digest=digest_names(sorted(fit_ids)),
        fit_seconds=fit_seconds,
        seconds=0.0,
        peak_memory_bytes=0,
        versions=versions(),
        params=model.params(),
        notes=_notes(model),
    )
    _keep_anchors(model, job, rows.anchors, setting=setting, record=record)
    for block, part, answer in _answers(model, _safe(job, fit_ids, rows.blocks)):
        predicted = _checked(answer, part, job.model)
        embedding = checked_embedding(model, part)
        record = replace(record, seconds=time.perf_counter() - started, peak_memory_bytes=peak_memory())
        setting.commit(job, block, predicted, embedding, record)
    _keep_curve(model, folder)
    keep_fit_errors(model, rows.fit, job, folder=folder)
    return replace(record, seconds=time.perf_counter() - started, peak_memory_bytes=peak_memory())


def _keep_anchors(
    model: BaseModel, job: Job, anchors: PredictRows | None, *, setting: Setting, record: JobRecord
) -> None:
    """The anchor rows as this fit embeds them, control and metadata being all it sees of them; nothing if the model
    gives no embedding, or only of rows it predicts."""
    if setting.commit_anchors is None or anchors is None:
        return
    if isinstance(anchors, FitRows):
        raise LeakError(f"Job {job} was given anchor rows with their treated values. Give it PredictRows.")
    found = checked_embedding(model, anchors)
    if found is not None:
        setting.commit_anchors(job, anchors, found, record)


@contextmanager
def _own_matter(job: Job) -> Iterator[None]:
    """What a model finds wrong with its own files while it fits, such as a checkpoint of another plan, ends its job.

    It has not broken the study: nothing was predicted. An integrity error of the runner (a leak, a conflict of what is
    committed) is not raised in here and stops the run.
    """
    try:
        yield
    except IntegrityError as error:
        raise ModelFailedError(f"{job.model} refused to be fitted: {error}") from error


def _safe(job: Job, fit_ids: frozenset[str], blocks: Iterable[Answered]) -> Iterator[Answered]:
    for block, part in blocks:
        _refuse_leak(job, fit_ids, part)
        yield block, part


def _answers(model: BaseModel, blocks: Iterator[Answered]) -> Iterator[tuple[Block, PredictRows, Any]]:
    """Predictions block by block; all at once from a model that runs a program for them (``predict_many``)."""
    many = getattr(model, "predict_many", None)
    if many is None:
        yield from ((block, part, model.predict(part)) for block, part in blocks)
        return
    held = list(blocks)
    for (block, part), answer in zip(held, many([part for _, part in held]) if held else [], strict=True):
        yield block, part, answer


def _refuse_leak(job: Job, fit_ids: frozenset[str], part: PredictRows) -> None:
    """What must never reach a model: a held-out treated value, and a predicted row among the fit rows."""
    if isinstance(part, FitRows):
        raise LeakError(f"Job {job} was given rows to predict with their treated values. Give it PredictRows.")
    seen = sorted(fit_ids.intersection(part.obs.index))
    if seen:
        raise LeakError(
            f"Job {job} would predict {len(seen):,} samples it was fitted on ({first_few(seen)}): its scores would "
            f"be in-sample. Fit rows and predicted rows of a job must be disjoint."
        )


def _checked(predicted: Any, part: PredictRows, model: str) -> Float32:
    """Predictions as float32, when their shape is right and every value finite.

    Raises
    ------
    ModelFailedError
        Names the shape, or the first samples and genes that are not finite.
    """
    values = np.asarray(predicted)
    if values.shape != (part.n_samples, part.n_genes) or values.dtype.kind != "f":
        raise ModelFailedError(
            f"{model} predicted an array of shape {values.shape} and type {values.dtype} for {part.n_samples:,} "
            f"samples x {part.n_genes:,} genes. It must return one float per sample and gene, in their order."
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        samples, genes = np.flatnonzero(~finite.all(axis=1)), np.flatnonzero(~finite.all(axis=0))
        raise ModelFailedError(
            f"{model} predicted {int((~finite).sum()):,} values that are NaN or infinite, in {len(samples):,} samples "
            f"({first_few(part.sample_ids[samples], 5)}) and {len(genes):,} genes "
            f"({first_few(part.gene_names[genes], 5)}). Nothing of it was kept. Look for extreme inputs or a diverging "
            f"fit."
        )
    return values


def checked_embedding(model: BaseModel, part: PredictRows) -> Float32 | None:
    """One finite vector per sample from models that have ``embed``; None from others."""
    embed = getattr(model, "embed", None)
    if embed is None:
        return None
    found = embed(part)
    if found is None:
        return None
    values = np.ascontiguousarray(found, dtype=np.float32)
    if values.ndim != 2 or len(values) != part.n_samples or not np.isfinite(values).all():
        raise ModelFailedError(
            f"{model.name} gave embeddings of shape {values.shape} for {part.n_samples:,} samples, or values that are "
            f"not finite. embed must return one finite vector per sample."
        )
    return values


def _give_place(model: BaseModel, folder: Path, plan_digest: str | None) -> None:
    """A model that keeps checkpoints or runs a program gets the job's folder and the plan it belongs to."""
    places = (("checkpoint", folder / "checkpoint.npz"), ("plan_digest", plan_digest), ("folder", folder))
    for name, value in places:
        if hasattr(model, name):
            setattr(model, name, value)


def _notes(model: BaseModel) -> dict[str, Any]:
    """What the fit chose for itself, as plain JSON (which has no infinity)."""
    names = ("best_epoch", "best_epoch_", "penalty_", "kappa_", "device", "notes")
    found = {name.rstrip("_"): value for name in names if (value := getattr(model, name, None)) is not None}
    plain = {k: isinstance(v, dict | int) or (isinstance(v, float) and math.isfinite(v)) for k, v in found.items()}
    return {k: v if plain[k] else str(v) for k, v in found.items()}


def _keep_curve(model: BaseModel, folder: Path) -> None:
    curve = getattr(model, "curve", None)
    if curve:
        write_json(folder / "curve.json", {"format": 1, "model": model.name, "epochs": curve})


@contextmanager
def _logging_to(path: Path, own_process: bool) -> Iterator[None]:
    """All that is written to stdout or stderr goes to the log; in a process of our own also by compiled code."""
    with ExitStack() as stack:
        remove(path)  # if it is a link, what it leads to stays as it is
        stream = stack.enter_context(path.open("w", encoding="utf-8", buffering=1))
        stack.enter_context(redirect_stdout(stream))
        stack.enter_context(redirect_stderr(stream))
        if own_process:
            for descriptor in (1, 2):
                kept = os.dup(descriptor)
                stack.callback(os.close, kept)  # called last
                stack.callback(os.dup2, kept, descriptor)
                os.dup2(stream.fileno(), descriptor)
        yield
