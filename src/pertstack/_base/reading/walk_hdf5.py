"""Touch everything in an HDF5 file, as whoever reads it will: run in a child process by ``tried_first``.

Groups, attributes and indices of chunks are gone through; texts and what is small are read whole; of large arrays of
numbers the first and last rows, since what a chunk holds is unpacked by its checksum or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from pertstack._base.reading.hdf5 import open_hdf5
from pertstack._base.reading.tried_first import asks_too_much

BLOCK, WHOLE, DEEPEST = 8 * 10**6, 64 * 10**6, 50


def walk(path: Path) -> None:
    """Go through a file. An object that cannot be read is passed over; the reader will say so.

    Raises
    ------
    MemoryError
        An object asks for more memory than this process may take.
    """
    with open_hdf5(path) as file:
        _group(file, set(), 0, path.stat().st_size)


def _group(group: Any, seen: set[int], depth: int, size: int) -> None:
    _passing_over(lambda: dict(group.attrs))
    for name in _passing_over(lambda: list(group)) or ():

        def enter(name: str = name) -> None:
            if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                return
            at = group[name]
            address = h5py.h5o.get_info(at.id).addr
            if address in seen:
                return
            seen.add(address)
            if isinstance(at, h5py.Group):
                if depth < DEEPEST:
                    _group(at, seen, depth + 1, size)
            elif isinstance(at, h5py.Dataset):
                _dataset(at, size)

        _passing_over(enter)


def _passing_over(step: Any) -> Any:
    try:
        return step()
    except Exception as error:
        if asks_too_much(error):
            raise MemoryError from error
        return None


def _dataset(data: Any, size: int) -> None:
    _passing_over(lambda: dict(data.attrs))
    if data.chunks:
        data.id.get_num_chunks()
    if data.shape is None:
        return
    if data.shape == ():
        data[()]
        return
    count = 1
    for n in data.shape:
        count *= int(n)
    declared = count * data.dtype.itemsize
    if not count:
        return
    row = max(1, declared // data.shape[0])
    if row > 10 * WHOLE:
        return
    step = max(1, BLOCK // row)
    texts = data.dtype.hasobject and declared <= 10**9 + 1000 * size
    starts: Any = range(0, data.shape[0], step)
    if not texts and max(declared, data.id.get_storage_size()) > WHOLE:
        starts = (0, starts[-1])
    for start in starts:
        data[start : start + step]
