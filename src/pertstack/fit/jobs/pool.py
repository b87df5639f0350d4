"""A local pool of worker processes in which a dying worker costs its own job and nothing else.

``concurrent.futures`` gives up the whole pool when one process is killed, for example by the system for lack of memory;
a night of work should not end so. Each worker holds one job at a time, so the pool always knows whose job a death
ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from pickle import PicklingError

from pertstack._base.errors import InputError, ModelFailedError
from pertstack.fit.jobs.job import Job, JobResult, Status
from pertstack.fit.jobs.job_files import write_job
from pertstack.fit.jobs.worker import Setting

PATIENCE = 3.0  # seconds a worker has to leave before it is killed
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    ready: bool = False
    job: Job | None = None
    started: float = 0.0

    @classmethod
    def start(cls, setting: Setting) -> _Worker:
        ours, theirs = Pipe()
        threads = dict.fromkeys(_THREAD_VARIABLES, str(setting.threads))
        process = subprocess.Popen(
            [sys.executable, "-m", "pertstack.fit.jobs.worker_main", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **threads, **_import_path()},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        ours.send(sys.path)
        ours.send(setting)
        return cls(process, ours)

    def give(self, job: Job) -> None:
        self.job, self.started = job, time.monotonic()
        self.pipe.send(job)

    def end(self, *, kill: bool = False) -> int:
        """Close the pipe (an idle worker then leaves) or kill the worker and what it started; its exit code."""
        self.pipe.close()
        if kill and self.process.poll() is None:
            self.process.terminate()  # lets an external model's program be ended as well
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


def run_local(
    jobs: Sequence[Job], setting: Setting, *, workers: int, time_limit: float | None = None
) -> Iterator[JobResult]:
    """Results in the order in which jobs end. Workers are killed when the caller stops listening (also by Ctrl-C).

    Parameters
    ----------
    jobs : done in this order, as workers become free.
    setting : where rows come from and predictions go.
    workers : processes, at most one per job.
    time_limit : seconds per job, after which it is killed and counts as failed; None for no limit.

    Raises
    ------
    InputError
        What the jobs need cannot be sent to another process.
    """
    _refuse_unpicklable(setting, jobs)
    waiting, pool = deque(jobs), list[_Worker]()
    try:
        pool.extend(_Worker.start(setting) for _ in range(min(workers, len(jobs))))
        while waiting or any(w.job is not None for w in pool):
            _hand_out(waiting, pool, setting, workers)
            for pipe in wait([w.pipe for w in pool], timeout=_patience(pool, time_limit)):
                worker = next(w for w in pool if w.pipe is pipe)
                result = _listen(worker, pool, setting)
                if result is not None:
                    yield result
            yield from _overdue(pool, setting, time_limit)
    finally:
        for worker in pool:
            worker.end(kill=worker.job is not None or not worker.ready)


def _hand_out(waiting: deque[Job], pool: list[_Worker], setting: Setting, workers: int) -> None:
    """Give every idle worker a job, and replace workers that died while jobs are waiting."""
    for worker in pool:
        if waiting and worker.ready and worker.job is None:
            worker.give(waiting.popleft())
    unserved = len(waiting) - sum(not w.ready for w in pool)
    while unserved > 0 and len(pool) < workers:
        pool.append(_Worker.start(setting))
        unserved -= 1


def _listen(worker: _Worker, pool: list[_Worker], setting: Setting) -> JobResult | None:
    """One message of a worker: it is ready, its job has ended, or it is dead (end of file)."""
    try:
        message = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        pool.remove(worker)
        code = worker.end(kill=True)
        if worker.job is None:
            raise ModelFailedError(
                f"A worker process ended with code {code} before it took a job; what it printed is above. Jobs "
                f"that call functions of a notebook or script cannot be sent to it: move them to a module, or use "
                f"engine='inline'."
            ) from None
        return _lost(worker, setting, "crashed", f"the worker process was lost: {_exit_in_words(code)}")
    if message == "ready":
        worker.ready = True
        return None
    assert isinstance(message, JobResult), message
    worker.job = None
    return message


def _overdue(pool: list[_Worker], setting: Setting, time_limit: float | None) -> Iterator[JobResult]:
    if time_limit is None:
        return
    for worker in [w for w in pool if w.job is not None and time.monotonic() - w.started > time_limit]:
        pool.remove(worker)
        worker.end(kill=True)
        why = f"stopped after the time limit of {time_limit:g} s. Raise the limit, or make the model smaller."
        yield _lost(worker, setting, "timeout", why)


def _lost(worker: _Worker, setting: Setting, status: Status, why: str) -> JobResult:
    """Result of a job whose worker cannot tell; written to ``job.json`` in its place."""
    assert worker.job is not None
    seconds, log = time.monotonic() - worker.started, setting.log(worker.job)
    result = JobResult(worker.job, status, seconds, error=why, error_type="ModelFailedError", log=str(log))
    write_job(setting.folder(worker.job), result)
    return result


def _exit_in_words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by signal 9, as the system does when memory runs out. Use fewer workers or a smaller model."
    if code < 0:
        return f"ended by signal {-code} ({signal.Signals(-code).name}); its log may say more."
    return f"it left with exit code {code}; its log may say more."


def _patience(pool: list[_Worker], time_limit: float | None) -> float | None:
    """Seconds until the next job is overdue; None waits without limit."""
    busy = [w.started for w in pool if w.job is not None]
    return None if time_limit is None or not busy else max(0.05, min(busy) + time_limit - time.monotonic())


def _import_path() -> dict[str, str]:
    """Lets the new interpreter find this package even if it is not installed (a source tree on the path)."""
    root = str(Path(__file__).resolve().parents[3])
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}


def _refuse_unpicklable(setting: Setting, jobs: Sequence[Job]) -> None:
    try:
        ForkingPickler.dumps((setting, list(jobs)))
    except (PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"The functions that load rows and commit predictions cannot be sent to worker processes ({error}). Make "
            f"them functions or classes of a module, or run with engine='inline'."
        ) from error
