"""Somebody else's program, kept away from the study: what it may see, use and leave behind.

It runs in an exchange folder outside the study, with a short list of environment variables, in a process group with
limits, and with a log that stops growing. If bubblewrap works it has no network, a read-only file system and no
view of the study; ``docs/security.md`` says what remains possible without it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

GIB = 2**30
SHARED = Path("/dev/shm")
LOG_HEAD, LOG_TAIL = 4 * 2**20, 64 * 2**10  # bytes of the log that are kept: its beginning, and its end
PASSED = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_HOME",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "SYSTEMROOT",
    }
)
"""Variables a program gets from the caller, besides those that start with LC_."""
BOXED = "bubblewrap: no network, files read-only, no view of the study"
LIMITED = "limits only: bubblewrap is not usable here, so its program could read the files of this user"


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use."""

    seconds: float
    memory: int | None = None  # bytes of data; None: the memory of the machine
    file_size: int = 64 * GIB  # bytes of one file
    processes: int = 4096


def kind() -> str:
    """Which box programs run in on this machine, in words for the board."""
    return BOXED if _bubblewrap() else LIMITED


def environment(folder: Path) -> dict[str, str]:
    """The variables a program gets; home and temporary files are inside its folder."""
    found = {k: v for k, v in os.environ.items() if k in PASSED or k.startswith("LC_")}
    home = folder / ".home"
    home.mkdir(exist_ok=True)
    return {**found, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}


def run(
    command: Sequence[str],
    folder: Path,
    log: Path,
    *,
    limits: Limits,
    hidden: Sequence[Path] = (),
    needed: Sequence[Path] = (),
) -> int:
    """Run a program in its folder until it ends; everything it started is ended with it. Returns its exit code.

    Parameters
    ----------
    command : program and arguments; nothing is read by a shell.
    folder : where it runs, and the only one it may write to (if bubblewrap works).
    log : file to which its output is appended.
    limits : of time, memory, file size and processes.
    hidden : folders and files it must not see (only if bubblewrap works).
    needed : folders it reads. Only those in shared memory, which is its own and empty in bubblewrap, must be named.

    Raises
    ------
    subprocess.TimeoutExpired
        It was over its time; it is dead then.
    OSError
        It cannot be started.
    """
    if shutil.which(command[0], path=os.environ.get("PATH")) is None:
        raise FileNotFoundError(2, "no such program", command[0])
    process = subprocess.Popen(
        _boxed(command, folder, hidden, needed),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(folder),
        start_new_session=True,
        preexec_fn=(lambda: _limit(limits)) if os.name == "posix" else None,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=_keep_log, args=(process.stdout, log), daemon=True)
    reader.start()
    try:
        code = process.wait(timeout=limits.seconds)
    finally:
        _end(process, folder)
        reader.join(timeout=5)
    return 128 - code if code > 128 and _bubblewrap() else code  # bubblewrap tells a signal as 128 + its number


def plain_file(path: Path) -> bool:
    """Whether a path is a file that the program wrote there, and no link to another."""
    return path.is_file() and not path.is_symlink() and path.lstat().st_nlink == 1


def keep(folder: Path, target: Path) -> Path:
    """Move what a failed program left to ``target``, for a look; links are dropped."""
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            path.unlink()
    shutil.rmtree(folder / ".home", ignore_errors=True)
    shutil.move(folder, target)
    return target


def _boxed(command: Sequence[str], folder: Path, hidden: Sequence[Path], needed: Sequence[Path]) -> list[str]:
    program = _bubblewrap()
    if program is None:
        return list(command)
    words = [program, "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--tmpfs", str(SHARED)]
    for path in needed:
        if SHARED in path.resolve().parents:
            words += ["--ro-bind", str(path.resolve()), str(path.resolve())]
    for path in hidden:
        there = str(path.resolve())
        words += ["--tmpfs", there] if path.is_dir() else ["--ro-bind", "/dev/null", there]
    words += ["--bind", str(folder), str(folder), "--chdir", str(folder)]
    return [*words, "--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--", *command]


@cache
def _bubblewrap() -> str | None:
    """The bubblewrap program, when it is installed and this user may use it."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    words = [program, "--ro-bind", "/", "/", "--proc", "/proc", "--unshare-net", "--unshare-pid", "--", "true"]
    try:
        tried = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return program if tried.returncode == 0 else None


def _limit(limits: Limits) -> None:
    """In the child, before the program starts. A limit that is lower already stays."""
    import resource  # not on every system

    wanted: Mapping[int, int] = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_DATA: limits.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        resource.RLIMIT_NPROC: limits.processes,
    }
    for which, value in wanted.items():
        _, hard = resource.getrlimit(which)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (most, most))


def _keep_log(stream: IO[bytes], log: Path) -> None:
    """The beginning and the end of what a program says; the middle is counted and dropped."""
    tail: deque[bytes] = deque()
    kept, waiting, dropped = 0, 0, 0
    with log.open("ab") as out:
        while chunk := os.read(stream.fileno(), 2**16):
            room = max(0, LOG_HEAD - kept)
            out.write(chunk[:room])
            out.flush()
            kept += min(room, len(chunk))
            if rest := chunk[room:]:
                tail.append(rest)
                waiting += len(rest)
            while waiting - len(tail[0] if tail else b"") >= LOG_TAIL:
                gone = len(tail.popleft())
                waiting, dropped = waiting - gone, dropped + gone
        if dropped:
            out.write(f"\n[{dropped:,} bytes were not kept]\n".encode())
        out.writelines(tail)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill what is left of the program and of all it started; runs also when the job itself is being stopped."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    while strays := _strays(folder):
        for pid in strays:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _strays(folder: Path) -> list[int]:
    """Processes that left the program's group, as a server does, known by the home they were given (Linux tells)."""
    mine, found = f"HOME={folder / '.home'}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mine in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
