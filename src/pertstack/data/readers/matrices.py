"""Rows of a matrix that lies on disk, read when asked for and as float32: HDF5, zarr, sparse, or an array in memory.

A source remembers its path and opens the file on first use, so it can be handed to another process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from pertstack._base.errors import InputError

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Positions = np.ndarray[Any, np.dtype[np.int64]]
BAND_BYTES = 64 * 10**6
DECLARED = 10**10
"""Bytes that an array may declare without being asked whether they are there."""
PACKED_AT_MOST, FILES_COUNTED, CHUNK = 5000, 2000, 10**9


class RowSource(Protocol):
    """(n_samples, n_genes) values, by rows."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def rows(self, start: int, stop: int) -> Float32:
        """Rows start..stop as a new float32 array."""
        ...


def take(source: RowSource, positions: Positions, *, gap: int = 16, most: int = 1024) -> Float32:
    """Rows at any positions, (n_positions, n_genes) float32, in the order asked for; neighbours are read together.

    Reads go from the front of the file to its end.

    Parameters
    ----------
    source : the matrix on disk.
    positions : in any order, repeats allowed.
    gap : rows no more than this apart share one read.
    most : rows of one read.
    """
    positions = np.asarray(positions, dtype=np.int64)
    out = np.empty((len(positions), source.shape[1]), dtype=np.float32)
    order = np.argsort(positions, kind="stable")
    at = positions[order]
    first = 0
    while first < len(at):
        last = first
        while last + 1 < len(at) and at[last + 1] - at[last] <= gap and at[last + 1] - at[first] < most:
            last += 1
        block = source.rows(int(at[first]), int(at[last]) + 1)
        out[order[first : last + 1]] = block[at[first : last + 1] - at[first]]
        first = last + 1
    return out


@dataclass(frozen=True)
class MappedRows:
    """Rows of another source, each value mapped; ``where`` says which file in messages of the map."""

    source: RowSource
    mapping: Callable[[Float32, str], Float32]
    where: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.source.shape

    def rows(self, start: int, stop: int) -> Float32:
        return self.mapping(self.source.rows(start, stop), self.where)


@dataclass(frozen=True)
class ArrayRows:
    """An array that is already in memory, or memory-mapped."""

    values: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.values.shape[0]), int(self.values.shape[1])

    def rows(self, start: int, stop: int) -> Float32:
        return np.array(self.values[start:stop], dtype=np.float32)


@dataclass(frozen=True)
class RepeatedRow:
    """One profile that stands for every row (differential data: the control is zero)."""

    profile: Float32  # (n_genes,)
    n_rows: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_rows, len(self.profile)

    def rows(self, start: int, stop: int) -> Float32:
        return np.tile(self.profile, (max(0, min(stop, self.n_rows) - start), 1))


@dataclass(frozen=True)
class IndexedRows:
    """Row i is row ``index[i]`` of a smaller table: controls shared by several samples."""

    values: Float32  # (n_distinct, n_genes)
    index: Positions  # (n_rows,)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index), int(self.values.shape[1])

    def rows(self, start: int, stop: int) -> Float32:
        return self.values[self.index[start:stop]].astype(np.float32, copy=False)


@dataclass
class StoredRows:
    """A matrix inside an .h5ad or .zarr file, dense or sparse; opened on first use, closed when pickled."""

    path: Path
    kind: Literal["hdf5", "zarr"]
    key: str
    _open: Any = field(default=None, repr=False, compare=False)
    _sparse: bool = field(default=False, repr=False, compare=False)
    _band: tuple[int, Any] = field(default=(-1, None), repr=False, compare=False)  # first row, rows as stored

    def _matrix(self) -> Any:
        if self._open is None:
            root = open_root(self.path, self.kind)
            element = root[self.key]
            self._sparse = not hasattr(element, "dtype")
            if self._sparse:
                from anndata.io import sparse_dataset

                element = sparse_dataset(element)
                _refuse_hollow(element.group["data"], f"{self.key}/data", self.path)
            else:
                _refuse_hollow(element, self.key, self.path)
            self._open = element
        return self._open

    def sparse(self) -> Any | None:
        """anndata's view of a sparse matrix (``format``; ``group``: data, indices, indptr); None for a dense one."""
        matrix = self._matrix()
        return matrix if self._sparse else None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "kind": self.kind,
            "key": self.key,
            "_open": None,
            "_sparse": False,
            "_band": (-1, None),
        }

    @property
    def shape(self) -> tuple[int, int]:
        shape = self._matrix().shape
        return int(shape[0]), int(shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self._matrix().dtype)
        return found

    def rows(self, start: int, stop: int) -> Float32:
        matrix = self._matrix()
        if self._sparse:
            return self._of_sparse(matrix, start, stop)
        step = self._band_rows()
        if not step:
            return np.array(matrix[start:stop], dtype=np.float32)
        stop = min(stop, self.shape[0])
        out = np.empty((max(0, stop - start), self.shape[1]), dtype=np.float32)
        for first in range(start - start % step, stop, step):
            if self._band[0] != first:
                self._band = (first, matrix[first : first + step])
            low, high = max(start, first), min(stop, first + step)
            out[low - start : high - start] = self._band[1][low - first : high - first]
        return out

    def _of_sparse(self, matrix: Any, start: int, stop: int) -> Float32:
        try:
            part = matrix[start:stop]
            if (
                part.indices.size
                and not 0 <= part.indices.min() <= part.indices.max() < part.shape[part.format == "csr"]
            ):
                raise ValueError("an entry lies outside the matrix")
        except (ValueError, IndexError, OSError) as error:
            raise InputError(f"{self.path}: {self.key} is damaged ({error}). Copy the file again.") from error
        return np.array(part.toarray(), dtype=np.float32)

    def _band_rows(self) -> int:
        """Rows in one row of chunks, kept so that compressed chunks are opened once; 0 if that does not pay."""
        chunks = getattr(self._open, "chunks", None)
        rows = 0 if not chunks else int(chunks[0])
        return rows if rows > 1 and rows * self.shape[1] * self.dtype.itemsize <= BAND_BYTES else 0


def _refuse_hollow(array: Any, key: str, path: Path) -> None:
    """That an array which declares more than 10 GB has about as much in the file, whatever packs it, and that no chunk
    unpacks to far more than the array has.

    Raises
    ------
    InputError
        It declares more than ``PACKED_AT_MOST`` times what is there: cut short, or never filled. Or its chunks are of
        more than a gigabyte and twice the array.
    """
    chunk = int(np.prod([int(n) for n in array.chunks or ()], dtype=object)) * np.dtype(array.dtype).itemsize
    declared = int(np.prod([int(n) for n in array.shape], dtype=object)) * np.dtype(array.dtype).itemsize
    if chunk > max(CHUNK, 2 * declared):
        raise InputError(
            f"{path}: {key} is an array of {declared:,} bytes and declares chunks of {chunk:,}, all of which would be "
            f"unpacked. It is damaged, or made to fill the memory. Write it again where it was made."
        )
    if declared <= DECLARED:
        return
    if hasattr(array, "id"):  # HDF5; parts of a virtual or external array lie in other files
        there = declared if array.is_virtual or array.external else int(array.id.get_storage_size())
    else:
        sizes = [f.stat().st_size for f in islice(path.rglob("*"), FILES_COUNTED) if f.is_file()]
        there = declared if len(sizes) >= FILES_COUNTED else sum(sizes)
    if declared > PACKED_AT_MOST * there:
        count = int(np.prod([int(n) for n in array.shape], dtype=object))
        raise InputError(
            f"{path}: {key} declares {count:,} values ({declared / 1e9:,.0f} GB), and the "
            f"file holds {there / 1e6:,.1f} MB of them. It was cut short or never filled. Copy the file again."
        )


def open_root(path: Path, kind: Literal["hdf5", "zarr"]) -> Any:
    """The root group of a file, for reading."""
    if kind == "hdf5":
        from pertstack._base.reading.hdf5 import open_hdf5

        return open_hdf5(path)
    import zarr

    # What an array says of itself holds, not a summary of all that may be older than it.
    return zarr.open_group(str(path), mode="r", use_consolidated=False)


@dataclass(frozen=True)
class SubsetRows:
    """Row i is row ``index[i]`` of another source, read from there when asked for."""

    source: RowSource
    index: Positions

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index), self.source.shape[1]

    def rows(self, start: int, stop: int) -> Float32:
        return take(self.source, self.index[start:stop])
