"""Open an HDF5 file, whatever packed it.

h5py brings gzip, lzf and szip. Files packed with zstd, lz4, blosc or bitshuffle need the package hdf5plugin, which is
taken if it is installed and named if it is not: libhdf5 itself only says that a folder does not exist.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from pertstack._base.errors import InputError

NAMES = {32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32015: "zstd", 32026: "blosc2"}
"""Registered filters that AnnData files are packed with, all of them in hdf5plugin."""
_DAMAGED = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)


def open_hdf5(path: Path) -> Any:
    """A file for reading, with the filters that its arrays need.

    Raises
    ------
    InputError
        An array is packed with a filter that is not here.
    """
    file = h5py.File(path, "r")
    if _unknown_filters(file):
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401  registers its filters
        if unknown := _unknown_filters(file):
            file.close()
            raise _refused(path, *unknown.popitem())
    return file


def _unknown_filters(file: Any) -> dict[str, int]:
    """Arrays packed with a filter that cannot be undone here, and its number. What cannot be read is passed over."""
    unknown: dict[str, int] = {}

    def look(name: str, at: Any) -> None:
        if isinstance(at, h5py.Dataset):
            made = at.id.get_create_plist()
            for number in (made.get_filter(i)[0] for i in range(made.get_nfilters())):
                if not h5py.h5z.filter_avail(number):
                    unknown[name] = number

    with suppress(*_DAMAGED):  # the reader's to name
        file.visititems(look)
    return unknown


def _refused(path: Path, key: str, number: int) -> InputError:
    return InputError(
        f"{path}: {key} is packed with {NAMES.get(number, 'a filter')} (HDF5 filter {number}), which h5py does not "
        f"bring. Install the package that does, pip install hdf5plugin; or write the file again where it was made, "
        f"with anndata.read_h5ad(FILE).write_h5ad(NEW, compression='gzip')."
    )
