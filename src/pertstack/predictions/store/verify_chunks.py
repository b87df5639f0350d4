"""Audit of the chunk files of one array: there, of their size, with the bytes that were committed; whose rows if not.

Finds faults and names rows and samples; what a fault is called in a report is handled by ``verify.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import crc32c
import xxhash

from pertstack._base.errors import first_few
from pertstack.predictions.store.files.chunks import PIECE
from pertstack.predictions.store.files.record import Record

if TYPE_CHECKING:
    from pertstack.predictions.store.reader import StoreReader


@dataclass(frozen=True)
class Affected:
    """Rows of an array that are affected, and the samples they belong to."""

    said: str = ""
    rows: tuple[int, ...] = ()
    samples: tuple[str, ...] = ()


Fault = tuple[str, Path, str, Affected]
"""Code, file, what is said, the rows affected."""


def chunk_faults(store: StoreReader, path: Path, record: Record, *, deep: bool) -> Iterator[Fault]:
    """Every chunk file of an array that is not as committed.

    Parameters
    ----------
    store : that holds it.
    path : of the array.
    record : its record.
    deep : also read and hash the bytes, which only the seal of ``init`` knows if they are encrypted.
    """
    what = f"part of {record.model!r} in block {record.block.id}; withdraw and predict again, or restore the file."
    for index, chunk in enumerate(record.chunks):
        file = path / chunk.key
        if not file.is_file():
            where = _rows_from(store, record, index, 0)
            said = f"{file} is missing{where.said}; other readers take its rows for NaN. It is {what}"
            yield "chunk_missing", file, said, where
        elif file.stat().st_size != chunk.size + store.sealed_bytes:
            size, due = file.stat().st_size, chunk.size + store.sealed_bytes
            kept = 0 if store.sealed_bytes else size // record.grid.row_bytes
            where = _rows_from(store, record, index, kept)
            said = f"{file} has {size:,} bytes, not the {due:,} committed{where.said}. It is {what}"
            yield "chunk_size", file, said, where
        elif deep and not store.sealed_bytes and not _same_bytes(file, chunk.crc32c, chunk.xxh3_128):
            where = _changed_rows(store, record, index, file)
            said = f"{file} does not hold the bytes that were committed{where.said}. It is {what}"
            yield "chunk_changed", file, said, where


def _rows_from(store: StoreReader, record: Record, index: int, kept: int) -> Affected:
    """Rows of a chunk from the ``kept``-th on: what a missing or shortened file no longer holds."""
    low, high = record.grid.span(index)
    ids = store.sample_ids(record.block)
    first = min(low + kept, high)
    if first == high:
        return Affected(": its rows are there, what follows them is not")
    said = f": rows {first} to {high - 1} (samples {ids[first]} to {ids[high - 1]}) are gone"
    return Affected(said, tuple(range(first, high)), tuple(ids[first:high]))


def _changed_rows(store: StoreReader, record: Record, index: int, file: Path) -> Affected:
    """Rows of a chunk whose checksum is not the recorded one; records of early stores hold none."""
    low, high = record.grid.span(index)
    wanted = record.chunks[index].row_crc32c
    if len(wanted) != 8 * (high - low):
        return Affected(f": among rows {low} to {high - 1}")
    row_bytes = record.grid.row_bytes
    ids, rows, found = store.sample_ids(record.block), [], []
    with file.open("rb") as stream:
        for i in range(high - low):
            found.append(f"{crc32c.crc32c(stream.read(row_bytes)):08x}")
            if found[i] != wanted[8 * i : 8 * i + 8]:
                rows.append(low + i)
    if not rows:
        return Affected(": its rows are whole, its padding or checksum is not")
    moved = sorted(found) == sorted(wanted[i : i + 8] for i in range(0, len(wanted), 8))
    named = first_few([f"{r} (sample {ids[r]})" for r in rows], 5)
    what = "stand in another order" if moved else "differ"
    return Affected(f": {len(rows):,} rows {what}, {named}", tuple(rows), tuple(ids[r] for r in rows))


def _same_bytes(file: Path, crc_hex: str, xxh_hex: str) -> bool:
    digest, crc, left = xxhash.xxh3_128(), 0, file.stat().st_size - 4
    with file.open("rb", buffering=0) as stream:
        while left > 0:
            piece = stream.read(min(PIECE, left))
            if not piece:
                return False
            crc = crc32c.crc32c(piece, crc)
            digest.update(piece)
            left -= len(piece)
        trailer = int.from_bytes(stream.read(4), "little")
    return digest.hexdigest() == xxh_hex and f"{crc:08x}" == crc_hex and trailer == crc
