"""Files that are seen whole or not at all: write aside, flush to the disk, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pertstack._base.errors import CorruptionError, InputError, MissingFileError, StackingError, StorageError
from pertstack._base.machine.hosts import alive, host_name

LEASE_SECONDS = 7 * 24 * 3600.0
"""What an unknown or unreachable writer has begun is left alone for a week."""


_unfinished: set[str] = set()
"""Folders of ``whole`` that are still private: they are flushed once, at their end, and not piece by piece before."""


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable, if the platform can."""
    if os.name == "posix":
        fsync(path)


def fsync(path: Path) -> None:
    """Wait until a file's bytes are on the disk; at once inside a folder of ``whole``, which sees to it later."""
    if _unfinished and os.path.abspath(path).startswith(tuple(_unfinished)):  # noqa: PTH100 (ten times quicker)
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of(path: Path) -> str:
    """Of all bytes of a file, which never lies in memory as a whole."""
    require_plain(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, also after a power cut.

    Raises
    ------
    StorageError
        Disk full or not writable; whatever was at ``path`` before is still there.
    """
    path = Path(path)
    part: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(part, 0o666 & ~_umask())  # noqa: PTH101 (part is a plain string)
        os.replace(part, path)  # noqa: PTH105
        part = None
        fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file or folder to be written under; at the end it takes its place at ``path``.

    So ``path`` holds everything or is not there. What killed processes left beside it is removed first.

    Raises
    ------
    StorageError
        Disk full or not writable; nothing was left behind.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{host_name()}-{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in leftovers(path.parent):
            remove(left)
        _unfinished.add(f"{part.absolute()}{os.sep}")
        yield part
        _unfinished.discard(f"{part.absolute()}{os.sep}")
        for file in [part, *part.rglob("*")] if part.is_dir() else [part]:
            fsync(file)
        _put(part, path)
    except StackingError:
        raise
    except OSError as error:
        number = error.errno or int((re.findall(r"[Ee]rrno =? ?(\d+)", str(error)) or [0])[0])  # h5py says it in words
        if number not in _REFUSALS:
            raise
        raise storage_error(OSError(number, str(error)), path) from error
    finally:
        _unfinished.discard(f"{part.absolute()}{os.sep}")
        remove(part)


def _put(part: Path, path: Path) -> None:
    """Give a finished file or folder its name; whatever is in the way (a folder of that name) is a refusal."""
    try:
        part.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error


def leftovers(folder: Path) -> list[Path]:
    """What writers that are gone have left in a folder under the names that ``whole`` gives."""
    found = []
    for path in sorted(folder.glob(".*-*.part")):
        host, _, pid = path.name.removesuffix(".part").rpartition(".")[2].rpartition("-")
        if "_" in host and is_dead(path, host, pid, now=time.time()):
            found.append(path)
    return found


def is_dead(path: Path, host: str, pid: str, *, now: float, lease_seconds: float = LEASE_SECONDS) -> bool:
    """Whether a writer is gone: dead on this host, or silent for longer than the lease.

    Parameters
    ----------
    path : what it wrote; its last change is its last sign of life.
    host, pid : of the writer; only on this host the process is looked for.
    now : seconds, as ``time.time()``.
    lease_seconds : how long a writer may be silent.
    """
    if host == host_name() and pid.isdigit() and not alive(int(pid)):
        return True
    return now - path.stat().st_mtime > lease_seconds


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if it is there; a link goes and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


_REFUSALS = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: finished work is kept.",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the command again: finished work is kept.",
    errno.EROFS: "the file system is read-only. Choose a folder you can write to, or copy the study to one.",
    errno.EACCES: "permission is denied. Check who owns the folder.",
}


def storage_error(error: OSError, path: Path) -> StorageError:
    """The disk's refusal in words a user can act on."""
    why = _REFUSALS.get(error.errno or 0, f"{error.strerror or error}.")
    return StorageError(error.errno or 0, f"Cannot write {path}: {why}")


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: sorted keys, two spaces, one newline at the end, no NaN."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file we wrote; says plainly when it is missing or damaged."""
    path = Path(path)
    require_plain(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist.") from error
    except (ValueError, RecursionError) as error:
        raise CorruptionError(
            f"{path} is not valid JSON ({error}). It was written whole by pertstack, so something changed it since; "
            f"restore it from a copy, or delete it and run the step that writes it again."
        ) from error


def require_plain(path: Path, error: type[StackingError] = CorruptionError) -> None:
    """Refuse a pipe or a device: whoever opens it may wait for ever. A folder is the reader's to refuse.

    Parameters
    ----------
    path : Path
        A file of a study, or one that a user named.
    error : type
        What to raise: by default what is raised for files of a study.

    Raises
    ------
    StackingError
        It is neither a file nor a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise error(
            f"{path} is no plain file but a pipe or a device, as <(...) and /dev/stdin are, and files are read more "
            f"than once. Write it to a file, and name that."
        )


def missing_file(path: Path) -> MissingFileError:
    """The error for a path that does not exist, with near names from the same folder."""
    require_plain(path, InputError)
    folder = path.parent
    if not folder.is_dir():
        return MissingFileError(f"{path} does not exist: there is no folder {folder} either. Check the path.")
    near = get_close_matches(path.name, [p.name for p in folder.iterdir()], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(str(folder / n)) for n in near)}?" if near else " Check the path."
    return MissingFileError(f"{path} does not exist.{hint}")
