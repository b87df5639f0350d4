"""Files in object stores and on the web: copied once to a scratch folder, then read as any other.

Any address that fsspec knows by ``s3://``, ``gs://``, ``hf://``, ``http(s)://`` and a few more. User names, passwords
and what stands behind a ``?`` (signatures) are never shown or stored; credentials are found by the libraries
themselves, in the environment or their own files.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pertstack._base.errors import InputError, MissingFileError, StackingError
from pertstack._base.files import require_plain
from pertstack._base.machine.progress import remark
from pertstack._base.machine.scratch import scratch_path

SCHEMES = ("s3", "s3a", "gs", "gcs", "hf", "http", "https", "az", "abfs", "abfss", "memory")
_ADDRESS = re.compile(rf"^({'|'.join(SCHEMES)}):/+(?=[^/])")
_OTHER = re.compile(r"^([a-z][a-z0-9+.\-]+):/+(?=[^/])", re.IGNORECASE)  # two letters or more: C:/ is a disk
ANSWER_SECONDS = 20.0
"""How long a store may take to say what lies at an address."""
T = TypeVar("T")


def is_remote(path: str | Path) -> bool:
    """Whether a path is an address.

    >>> is_remote("s3://bucket/cells.h5ad"), is_remote(Path("https://host/x.zarr")), is_remote("C:/data/x.h5ad")
    (True, True, False)
    """
    return _ADDRESS.match(str(path)) is not None


def redacted(text: str | Path) -> str:
    """An address, or a text with addresses in it, without user names, passwords, queries and fragments.

    >>> redacted("https://me:secret@host/x.h5ad?X-Amz-Signature=abc")
    'https://***@host/x.h5ad?***'
    """
    text = _ADDRESS.sub(r"\1://", str(text))  # a path drops one of the slashes
    text = re.sub(r"(\w:/+)[^/\s'\"?#]*@", r"\1***@", text)
    return re.sub(r"(\w:/+[^\s'\"?#]+)[?#][^\s'\")]*", r"\1?***", text)


def name_of(path: str | Path) -> str:
    """The last part of an address or path, without a query."""
    text = str(path)
    return Path(re.split(r"[?#]", text)[0] if is_remote(text) else text).name


def local(path: str | Path) -> Path:
    """The path itself, or where the copy of what lies at an address is.

    Raises
    ------
    MissingFileError
        Nothing lies there.
    InputError
        It is a pipe or a device; the kind of address is not known, a package is missing, the store does not answer or
        refuses, or the disk has no room.
    """
    if is_remote(path):
        return _copied(_ADDRESS.sub(r"\1://", str(path)))
    other = _OTHER.match(str(path))
    if other is None or Path(path).exists():
        require_plain(Path(path), InputError)
        return Path(path)
    if other[1].casefold() == "file":
        return local("/" + str(path)[other.end() :])
    shown = re.sub(r"//[^/@]*@", "//***@", _OTHER.sub(r"\1://", str(path)).partition("?")[0])
    raise InputError(
        f"{shown}: addresses of {other[1]!r} are not read. Known are "
        f"{', '.join(SCHEMES[:-1])}. Copy the file here with a program that knows it, and name the copy."
    )


@cache
def _copied(address: str) -> Path:
    shown = redacted(address)
    try:
        system, where, facts = _asked(address, shown)
        web = address.startswith("http")
        folder = facts["type"] == "directory" or (web and name_of(address.rstrip("/")).endswith(".zarr"))
        size = int(system.du(where)) if folder and not web else int(facts.get("size") or 0)
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if size > free:
            raise InputError(
                f"{shown} has {size / 1e9:,.1f} GB, and {tempfile.gettempdir()} has {free / 1e9:,.1f} GB free. It is "
                f"copied once before it is read: point TMPDIR to a larger disk."
            )
        remark(f"copying {shown} ({size / 1e6:,.1f} MB)")
        to = scratch_path(name_of(address.rstrip("/")))
        if folder and web:
            _get_listed(system, where.rstrip("/") + "/", to)
        else:
            system.get(where.rstrip("/"), str(to), recursive=folder)
        if not to.exists():
            raise InputError(
                f"{shown}: no file came back. A web server that does not list its folders cannot give a zarr folder: "
                f"copy it here by other means and name the copy."
            )
    except StackingError:
        raise
    except Exception as error:  # noqa: BLE001  (each store has its own errors; all mean that there is no copy)
        raise _refused(shown, error) from None  # the original may show the address whole
    return to


def _get_listed(system: Any, where: str, to: Path) -> None:
    """The files of a folder of a web server, as it lists them; nothing if it does not."""
    names = [n for n in system.find(where) if n.startswith(where) and not n.endswith("/")]
    places = [to / n.removeprefix(where) for n in names]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    if names:
        system.get(names, [str(p) for p in places])


def _asked(address: str, shown: str) -> tuple[Any, str, Any]:
    """The file system of an address, the path in it, and what lies there."""
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError:
        raise _no_package(shown, "fsspec") from None

    def ask(**options: Any) -> tuple[Any, str, Any]:
        system, where = url_to_fs(address, **options)
        return system, where, system.info(where)

    scheme = address.partition(":")[0]
    try:
        fsspec.get_filesystem_class(scheme)
        options = _patience() if scheme.startswith("http") else {}
    except (ImportError, ValueError) as error:
        raise _no_package(shown, str(error)) from None
    try:
        return _within(ANSWER_SECONDS, lambda: ask(**options), shown)
    except Exception as error:
        if scheme in ("s3", "s3a") and "credentials" in f"{type(error).__name__} {error}".casefold():
            return _within(ANSWER_SECONDS, lambda: ask(anon=True, **options), shown)  # a public bucket
        raise


def _patience() -> dict[str, Any]:
    """A web server may send for hours, but not be silent for a minute."""
    import aiohttp

    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)}}


def _within(seconds: float, work: Callable[[], T], shown: str) -> T:
    """What ``work`` returns or raises; InputError if it takes longer. It goes on in the background then."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append((True, work()))
        except BaseException as error:  # noqa: BLE001  (raised again in the thread that waits)
            done.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise InputError(
            f"{shown} did not answer within {seconds:.0f} seconds. Is the name right, and can this machine reach the "
            f"store? Copy the file here by other means and name the copy."
        )
    good, found = done[0]
    if good:
        return found  # type: ignore[no-any-return]
    raise found


def _no_package(shown: str, why: str) -> InputError:
    return InputError(
        f"{shown} lies in a store that needs a package which is not installed ({redacted(why)}). Install it: pip "
        f"install 'pertstack[remote]'"
    )


def _refused(shown: str, error: Exception) -> StackingError:
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"Nothing lies at {shown}, or it may not be seen with these credentials.")
    said = redacted(str(error).splitlines()[0] if str(error) else "")
    return InputError(
        f"{shown} cannot be copied: {type(error).__name__}{f': {said}' if said else ''}. Check the name, the network "
        f"and the credentials in the environment, or copy the file here by other means and name the copy."
    )
