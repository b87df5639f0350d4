"""Cross-fitting: run jobs on an engine, look up those already done, report those that fail while the others go on.

Each job is fitted without the rows it predicts; the caller's ``rows_for`` hands them out, the worker checks that they
are disjoint. What is kept, and where, is handled by ``commit``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pertstack._base import errors
from pertstack._base.errors import InputError, IntegrityError, StackingError, StorageError, first_few
from pertstack._base.machine.cluster import Cluster
from pertstack._base.machine.progress import progress_bar
from pertstack.fit.jobs.job import Commit, CommitAnchors, Done, Job, JobResult, RowsFor
from pertstack.fit.jobs.pool import run_local
from pertstack.fit.jobs.worker import Setting, run_job

Engine = Literal["local", "inline", "dask"]
ENGINES: tuple[Engine, ...] = ("local", "inline", "dask")


def cross_fit(
    jobs: Sequence[Job],
    *,
    rows_for: RowsFor,
    commit: Commit,
    done: Done,
    log_dir: Path,
    seed: int,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    time_limit: float | None = None,
    threads: int = 1,
    plan_digest: str | None = None,
    commit_anchors: CommitAnchors | None = None,
) -> list[JobResult]:
    """Run jobs; results in the order of ``jobs``, whichever ended first.

    Parameters
    ----------
    jobs
        From ``plan_jobs``, each once.
    rows_for, commit
        Called in the worker: rows of a job, and what to do with each predicted block. For ``local`` and ``dask`` they
        must be picklable (functions or objects of a module). ``commit`` must be whole or not at all; it may run twice.
    commit_anchors
        Called in the worker with the anchor rows as the fit embeds them, before its first block; as ``commit``.
    done
        Called here: whether a job's predictions are all committed already. Such a job is a look-up (status
        ``present``).
    log_dir
        Each job keeps ``<model>/<job>/log.txt`` and ``job.json`` (and ``curve.json``) below it.
    seed
        Study seed; each job's own follows from it and the job's content.
    engine
        ``local``: worker processes on this machine, a crash of one ends its job only. ``inline``: in this process, one
        after the other (for notebooks and debugging; a crash ends everything). ``dask``: a cluster at ``address``, or a
        local one.
    workers, address
        Processes, and the Dask scheduler; None starts a cluster here.
    time_limit
        Seconds per job, for ``local``.
    threads
        Threads of numerical libraries per worker. Part of the result's identity in the last bits, hence not derived
        from the number of workers.
    plan_digest
        Of the fold plan, by which a checkpoint of an interrupted fit is recognised.

    Raises
    ------
    StorageError, IntegrityError
        The disk refuses, or going on would be dishonest; running jobs are stopped, committed work stays.
    """
    _refuse_bad_call(jobs, engine, workers, time_limit=time_limit, threads=threads)
    if engine != "inline":
        Cluster.of(engine, workers, address)
    setting = Setting(rows_for, commit, Path(log_dir), seed, threads, plan_digest, commit_anchors)
    results = {job.folder: JobResult(job, "present", log=str(setting.log(job))) for job in jobs if done(job)}
    todo = [job for job in jobs if job.folder not in results]
    if todo:
        with progress_bar() as bar:
            task = bar.add_task("cross-fitting", total=len(jobs), completed=len(results))
            for result in _run(todo, setting, engine, workers=workers, address=address, time_limit=time_limit):
                results[result.job.folder] = result
                n_failed = sum(not r.ok for r in results.values())
                failed = f", {n_failed} failed" if n_failed else ""
                bar.update(task, advance=1, description=f"cross-fitting ({result.job}{failed})")
                _stop_if_grave(result)
    return [results[job.folder] for job in jobs]


def _run(
    jobs: list[Job], setting: Setting, engine: Engine, workers: int, address: str | None, time_limit: float | None
) -> Iterator[JobResult]:
    if engine == "inline":
        return (run_job(job, setting) for job in jobs)
    if engine == "dask":
        from pertstack.fit.jobs.dask_engine import run_dask

        return run_dask(jobs, setting, workers=workers, address=address)
    return run_local(jobs, setting, workers=workers, time_limit=time_limit)


def _stop_if_grave(result: JobResult) -> None:
    """A full disk or a breach of integrity is not one model's bad luck: raised again, as the same kind.

    What a model refuses while it fits (a checkpoint of other rows) comes as ``ModelFailedError`` and is no breach.
    """
    kind = getattr(errors, result.error_type, None)
    if result.ok or not isinstance(kind, type) or not issubclass(kind, StorageError | IntegrityError):
        return
    assert issubclass(kind, StackingError)
    raise kind(f"{result.error} (job {result.job}, log {result.log})")


def _refuse_bad_call(jobs: Sequence[Job], engine: str, workers: int, *, time_limit: float | None, threads: int) -> None:
    if engine not in ENGINES:
        raise errors.unknown_name("engine", engine, ENGINES)
    if workers < 1 or threads < 1:
        raise InputError(f"workers is {workers} and threads {threads}; both count from 1.")
    if time_limit is not None and (time_limit <= 0 or engine != "local"):
        raise InputError(
            f"time_limit is {time_limit} with engine {engine!r}; it is above 0 seconds, for engine 'local'."
        )
    folders = [job.folder for job in jobs]
    twice = sorted({f for f in folders if folders.count(f) > 1})
    if twice:
        raise InputError(
            f"Jobs {first_few(twice)} occur more than once: their predictions would be kept under one name. Give a "
            f"model with other parameters an alias."
        )
