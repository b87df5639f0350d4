"""Raw chunk files: rows of little-endian numbers followed by four bytes of CRC-32C, as a Zarr v3 array stores them.

Numbers are float32, or 16-bit codes (``rounding.py``). One chunk spans at most 512 rows and every column. What the rows
mean, and when a chunk becomes visible, is left to
others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import xxhash

from pertstack._base.errors import CorruptionError
from pertstack.predictions.store.files.durable import new_file
from pertstack.predictions.store.files.rounding import NO_VALUE

MAX_CHUNK_ROWS = 512
PIECE = 1 << 20  # bytes hashed while they are still in cache
DTYPE = np.dtype("<f4")
Values = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """One chunk file as committed. ``xxh3_128`` covers the rows (padding included), ``crc32c`` is the trailer's
    value."""

    key: str  # path inside the array folder, e.g. "c/0/0"
    size: int  # bytes of the file, trailer included
    crc32c: str  # 8 hex digits
    xxh3_128: str  # 32 hex digits
    row_crc32c: str = ""  # 8 hex digits for each row, so that an audit can name the row; "" in older records

    def to_json(self) -> dict[str, Any]:
        facts = {"key": self.key, "size": self.size, "crc32c": self.crc32c, "xxh3_128": self.xxh3_128}
        return {**facts, "row_crc32c": self.row_crc32c} if self.row_crc32c else facts


@dataclass(frozen=True, slots=True)
class Grid:
    """How an (n, width) array is cut into chunks: r = ceil(n / ceil(n / 512)) rows each, the last one padded with
    NaN."""

    n: int
    width: int
    dtype: np.dtype[Any] = DTYPE  # or CODES

    @property
    def count(self) -> int:
        return -(-self.n // MAX_CHUNK_ROWS)

    @property
    def rows(self) -> int:
        return -(-self.n // self.count)

    @property
    def payload(self) -> int:
        """Bytes of rows in one chunk file."""
        return self.rows * self.row_bytes

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    @property
    def no_value(self) -> Any:
        """What stands where nothing was predicted, and in padding."""
        return np.nan if self.dtype == DTYPE else NO_VALUE

    @property
    def file_size(self) -> int:
        return self.payload + 4

    def span(self, index: int) -> tuple[int, int]:
        """Rows [start, stop) of the array that chunk ``index`` holds."""
        return index * self.rows, min((index + 1) * self.rows, self.n)

    def key(self, index: int) -> str:
        return f"c/{index}/0"

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(chunk, first row, last row + 1) of every chunk that rows [start, stop) touch."""
        if start >= stop:
            return
        for index in range(start // self.rows, (stop - 1) // self.rows + 1):
            low, high = self.span(index)
            yield index, max(low, start), min(high, stop)


def as_bytes(values: Values) -> memoryview:
    """The bytes of a C-contiguous array, without a copy."""
    return memoryview(values.reshape(-1).view(np.uint8).data)


def array_metadata(grid: Grid, dimension_names: Sequence[str], attributes: dict[str, Any]) -> dict[str, Any]:
    """The ``zarr.json`` of an array whose chunks are written by ``write_chunk``.

    Parameters
    ----------
    grid : shape and chunks.
    dimension_names : of both axes.
    attributes : plain JSON, kept beside AnnData's own.
    """
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [grid.n, grid.width],
        "data_type": grid.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [grid.rows, grid.width]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if grid.dtype == DTYPE else NO_VALUE,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "dimension_names": list(dimension_names),
        "attributes": {"encoding-type": "array", "encoding-version": "0.2.0", **attributes},
        "storage_transformers": [],
    }


def chunk_pieces(grid: Grid, values: Values) -> Iterator[memoryview]:
    """Row bytes of one chunk in pieces, padding included; ``values`` holds the chunk's rows, C-contiguous."""
    assert values.flags.c_contiguous and values.dtype == grid.dtype and values.shape[1] == grid.width
    data = as_bytes(values)
    for low in range(0, len(data), PIECE):
        yield data[low : low + PIECE]
    padding = grid.rows - values.shape[0]
    if padding:
        yield as_bytes(np.full((padding, grid.width), grid.no_value, grid.dtype))


def hash_chunk(grid: Grid, index: int, values: Values) -> ChunkFacts:
    """What ``write_chunk`` would record, without writing.

    Parameters
    ----------
    grid : of the array.
    index : of the chunk, from 0.
    values : its rows, (at most ``grid.rows``, ``grid.width``), C-contiguous.
    """
    crc, xxh = 0, xxhash.xxh3_128()
    for piece in chunk_pieces(grid, values):
        crc = crc32c.crc32c(piece, crc)
        xxh.update(piece)
    return ChunkFacts(
        grid.key(index), grid.file_size, f"{crc:08x}", xxh3_128=xxh.hexdigest(), row_crc32c=row_checksums(values)
    )


def row_checksums(values: Values) -> str:
    """CRC-32C of each row of a C-contiguous array, 8 hex digits after another."""
    return "".join(f"{crc32c.crc32c(as_bytes(row)):08x}" for row in values)


def write_chunk(folder: Path, grid: Grid, index: int, *, values: Values) -> ChunkFacts:
    """Write one new chunk file (not yet flushed to the disk); hashes are taken in passing.

    Parameters
    ----------
    folder : of the array.
    grid, index, values : as in ``hash_chunk``.
    """
    crc, xxh = 0, xxhash.xxh3_128()
    path = folder / grid.key(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, grid.file_size) as write:
        for piece in chunk_pieces(grid, values):
            crc = crc32c.crc32c(piece, crc)
            xxh.update(piece)
            write(piece)
        write(memoryview(crc.to_bytes(4, "little")))
    return ChunkFacts(
        grid.key(index), grid.file_size, f"{crc:08x}", xxh3_128=xxh.hexdigest(), row_crc32c=row_checksums(values)
    )


def read_rows(
    folder: Path, grid: Grid, *, start: int, stop: int, out: Values, facts: Sequence[ChunkFacts] | None = None
) -> None:
    """Rows [start, stop), straight from the files. Sizes are always checked.

    Parameters
    ----------
    folder : of the array.
    grid : its chunks.
    start, stop : rows.
    out : (stop - start, width) of the grid's type, C-contiguous; filled.
    facts : of all chunks, to check the bytes too; None to leave that out.

    Raises
    ------
    CorruptionError
        A chunk file is missing, has another size, or its bytes are not those that were committed.
    """
    target, row_bytes = as_bytes(out), grid.row_bytes
    for index, low, high in grid.spans(start, stop):
        first, _ = grid.span(index)
        part = target[(low - start) * row_bytes : (high - start) * row_bytes]
        expected = None if facts is None else facts[index]
        _read_chunk(folder / grid.key(index), grid, (low - first) * row_bytes, part=part, expected=expected)


def announce_rows(folder: Path, grid: Grid, *, start: int, stop: int) -> None:
    """Tell the system that rows [start, stop) are read soon, so that the disk works meanwhile. Reads and checks
    nothing; a system without this call, and a missing file, are passed over.

    Parameters
    ----------
    folder : of the array.
    grid : its chunks.
    start, stop : rows.
    """
    if sys.platform != "linux":
        return
    row_bytes = grid.row_bytes
    for index, low, high in grid.spans(start, stop):
        first, _ = grid.span(index)
        try:
            opened = os.open(folder / grid.key(index), os.O_RDONLY | os.O_NONBLOCK)  # a pipe would make it wait
        except OSError:
            continue  # ``read_rows`` says what is wrong
        try:
            os.posix_fadvise(opened, (low - first) * row_bytes, (high - low) * row_bytes, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(opened)


def _at_once(path: str, flags: int) -> int:
    """Open a file; a pipe in its place does not make this process wait, and is not as long as a chunk."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_chunk(path: Path, grid: Grid, offset: int, *, part: memoryview, expected: ChunkFacts | None) -> None:
    try:
        with open(path, "rb", buffering=0, opener=_at_once) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != grid.file_size:
                raise CorruptionError(
                    f"{path} has {size:,} bytes where {grid.file_size:,} were committed. It was changed or cut short "
                    f"since; retract this model in this block and predict it again, or restore the file from a copy."
                )
            if expected is None:
                stream.seek(offset)
                _fill(stream, part, path)
                return
            digest = xxhash.xxh3_128()
            _hash_range(stream, offset, digest, path)
            for piece in range(0, len(part), PIECE):
                view = part[piece : piece + PIECE]
                _fill(stream, view, path)
                digest.update(view)
            _hash_range(stream, grid.payload - offset - len(part), digest, path)
    except FileNotFoundError as error:
        raise CorruptionError(
            f"{path} is missing, though its record says it was committed. Other readers would take its rows for NaN. "
            f"Retract this model in this block and predict it again, or restore the file from a copy."
        ) from error
    if digest.hexdigest() != expected.xxh3_128:
        raise CorruptionError(
            f"{path} does not hold the bytes that were committed (xxh3-128 {digest.hexdigest()[:12]}, recorded "
            f"{expected.xxh3_128[:12]}). Retract this model in this block and predict it again, or restore the file."
        )


def _fill(stream: Any, view: memoryview, path: Path) -> None:
    done = 0
    while done < len(view):
        got = stream.readinto(view[done:])
        if not got:
            raise CorruptionError(f"{path} ended early while it was read. It was changed since it was committed.")
        done += got


def _hash_range(stream: Any, n_bytes: int, digest: Any, path: Path) -> None:
    """Hash rows that were not asked for, so that a partial read can be verified too."""
    if n_bytes <= 0:
        return
    scratch = memoryview(bytearray(min(PIECE, n_bytes)))
    while n_bytes > 0:
        view = scratch[: min(PIECE, n_bytes)]
        _fill(stream, view, path)
        digest.update(view)
        n_bytes -= len(view)
