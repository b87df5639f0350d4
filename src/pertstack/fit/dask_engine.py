"""Jobs on a Dask cluster: the same jobs, the same results, on many machines that share a file system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from pertstack._base.errors import NeedsExtraError
from pertstack.fit.job_files import write_job
from pertstack.fit.jobs import Job, JobResult
from pertstack.fit.worker import Setting, in_words, run_job


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
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise NeedsExtraError(
            "The Dask engine needs dask and distributed, which are not installed here. Install them with: pip install "
            "'pertstack[dask]', or use engine='local'."
        ) from error
    with ExitStack() as stack:
        target: Any = address
        if address is None:
            target = stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
            )
        client = stack.enter_context(Client(target))
        futures = {client.submit(run_job, job, setting, pure=False, retries=0): job for job in jobs}
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
