"""The worker process: takes jobs from a pipe, one at a time, until the pipe closes.

Started by ``pool.py`` as ``python -m pertstack.fit.jobs.worker_main FD``, not by forking, so that threads, locks and
the caller's main script play no part in it.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection

GONE = (EOFError, ConnectionResetError, BrokenPipeError)
"""The other end of the pipe is closed: the run ended or was interrupted, and no process reads it any more."""


def main(descriptor: int) -> None:
    """Serve jobs. First message: import path; second: the setting; then jobs, each answered by its result."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pipe = Connection(descriptor)
    try:
        sys.path[:] = pipe.recv()
        setting = pipe.recv()
        from pertstack.fit.jobs.worker import run_job

        pipe.send("ready")
        job = pipe.recv()
    except GONE:
        return
    while True:
        result = run_job(job, setting, own_process=True)
        try:
            pipe.send(result)
            job = pipe.recv()
        except GONE:
            return


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)
    main(int(sys.argv[1]))
