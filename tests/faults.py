"""Kill -9, or a full disk, at the n-th call that touches the files of a folder: in a child, so that nothing cleans up.

Python tells every open, rename, remove, mkdir and so on to audit hooks before it happens; writes and flushes to the
disk are counted as well. A child is forked for each fault and goes through the step under test.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Fault = Literal["kill", "full"]
_EVENTS = frozenset(
    {
        "open",
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.move",
        "shutil.rmtree",
    }
)


class _Counter:
    """Counts calls below ``root`` that could change it; at the chosen one the fault happens."""

    def __init__(self, root: Path, at: int | None, fault: Fault) -> None:
        self.root, self.at, self.fault, self.n = str(root), at, fault, 0

    def __call__(self) -> None:
        self.n += 1
        if self.n != self.at:
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device")

    def hook(self, event: str, words: tuple[object, ...]) -> None:
        if event in _EVENTS and any(str(w).startswith(self.root) for w in words[:2] if isinstance(w, str | Path)):
            if event == "open" and isinstance(words[2], int) and not words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return  # only reads
            self()

    def install(self) -> None:
        sys.addaudithook(self.hook)
        for name in ("write", "fsync"):
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(fd: int, *words: object) -> object:
            try:
                inside = str(Path(f"/proc/self/fd/{fd}").readlink()).startswith(self.root)
            except OSError:
                inside = False
            if inside:
                self()
            return call(fd, *words)

        return counted


def what_is_left(root: Path) -> frozenset[tuple[str, int]]:
    """Names and sizes of all files; of those written aside their names without the random part."""
    files = [(p.relative_to(root).as_posix(), p.stat().st_size) for p in root.rglob("*") if p.is_file()]
    return frozenset((re.sub(r"\.[^./]+\.part$", ".part", name), size) for name, size in files)


def run_with_fault(step: Callable[[], object], root: Path, *, at: int | None, fault: Fault = "kill") -> int:
    """Run a step in a child with a fault at call ``at`` (None: no fault). How many calls there were, or -1 when it was
    killed, or -2 when it ended with an error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        counter, said = _Counter(root, at, fault), -2
        counter.install()
        try:
            step()
            said = counter.n
        except BaseException as error:  # noqa: BLE001 (the child must not go on as a test)
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os.write(writing, str(said).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return int(said) if said else -1
