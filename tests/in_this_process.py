"""The jobs of one local worker are done in this process: to start another costs more than what most tests fit.

What goes to a worker is still packed and unpacked as on its way there. Several workers, a limit of time, and modules
that say ``OWN_PROCESSES = True`` have processes of their own as for a user.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest


@contextmanager
def jobs_in_this_process() -> Iterator[None]:
    """While it lasts, a single local worker is this process."""
    from pertstack.fit.jobs import pool
    from pertstack.fit.jobs.worker import run_job

    def here(jobs: Sequence[Any], setting: Any, *, workers: int, time_limit: float | None = None) -> Iterator[Any]:
        if workers > 1 or time_limit is not None:
            return pool.run_local(jobs, setting, workers=workers, time_limit=time_limit)
        pool._refuse_unpicklable(setting, jobs)
        jobs, setting = pickle.loads(ForkingPickler.dumps((list(jobs), setting)))
        return (run_job(job, setting) for job in jobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pertstack.fit.jobs.cross_fit.run_local", here)
        yield
