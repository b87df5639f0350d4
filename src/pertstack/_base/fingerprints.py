"""Fingerprints of files: a digest of all bytes, and a short one of each row, so that a change can be named.

A row is a line of a text file, a row of a parquet table, or an entry along the first axis of an array in an npz. Files
of any other kind have bytes only. Who keeps fingerprints, and what a change means, is left to ``study/seals.py`` and
``fit/``.
"""

from __future__ import annotations

import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from pertstack._base.errors import first_few
from pertstack._base.files import sha256_of
from pertstack._base.reading.tables import as_texts

TEXT = {".json", ".jsonl", ".toml", ".csv", ".txt", ".html"}
MOST_ROWS = 2_000_000
"""Files with more rows are recognised as a whole only."""
_PIECE = 50_000  # rows of a table at once

Label = Callable[[int], str]
"""What the row of a number, counted from 0, is called for people."""

_UNREADABLE = (
    ValueError,
    OSError,
    KeyError,
    EOFError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
    pa.ArrowException,
)


@dataclass(frozen=True)
class Change:
    """How a file differs from its fingerprint. ``rows`` count from 0; ``labels`` name them for people."""

    said: str
    rows: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()


def fingerprint(path: Path) -> dict[str, Any]:
    """``sha256`` and ``size`` of a file, and ``rows``: 8 hex digits for each row, if it has rows."""
    path = Path(path)
    facts: dict[str, Any] = {"sha256": sha256_of(path), "size": path.stat().st_size}
    rows = _rows(path)
    if rows is not None and len(rows[0]) <= MOST_ROWS:
        facts["rows"] = "".join(rows[0])
    return facts


def change(path: Path, facts: dict[str, Any]) -> Change | None:
    """What differs between a file and its fingerprint; None when nothing does."""
    path = Path(path)
    if not path.is_file():
        return Change("is gone")
    if sha256_of(path) == facts["sha256"]:
        return None
    found = path.stat().st_size
    size = f"it has {found:,} bytes, not {facts['size']:,}" if found != facts["size"] else "its bytes differ"
    if "rows" not in facts:
        return Change(f"differs: {size}")
    rows = _rows(path)
    if rows is None:
        return Change(f"cannot be read any more: {size}")
    return _compared([facts["rows"][i : i + 8] for i in range(0, len(facts["rows"]), 8)], *rows, size)


def _compared(wanted: list[str], found: list[str], label: Label, size: str) -> Change:
    both = min(len(wanted), len(found))
    rows = [i for i in range(both) if wanted[i] != found[i]]
    if not rows and len(found) < len(wanted):
        gone = f"row {both}" if len(wanted) - both == 1 else f"rows {both} to {len(wanted) - 1}"
        return Change(f"was cut: {gone} (counted from 0) are gone", tuple(range(both, len(wanted))))
    rows += range(both, len(found))
    if not rows:
        return Change(f"differs, though every row is what it was: {size}")
    named = tuple(label(i) for i in rows)
    how = "stand in another order" if sorted(wanted) == sorted(found) else "differ"
    if len(wanted) != len(found):
        how += f" (there were {len(wanted):,} rows, now {len(found):,})"
    return Change(f"{len(rows):,} rows {how}: {first_few(named, 3)}", tuple(rows), named)


def _rows(path: Path) -> tuple[list[str], Label] | None:
    """Digest of every row, and what a row is called; None for files without rows and for files that cannot be read."""
    try:
        if path.suffix in TEXT:
            lines = path.read_bytes().split(b"\n")
            lines = lines[:-1] if not lines[-1] else lines
            return [_short(line) for line in lines], lambda i: f"line {i + 1}"
        if path.suffix == ".parquet":
            return _table_rows(path)
        if path.suffix == ".npz":
            return _array_rows(path)
    except _UNREADABLE:
        return None
    return None


def _table_rows(path: Path) -> tuple[list[str], Label] | None:
    if pa.parquet.read_metadata(path).num_rows > MOST_ROWS:
        return None  # before any is made
    table = _numbers_with_gaps_as_floats(pa.parquet.read_table(path))
    index = (table.schema.pandas_metadata or {}).get("index_columns") or [{}]
    first = index[0].get("start", 0) if isinstance(index[0], dict) else 0

    def rows(start: int, n: int) -> pd.DataFrame:
        some: pd.DataFrame = table.slice(start, n).to_pandas()
        if isinstance(some.index, pd.RangeIndex):
            some.index = pd.RangeIndex(first + start, first + start + len(some), name=some.index.name)
        return some.reset_index()

    digests: list[str] = []
    for start in range(0, len(table), _PIECE):  # every value becomes a text of its own
        some = rows(start, _PIECE)
        text = as_texts(some.astype(object).where(some.notna(), None))
        found = pd.util.hash_pandas_object(text, index=False).to_numpy(dtype=np.uint64)
        digests += [f"{int(d) & 0xFFFFFFFF:08x}" for d in found]

    def label(i: int) -> str:
        some = rows(i, 1)
        name = "sample_id" if "sample_id" in some else some.columns[0]
        return f"row {i} ({some[name].astype(str).iloc[0]})"

    return digests, label


def _numbers_with_gaps_as_floats(table: pa.Table) -> pa.Table:
    """Whole numbers some of which are missing, as pandas has them when it reads the table whole: 7 is 7.0 then."""
    said = (table.schema.pandas_metadata or {}).get("columns", [])
    nullable = {c["field_name"] for c in said if str(c["numpy_type"])[:1].isupper()}
    for i, field in enumerate(table.schema):
        if pa.types.is_integer(field.type) and field.name not in nullable and table.column(i).null_count:
            table = table.set_column(i, field.name, table.column(i).cast(pa.float64()))
    return table


def _array_rows(path: Path) -> tuple[list[str], Label] | None:
    digests: list[str] = []
    starts: list[int] = []
    names: list[str] = []
    with np.load(path, allow_pickle=False) as file:
        for name in sorted(file.files):
            array = file[name]
            by_entry = array.ndim > 1 or (array.ndim == 1 and array.dtype != np.uint8)  # bytes are one text or table
            if len(digests) + (len(array) if by_entry else 1) > MOST_ROWS:
                return None  # before any is made: each costs some hundred bytes
            starts += [len(digests), len(digests) + 1]
            names += [f"shape of {name}", f"{name}[{{}}]" if by_entry else name]
            digests.append(_short(f"{name}{array.shape}{array.dtype.str}".encode()))
            if by_entry:
                digests += [_short(np.ascontiguousarray(entry).tobytes()) for entry in array]
            else:
                digests.append(_short(array.tobytes()))

    def label(i: int) -> str:
        at = bisect_right(starts, i) - 1
        return names[at].replace("[{}]", f"[{i - starts[at]}]")

    return digests, label


def _short(raw: bytes) -> str:
    return f"{crc32c.crc32c(raw):08x}"
