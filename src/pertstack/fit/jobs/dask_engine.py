"""Jobs on a Dask cluster: the same jobs, the same results, on many machines that share a file system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pertstack._base.machine.cluster import Cluster, piece
from pertstack._base.version import __version__
from pertstack.fit.jobs.job import Job, JobResult
from pertstack.fit.jobs.job_files import write_job
from pertstack.fit.jobs.worker import Setting, in_words, run_job


def run_dask(jobs: Sequence[Job], setting: Setting, *, workers: int, address: str | None = None) -> Iterator[JobResult]:
    """Results in the order in which jobs end.

    A job whose worker dies is tried again by Dask and given up after its usual number of deaths; commits are whole or
    not at all, so a job that runs twice costs time only. Workers need this package and the study's folder under the
    same path.

    Parameters
    ----------
    jobs : sent all at once.
    setting : where rows come from and predictions go; sent along.
    workers : local processes, without an address.
    address : of a scheduler; None starts a cluster of local processes.

    Raises
    ------
    NeedsExtraError
        dask or distributed is not installed.
    """
    with Cluster(workers, address).client() as client:
        from distributed import as_completed

        futures = {client.submit(piece, __version__, run_job, job, setting, pure=False): job for job in jobs}
        for future in as_completed(list(futures)):
            lost = future.exception()
            yield future.result() if lost is None else _lost(futures[future], setting, lost)


def _lost(job: Job, setting: Setting, why: BaseException) -> JobResult:
    result = JobResult(
        job,
        "crashed",
        error=f"the Dask worker was lost: {in_words(why)}",
        error_type=type(why).__name__,
        log=str(setting.log(job)),
    )
    write_job(setting.folder(job), result)
    return result
