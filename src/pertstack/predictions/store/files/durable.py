"""What makes a commit safe: private staging, flush to the disk, one directory rename.

Nothing here knows what is stored. Readers never look into ``staging/``; whoever dies leaves rubbish there and nowhere
else.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pertstack._base.errors import StorageError
from pertstack._base.files import LEASE_SECONDS, fsync, fsync_directory, is_dead, storage_error
from pertstack._base.machine.hosts import host_name


def new_attempt() -> str:
    """Name of one writer's attempt: host, process and a random part."""
    return f"{host_name()}-{os.getpid()}-{uuid.uuid4().hex}"


@contextmanager
def staging(root: Path, attempt: str | None = None) -> Iterator[Path]:
    """A private folder under ``root/staging``, removed at the end whatever happens (a killed process leaves it to
    gc)."""
    folder = root / "staging" / (attempt or new_attempt())
    try:
        folder.parent.mkdir(exist_ok=True)
        os.mkdir(folder)  # noqa: PTH102
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_file(path: Path, size: int) -> Iterator[Callable[[memoryview], None]]:
    """A file that must not exist yet, with its room reserved first so that a full disk shows before anything is
    written."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        reserve(fd, size)

        def write(data: memoryview) -> None:
            done = 0
            while done < len(data):
                done += os.write(fd, data[done:])

        yield write
    finally:
        os.close(fd)


def reserve(fd: int, size: int) -> None:
    """Reserve room on the disk, if the file system can."""
    if size <= 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def write_new(path: Path, content: bytes) -> None:
    """A small new file, not yet flushed."""
    with new_file(path, len(content)) as write:
        write(memoryview(content))


def flush_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    fsync(path)


def flush_tree(folder: Path) -> None:
    """Wait until every file, then every directory under ``folder`` is on the disk."""
    folders = []
    for here, _, files in os.walk(folder):
        folders.append(Path(here))
        for name in sorted(files):
            flush_file(Path(here) / name)
    for here_path in reversed(folders):
        fsync_directory(here_path)


def publish(staged: Path, target: Path) -> bool:
    """Rename a flushed folder into place: the one moment at which it becomes visible. False when somebody was first."""
    try:
        os.rename(staged, target)  # noqa: PTH104
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    fsync_directory(target.parent)
    return True


def probe_rename(root: Path) -> None:
    """Refuse a file system on which renaming a folder onto a non-empty one does not fail: two writers could both win
    there."""
    with staging(root) as folder:
        for name in ("first", "second"):
            (folder / name).mkdir()
            (folder / name / "mark").write_bytes(b"")
        try:
            won = publish(folder / "second", folder / "first")
        except OSError as error:
            raise storage_error(error, root) from error
        if won:
            raise StorageError(
                errno.ENOTSUP,
                f"The file system of {root} lets a folder be renamed onto another, so two writers could overwrite each "
                f"other's predictions. Put the study on a local disk or a POSIX network file system.",
            )


def dead_staging(root: Path, *, now: float | None = None, lease_seconds: float = LEASE_SECONDS) -> list[Path]:
    """Staging folders whose writer is gone: dead on this host, or older than the lease.

    Parameters
    ----------
    root : of the store.
    now : seconds, as ``time.time()``; None for now.
    lease_seconds : how long a writer may be silent.
    """
    folder = root / "staging"
    if not folder.is_dir():
        return []
    now = time.time() if now is None else now
    found = []
    for path in sorted(folder.iterdir()):
        host, _, pid = path.name.rpartition("-")[0].rpartition("-")
        if is_dead(path, host, pid, now=now, lease_seconds=lease_seconds):
            found.append(path)
    return found
