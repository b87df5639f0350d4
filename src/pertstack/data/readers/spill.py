"""Tables that cannot be read row by row (CSV, parquet) are poured once into a nameless temporary file and mapped from
there.

So memory stays bounded whatever the size of the table; the file vanishes with the process.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, StorageError, first_few
from pertstack._base.files import storage_error
from pertstack._base.reading.dialects import is_number
from pertstack._base.reading.tables import (
    counts_rows,
    is_padded,
    is_parquet,
    parquet_batches,
    plain_texts,
    with_numbers,
)
from pertstack._base.reading.text_tables import MISSING, UNNAMED, text_table
from pertstack.data.readers.matrices import ArrayRows, Float32

_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}(?:(?:,\d{3})+(?:\.\d+)?|(?:\.\d{3})+,\d+)\s*")
"""1,234.5 and 1.234,5."""


class Table:
    """A table of profiles, opened once: how it is written, its columns, and which of them hold numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = None if is_parquet(path) else text_table(path)
        first = next(iter(self._first()), None)
        if first is None or not len(first):
            raise InputError(f"{path} has no rows.")
        self.columns = [str(c) for c in first.columns]
        self.numeric = {c for c in self.columns if self._holds_numbers(first[c])}
        self.counts_rows = self.columns[0] == UNNAMED and counts_rows(first[UNNAMED].astype(str).tolist())

    def _first(self) -> Iterator[pd.DataFrame]:
        return (
            parquet_batches(self.path)
            if self.text is None
            else (plain_texts(t.to_pandas()) for t in self.text.batches())
        )

    def _holds_numbers(self, values: pd.Series[Any]) -> bool:
        """Whether a column is meant as numbers: most cells are, with marks of thousands too (a word among them, or such
        a number, is then refused where it is)."""
        if self.text is None:
            return bool(pd.api.types.is_numeric_dtype(values) and values.dtype.kind != "b")
        cells = [c for c in values if c not in MISSING]
        found = sum(is_number(c, self.text.decimal) or _THOUSANDS.fullmatch(c) is not None for c in cells)
        return 2 * found >= len(cells) and not any(is_padded(c) for c in cells)

    def batches(self, columns: list[str], genes: list[str]) -> Iterator[pd.DataFrame]:
        """The rows of some columns, in order, a batch at a time; in text, all but ``genes`` are texts."""
        if self.text is None:
            return parquet_batches(self.path, columns)
        return (plain_texts(t.to_pandas()) for t in self.text.batches(columns, numbers=genes))


def pour(table: Table, genes: list[str], keep: list[str], *, names: Collection[str]) -> tuple[ArrayRows, pd.DataFrame]:
    """Genes of a table as mapped rows (n, n_genes) float32, and its other columns as a table.

    Parameters
    ----------
    table : read once, in batches.
    genes : columns of numbers, in the order of the answer.
    keep : other columns.
    names : columns of ``keep`` that are text whatever they hold.

    Raises
    ------
    InputError
        The table has no rows, or a gene holds what is no number.
    StorageError
        The temporary folder refuses.
    """
    path = table.path
    parts: list[pd.DataFrame] = []
    stream = tempfile.TemporaryFile(prefix="pertstack-")  # noqa: SIM115 (lives as long as the map)
    n = 0
    columns = list(dict.fromkeys([*keep, *genes]))
    try:
        for batch in table.batches(columns, genes):
            stream.write(_numbers(batch, genes, path, n).tobytes())
            parts.append(batch[keep].set_axis(range(n, n + len(batch)), axis=0))
            n += len(batch)
        stream.flush()
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(error, Path(tempfile.gettempdir())) from error
    if n == 0:
        raise InputError(f"{path} has no rows.")
    values = np.memmap(stream, dtype=np.float32, mode="r", shape=(n, len(genes)))
    decimal = "." if table.text is None else table.text.decimal
    return ArrayRows(values), with_numbers(pd.concat(parts), names, decimal)


def _numbers(batch: pd.DataFrame, genes: list[str], path: Path, start: int) -> Float32:
    try:
        return batch[genes].to_numpy(dtype=np.float32, na_value=np.nan)
    except (ValueError, TypeError) as error:
        words: list[Any] = [g for g in genes if not pd.api.types.is_numeric_dtype(batch[g])]
        raise InputError(
            f"{path}: the gene columns {first_few(words)} hold text in rows {start:,} to {start + len(batch):,}. "
            f"Genes must be numbers."
        ) from error
