"""Sums that a killed run leaves behind, so that the next one goes on where it stopped, to the same bits.

They lie in the cache folder under the digest of what is summed: the file (path, size, time of its last change), the
group of every cell, the kind of values. A run that ends removes them. Whole numbers are summed, so it does not matter
where the sums were cut.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pertstack._base.digests import digest_json
from pertstack._base.errors import StorageError
from pertstack._base.files import whole
from pertstack._base.machine.cache import cache_folder
from pertstack._base.machine.progress import remark
from pertstack.data.cells.sums import GroupSums
from pertstack.data.readers.matrices import RowSource, StoredRows

EVERY = 60.0
"""Seconds between two times of keeping, at least."""
SHARE = 0.05
"""Of the time of a run, at most, that goes into keeping."""
OLD = 7 * 24 * 3600.0
"""Seconds after which kept sums of other runs are removed."""
AT_ONCE = 64 * 10**6


@dataclass
class KeptSums:
    """Where the sums of one pass are kept; nowhere (``path`` None) if the cells are in no file."""

    path: Path | None
    _last: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    @classmethod
    def of(cls, matrix: RowSource, what: Sequence[str], arrays: Sequence[np.ndarray[Any, Any]]) -> KeptSums:
        """For the cells of a matrix.

        Parameters
        ----------
        matrix : the cells, in a file or not.
        what : words that the sums depend on beside the file.
        arrays : arrays they depend on: the group of every cell, its half.
        """
        if not isinstance(matrix, StoredRows):
            return cls(None)
        parts = [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(a).data) for a in arrays]
        key = digest_json([_state(matrix.path), matrix.key, list(map(int, matrix.shape)), list(what), parts])
        return cls(cache_folder() / "cells" / f"{key[:32]}.sums")

    def load(self, sums: GroupSums) -> int:
        """Fill empty sums with what is kept, and say where to go on; 0 if nothing is, or it is damaged."""
        if self.path is None or not self.path.is_file():
            return 0
        try:
            return _read(self.path, sums)
        except (OSError, ValueError, EOFError):
            sums.values[:] = 0
            for array in (sums.n_cells, sums.n_half, sums.depth):
                array[:] = 0
            sums.highest = sums.deepest = 0.0
            return 0

    def keep(self, sums: GroupSums, at: int) -> None:
        """Write the sums of everything before ``at``, if it is time."""
        now = time.monotonic()
        if self.path is None or now - self._last < max(EVERY, self._cost / SHARE):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_old(self.path.parent)
            with whole(self.path) as part:
                _write(part, sums, at)
        except (OSError, StorageError) as error:
            remark(f"Sums are not kept on the way ({error}): if this run is killed, the next one starts afresh.")
            self.path = None
        self._last = time.monotonic()
        self._cost = self._last - now

    def done(self) -> None:
        """Nothing has to be kept any more."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _state(path: Path) -> list[Any]:
    """Path, size and time of the last change; of a folder, those of all its files."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    found = [(str(p.resolve()), (s := p.stat()).st_size, s.st_mtime_ns) for p in files]
    return found if len(found) == 1 else [str(path.resolve()), digest_json(found)]


def _write(path: Path, sums: GroupSums, at: int) -> None:
    digest = xxhash.xxh3_128()
    with path.open("wb") as stream:
        for array in (np.array([at]), sums.n_cells, sums.n_half, sums.depth, np.array([sums.highest, sums.deepest])):
            np.save(stream, array)
            digest.update(array.tobytes())
        for part in _parts(sums):
            values = np.ascontiguousarray(sums.values[part])
            digest.update(values.data)
            stream.write(values.data)
        stream.write(digest.digest())


def _read(path: Path, sums: GroupSums) -> int:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        small = [np.load(stream, allow_pickle=False) for _ in range(5)]
        for array in small:
            digest.update(array.tobytes())
        for part in _parts(sums):
            values = np.empty(sums.values[part].shape, dtype=np.int64)
            if stream.readinto(values.data) != values.nbytes:
                raise EOFError(f"{path} is cut short")
            digest.update(values.data)
            sums.values[part] = values
        if stream.read() != digest.digest():
            raise ValueError(f"{path} is damaged")
    sums.n_cells[:], sums.n_half[:], sums.depth[:] = small[1:4]
    sums.highest, sums.deepest = map(float, small[4])
    return int(small[0][0])


def _parts(sums: GroupSums) -> list[slice]:
    """Groups, some megabytes of sums at a time."""
    step = max(1, AT_ONCE // max(1, sums.n_genes * 32))
    return [slice(start, min(sums.n_groups, start + step)) for start in range(0, sums.n_groups, step)]


def _remove_old(folder: Path) -> None:
    for path in folder.glob("*.sums"):
        if time.time() - path.stat().st_mtime > OLD:
            path.unlink(missing_ok=True)
