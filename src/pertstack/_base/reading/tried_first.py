"""A stranger's file is read once in a child process with limits, before this process reads it.

Some libraries do not come back from damaged bytes, or ask for all the memory there is: libhdf5 follows a circle for
ever, pyarrow believes a forged length. Python cannot stop them from within. A child can be stopped: it may work for a
few seconds and take a gigabyte, both growing with the file. What it finds is thrown away, its errors too, because
this process reads the file again and says what is wrong with it; only a child that hung, crashed or asked for too much
is a refusal. Without the module ``resource`` (Windows) it is stopped by the clock alone.

The start of a Python costs more than most files, so one is started for all of them and forks for each.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pertstack._base.errors import InputError
from pertstack._base.machine.progress import remark

SECONDS, PER_SECOND = 5, 10**7
"""Seconds of work for a small file, and how many bytes more are worth another one."""
MEMORY, PER_BYTE = 10**9, 20
"""Bytes beyond those of the libraries, and how many more for each byte of the file."""
WAITING = 20
"""How much longer than its seconds of work a child may take on a busy machine or a slow disk."""
TOO_MUCH = 3
_START = "import sys; sys.path[:] = sys.argv[1:]; from pertstack._base.reading.tried_first import serve; serve()"
_fine: set[tuple[str, str, int, int, int]] = set()


def tried_first(path: Path, reader: str) -> None:
    """Read a file in a child process with limits.

    Parameters
    ----------
    path
        The file. It is tried once for as long as it stays the same.
    reader
        ``package.module:function``, which takes the path and reads all that will be read of the file.

    Raises
    ------
    InputError
        The library behind the reader hung, crashed or asked for far more memory than the file can need.
    """
    try:
        found = path.stat()
    except OSError:
        return  # the reader says so
    mark = (reader, str(path.resolve()), found.st_ino, found.st_size, found.st_mtime_ns)
    if mark in _fine or not path.is_file():
        return
    seconds, memory = SECONDS + found.st_size // PER_SECOND, memory_of(found.st_size)
    asked = {"reader": reader, "path": str(path.absolute()), "seconds": seconds, "memory": memory}
    asked["sys"] = [str(p) for p in sys.path]  # scripts append a Path
    try:
        ended = _APART.ask(asked, WAITING * seconds)
    except TimeoutError:
        raise _refusal(path, f"its library did not come back within {WAITING * seconds:,} seconds") from None
    if ended == TOO_MUCH:
        raise _refusal(path, f"it asks for more than {memory / 1e9:,.0f} GB of memory")
    if ended < 0:
        raise _refusal(path, _told(-ended, seconds))
    if ended > 0:  # Python itself did not start there, or could not import the reader
        remark(f"{path.name} could not be tried in a process apart (exit code {ended}); damage may hang this one.")
        return
    _fine.add(mark)


def memory_of(size: int) -> int:
    """Bytes that a child may take for a file of that many."""
    return MEMORY + PER_BYTE * size


class _Apart:
    """The process apart, started when it is first asked; a fork of this process starts its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner, self._lock = 0, threading.Lock()

    def ask(self, asked: dict[str, Any], seconds: float) -> int:
        """Exit code of the child that read a file, negative for a signal; TimeoutError if it does not come back."""
        if self._owner != os.getpid():
            self._process, self._owner, self._lock = None, os.getpid(), threading.Lock()
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._started()
            process, late = self._process, threading.Event()
            clock = threading.Timer(seconds, _end_late, (process, late))
            clock.start()
            try:
                process.stdin.write(json.dumps(asked) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                answer = process.stdout.readline()  # type: ignore[union-attr]
            except BrokenPipeError:
                answer = ""
            except BaseException:
                _kill(process)
                raise
            finally:
                clock.cancel()
            if answer:
                return int(answer)
            ended = process.wait()
            if late.is_set():
                raise TimeoutError
            return ended

    def _started(self) -> subprocess.Popen[str]:
        # a second BLAS thread takes address space and nothing is multiplied
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, *map(str, sys.path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # so that its children can be ended with it
        )
        atexit.register(_kill, process)
        return process


_APART = _Apart()


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process apart and the child that it waits for."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, 9)
        else:
            process.kill()


def _end_late(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    _kill(process)


def serve() -> None:
    """Read the files asked for on standard input, a line each, and answer with the exit code of the child that did.

    If there is no ``fork`` this process reads the file itself and ends, and its own exit code is the answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        asked = json.loads(line)
        sys.path[:] = asked["sys"]
        module, _, name = asked["reader"].partition(":")
        reader: Callable[[Path], object] = getattr(import_module(module), name)  # before the fork: imported once
        if not hasattr(os, "fork"):
            sys.exit(_read(reader, asked))
        pid = os.fork()
        if pid == 0:
            os._exit(_read(reader, asked))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers.write(f"{code}\n")
        answers.flush()


def _read(reader: Callable[[Path], object], asked: dict[str, Any]) -> int:
    """Exit code of the child."""
    _limit(asked["seconds"], asked["memory"])
    try:
        reader(Path(asked["path"]))
    except Exception as error:  # noqa: BLE001 (the parent reads the file again and names what is wrong)
        return TOO_MUCH if asks_too_much(error) else 0
    return 0


def _told(number: int, seconds: int) -> str:
    import signal

    if number in (getattr(signal, "SIGXCPU", 0), getattr(signal, "SIGKILL", 0)):
        return f"its library did not come back within {seconds:,} seconds of work"
    return f"its library crashed on it (signal {number})"


def _refusal(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} cannot be read: {why}. It was tried in a process apart, and nothing was changed. The file is damaged: "
        f"copy it again from where it was made, or write it again there."
    )


def asks_too_much(error: BaseException) -> bool:
    """Whether an allocation failed, in whatever words the library says it."""
    said = str(error).casefold()
    return isinstance(error, MemoryError) or "alloc" in said or "out of memory" in said


def _limit(seconds: int, memory: int) -> None:
    try:
        import resource
    except ImportError:
        return
    now = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 10**6
    space = now * resource.getpagesize() + memory
    for which, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, space), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(which)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (most, hard))
