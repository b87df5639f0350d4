"""A stranger's file is read once in a child process with limits, before this process reads it.

Some libraries do not come back from damaged bytes, or ask for all the memory there is: libhdf5 follows a circle for
ever, pyarrow believes a forged length. Python cannot stop them from within. A child can be stopped: it may work for a
few seconds and take a gigabyte, both growing with the file. What it finds is thrown away, its errors too, because
this process reads the file again and says what is wrong with it; only a child that hung, crashed or asked for too much
is a refusal. Without the module ``resource`` (Windows) it is stopped by the clock alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from pertstack._base.errors import InputError
from pertstack._base.machine.progress import remark

SECONDS, PER_SECOND = 5, 10**7
"""Seconds of work for a small file, and how many bytes more are worth another one."""
MEMORY, PER_BYTE = 10**9, 20
"""Bytes beyond those of the libraries, and how many more for each byte of the file."""
WAITING = 20
"""How much longer than its seconds of work a child may take on a busy machine or a slow disk."""
TOO_MUCH = 3
_START = "import sys; sys.path[:] = sys.argv[3:]; from pertstack._base.reading.tried_first import child; child()"
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
    seconds = SECONDS + found.st_size // PER_SECOND
    command = [sys.executable, "-I", "-c", _START, reader, str(path), *sys.path]
    try:
        # a second BLAS thread takes address space and nothing is multiplied
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WAITING * seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        raise _refusal(path, f"its library did not come back within {WAITING * seconds:,} seconds") from None
    if ended == TOO_MUCH:
        raise _refusal(path, f"it asks for more than {memory_of(found.st_size) / 1e9:,.0f} GB of memory")
    if ended < 0:
        raise _refusal(path, _told(-ended, seconds))
    if ended > 0:  # Python itself did not start there, or could not import the reader
        remark(f"{path.name} could not be tried in a process apart (exit code {ended}); damage may hang this one.")
        return
    _fine.add(mark)


def memory_of(size: int) -> int:
    """Bytes that a child may take for a file of that many."""
    return MEMORY + PER_BYTE * size


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


def child() -> None:
    """Read the file named by the arguments under limits; exit code 3 when it asks for more memory than it may."""
    module, _, name = sys.argv[1].partition(":")
    reader: Callable[[Path], object] = getattr(import_module(module), name)
    path = Path(sys.argv[2])
    _limit(path.stat().st_size)
    try:
        reader(path)
    except Exception as error:  # noqa: BLE001 (the parent reads the file again and names what is wrong)
        sys.exit(TOO_MUCH if asks_too_much(error) else 0)


def asks_too_much(error: BaseException) -> bool:
    """Whether an allocation failed, in whatever words the library says it."""
    said = str(error).casefold()
    return isinstance(error, MemoryError) or "alloc" in said or "out of memory" in said


def _limit(size: int) -> None:
    try:
        import resource
    except ImportError:
        return
    seconds = SECONDS + size // PER_SECOND
    now = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 10**6
    space = now * resource.getpagesize() + memory_of(size)
    for which, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, space), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(which)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (most, hard))
