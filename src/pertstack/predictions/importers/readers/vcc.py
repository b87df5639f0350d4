"""``.vcc`` entries of the Virtual Cell Challenge and single ``.h5ad.zst`` files: unpacked to a scratch file, then read.

2025: a tar of ``pred.h5ad.zst`` and ``watermark.txt``; 2026: ``meta.json`` and ``pred.h5ad.zst``, in either order.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pertstack._base.errors import InputError
from pertstack._base.reading.damage import MODEST, PACKED_AT_MOST

MEMBER = "pred.h5ad.zst"
_STEP = 8_000_000
_ROOM = 500_000_000  # bytes of the disk that stay free


def unpacked(path: Path) -> Any:
    """A temporary ``.h5ad`` with what is packed in ``path``; it goes when the last reference to it goes.

    Raises
    ------
    InputError
        No entry, cut short, or larger than the disk.
    """
    scratch = tempfile.NamedTemporaryFile(prefix="pertstack-", suffix=".h5ad")  # noqa: SIM115  (kept by its reader)
    try:
        with _packed(path) as stream, pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd") as plain:
            written = 0
            while piece := plain.read(_STEP):
                written += len(piece)
                if written > max(MODEST, PACKED_AT_MOST * path.stat().st_size):
                    raise InputError(
                        f"{path} has {path.stat().st_size:,} bytes and unpacks to more than {written:,}: it is "
                        f"damaged, or made to fill the disk. Write it again where it was made."
                    )
                if written % (40 * _STEP) < _STEP and shutil.disk_usage(tempfile.gettempdir()).free < _ROOM:
                    raise InputError(
                        f"{path} unpacks to more than {written / 1e9:.0f} GB, more than {tempfile.gettempdir()} can "
                        f"hold. Point TMPDIR to a larger disk."
                    )
                scratch.write(piece)
        scratch.flush()
    except (OSError, EOFError, tarfile.TarError, pa.ArrowInvalid) as error:
        scratch.close()
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be unpacked ({reason}): it was cut short or is no entry of the Virtual Cell Challenge, "
            f"which is a tar of {MEMBER}. Copy it again, or make it again with `vcc prep`."
        ) from error
    return scratch


@contextmanager
def _packed(path: Path) -> Iterator[BinaryIO]:
    """The compressed bytes."""
    if not path.name.casefold().endswith(".vcc"):
        with path.open("rb") as stream:
            yield stream
        return
    with tarfile.open(path, "r:*") as archive:
        member = next((m for m in archive if Path(m.name).name == MEMBER and m.isfile()), None)
        found = None if member is None else archive.extractfile(member)
        if found is None:
            raise InputError(
                f"{path} holds no {MEMBER}, so it is no entry of the Virtual Cell Challenge. Make it with `vcc prep`."
            )
        yield found  # type: ignore[misc]
