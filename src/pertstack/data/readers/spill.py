"""Tables that cannot be read row by row (CSV, parquet) are poured once into a nameless temporary file and mapped from
there.

So memory stays bounded whatever the size of the table; the file vanishes with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, StorageError, first_few
from pertstack._base.files import storage_error
from pertstack.data.readers.matrices import ArrayRows, Float32

BATCH = 1024  # rows poured at a time


def table_kind(path: Path) -> str:
    """``parquet`` or ``csv``, by the suffix (.gz allowed for text)."""
    suffixes = {s.casefold() for s in path.suffixes}
    if suffixes & {".parquet", ".pq"}:
        return "parquet"
    if suffixes & {".csv", ".tsv", ".tab", ".txt"}:
        return "csv"
    raise InputError(f"{path}: tables are .parquet, .csv, .tsv or .txt (perhaps .gz).")


def batches(path: Path, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    """The rows of a table, in order, a batch at a time."""
    try:
        if table_kind(path) == "parquet":
            import pyarrow.parquet as pq

            file = pq.ParquetFile(path)
            for batch in file.iter_batches(batch_size=BATCH, columns=columns):
                yield batch.to_pandas(ignore_metadata=True)  # an index stays a column
            return
        separator = "\t" if {".tsv", ".tab"} & set(path.suffixes) else ","
        yield from pd.read_csv(path, sep=separator, usecols=columns, chunksize=BATCH, low_memory=False)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, InputError | StorageError):
            raise
        raise InputError(f"{path} cannot be read as a table: {error}.") from error


def header(path: Path) -> pd.DataFrame:
    """The first batch of a table, to learn its columns and their types."""
    for batch in batches(path):
        return batch
    raise InputError(f"{path} has no rows.")


def pour(path: Path, genes: list[str], keep: list[str]) -> tuple[ArrayRows, pd.DataFrame]:
    """Genes of a table as mapped rows (n, n_genes) float32, and the columns to keep as a table."""
    parts: list[pd.DataFrame] = []
    stream = tempfile.TemporaryFile(prefix="pertstack-")  # noqa: SIM115 (lives as long as the map)
    n = 0
    columns = list(dict.fromkeys([*keep, *genes]))
    try:
        for batch in batches(path, columns):
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
    return ArrayRows(values), pd.concat(parts)


def _numbers(batch: pd.DataFrame, genes: list[str], path: Path, start: int) -> Float32:
    try:
        return batch[genes].to_numpy(dtype=np.float32, na_value=np.nan)
    except (ValueError, TypeError) as error:
        words: list[Any] = [g for g in genes if not pd.api.types.is_numeric_dtype(batch[g])]
        raise InputError(
            f"{path}: the gene columns {first_few(words)} hold text in rows {start:,} to {start + len(batch):,}. "
            f"Genes must be numbers."
        ) from error
