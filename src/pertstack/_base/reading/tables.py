"""One reader for every table a user provides: parquet, feather, or text in any of its dialects.

In text, cells are text: a name such as ``007`` or ``1E5`` stays what it is, whatever is below it. Who needs
numbers asks for them (``numbers``, ``with_numbers``), for a whole column at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from pertstack._base.errors import InputError, first_few
from pertstack._base.files import missing_file, require_plain
from pertstack._base.reading.damage import require_modest_table
from pertstack._base.reading.dialects import is_number
from pertstack._base.reading.text_tables import MISSING, UNNAMED, TextTable, text_table
from pertstack._base.reading.tried_first import tried_first

WALK_ARROW = "pertstack._base.reading.walk_arrow:walk"
WALK_PARQUET = "pertstack._base.reading.walk_arrow:walk_parquet"
PARQUET, FEATHER = frozenset({".parquet", ".pq"}), frozenset({".feather", ".arrow", ".ipc"})
CHECKED = {"page_checksum_verification": True}
"""How parquet is read: if pages carry checksums (Spark and parquet-mr write them) a changed one is refused."""
ROWS = 1024  # rows of a parquet file read at a time
_PADDED = re.compile(r"[+-]?0\d")
_TRUTHS = {"true": True, "false": False}
_Values = TypeVar("_Values", "pd.Series[Any]", pd.DataFrame)


def is_parquet(path: Path) -> bool:
    return path.suffix.casefold() in PARQUET


def is_text(path: Path) -> bool:
    """Whether a table is text, by its suffix; MissingFileError if nothing lies at the path."""
    require_plain(path, InputError)
    if not path.exists():
        raise missing_file(path)
    return path.suffix.casefold() not in PARQUET | FEATHER


def read_table(path: Path, *, blanks: bool = True) -> pd.DataFrame:
    """A table, whole. Text files give text in every cell ("" where empty); parquet and feather keep their types.

    Raises
    ------
    MissingFileError, InputError
        It is not there, not a table, damaged, or two columns have one name.
    """
    path = Path(path)
    require_plain(path, InputError)
    if not path.is_file():
        raise missing_file(path) if not path.exists() else InputError(f"{path} is a folder, not a table.")
    suffix = path.suffix.casefold()
    if suffix in FEATHER:
        tried_first(path, WALK_ARROW)
    if suffix in PARQUET | FEATHER:
        return _columnar(path, suffix)
    table = text_table(path, blanks=blanks)
    return frame(table)


def frame(table: TextTable, columns: Collection[str] | None = None) -> pd.DataFrame:
    """All rows of a text table, or of some of its columns, as texts."""
    parts = list(table.batches(columns))
    if not parts:
        wanted = [c for c in table.columns if columns is None or c in columns]
        return pd.DataFrame({c: np.array([], dtype=object) for c in wanted})
    return plain_texts(pa.concat_tables(parts).to_pandas())


def _columnar(path: Path, suffix: str) -> pd.DataFrame:
    try:
        if suffix in PARQUET:
            refuse_repeats(path, pa.parquet.read_schema(path).names)
            require_modest_table(path)
            tried_first(path, WALK_PARQUET)
            table = pa.parquet.read_table(path, **CHECKED)
        else:
            table = pa.feather.read_table(str(path))
            table.validate(full=True)  # forged offsets of texts are followed to anywhere in the memory
            refuse_repeats(path, table.schema.names)
        return plain_texts(table.to_pandas())
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        what = "parquet" if suffix in PARQUET else "feather"
        raise InputError(
            f"{path} cannot be read as a table in {what}: {error}. Copy it again, or write it again where it was made."
        ) from error


def refuse_repeats(path: Path, names: Collection[Any]) -> None:
    """One column per name."""
    repeated = [str(name) for name, n in Counter(map(str, names)).items() if n > 1]
    if repeated:
        raise InputError(
            f"{path}: {len(repeated):,} column names occur more than once: {first_few(repeated)}. Which column is "
            f"which cannot be known. Give every column a unique name."
        )


def parquet_batches(path: Path, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    """The rows of a parquet file, in order, a batch at a time; an index stays a column."""
    try:
        require_modest_table(path)
        tried_first(path, WALK_PARQUET)
        with pa.parquet.ParquetFile(path, **CHECKED) as file:
            refuse_repeats(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                yield plain_texts(batch.to_pandas(ignore_metadata=True))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be read as a table in parquet: {error}. Copy it again, or write it again where it was made."
        ) from error


def plain_texts(table: pd.DataFrame) -> pd.DataFrame:
    """The table with texts as Python objects, None if missing, whichever type this pandas gives them.

    pandas 3 reads texts as ``str`` with NaN where missing, pandas 2 as objects; the rest of the package knows objects.
    """
    out = table.copy(deep=False)
    for column in table.columns:
        if isinstance(table[column].dtype, pd.StringDtype):
            out[column] = _plain(table[column])
    return out


def _plain(values: pd.Series[Any]) -> pd.Series[Any]:
    text = values.astype(object)
    return text.where(values.notna(), None)


def as_texts(table: _Values) -> _Values:
    """Every value of a table or column as a text, a missing one too, so that no key joined of several is missing.

    ``astype(str)`` does this in pandas 2; pandas 3 leaves missing values missing.
    """
    texts: _Values = table.astype(object).map(str)
    return texts


def as_names(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column as names: whole numbers without a decimal point, so 7.0 (a 7 in a column with gaps) is ``7``."""
    if pd.api.types.is_float_dtype(values):
        whole = values.notna() & (values % 1 == 0)
        text = values.astype(object)
        text[whole] = [str(int(v)) for v in values[whole]]
        return text.where(values.notna(), None)
    return values


def numbers(values: pd.Series[Any], decimal: str = ".") -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """A column as numbers, NaN where empty; None if a cell is no number."""
    if pd.api.types.is_bool_dtype(values):
        return None
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    texts = ["" if v is None or v is pd.NA or v != v else str(v).strip() for v in values.astype(object)]
    if not all(t in MISSING or is_number(t, decimal) for t in texts):
        return None
    return np.array([np.nan if t in MISSING else float(t.replace(decimal, ".")) for t in texts], dtype=np.float64)


def with_numbers(table: pd.DataFrame, names: Collection[str], decimal: str = ".") -> pd.DataFrame:
    """Whole columns of texts as the numbers or truths they are; None in the cells that are empty.

    A column with a zero-padded value (``007``) holds names, so it stays text.

    Parameters
    ----------
    table : of texts; other columns are kept, unless named.
    names : columns that are text whatever they hold.
    decimal : the decimal mark.
    """
    out = {}
    for column in table.columns:
        values = table[column]
        if isinstance(values.dtype, pd.StringDtype):
            values = _plain(values)
        if values.dtype == object:
            out[column] = _typed(values, str(column) in names, decimal)
        else:
            out[column] = as_names(values) if str(column) in names else values
    return pd.DataFrame(out, index=table.index, columns=table.columns)


def is_padded(word: str) -> bool:
    """Whether a cell is padded with zeros (``007``): a name, whatever it looks like."""
    return _PADDED.match(word.strip()) is not None


def _typed(values: pd.Series[Any], is_name: bool, decimal: str) -> Any:
    empty = values.isin(MISSING) | values.isna()
    held = values[~empty].map(lambda v: v.strip() if isinstance(v, str) else v)
    if len(held) and not is_name and all(isinstance(v, str) for v in held):
        if set(held.str.casefold()) <= set(_TRUTHS):
            truths = values.map(lambda v: _TRUTHS.get(str(v).strip().casefold()))
            return truths.astype(bool) if not empty.any() else truths
        if not any(map(is_padded, held)):
            found = numbers(values, decimal)
            if found is not None:
                whole = not empty.any() and all(v.lstrip("+-").isdigit() for v in held) and np.abs(found).max() < 2**53
                return found.astype(np.int64) if whole else found
    return values.where(~empty, None)


def without_row_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table without an unnamed first column that only counts its rows, if other columns are there."""
    first = table.columns[0] if len(table.columns) > 1 else None
    if first != UNNAMED or not counts_rows(table[first].astype(str).tolist()):
        return table
    return table.drop(columns=first)


def counts_rows(words: list[str]) -> bool:
    """Whether cells are 0, 1, 2, ... or 1, 2, 3, ..."""
    n = len(words)
    return n > 0 and words in ([str(i) for i in range(n)], [str(i + 1) for i in range(n)])


__all__ = [
    "FEATHER",
    "PARQUET",
    "as_names",
    "as_texts",
    "counts_rows",
    "frame",
    "is_padded",
    "is_parquet",
    "is_text",
    "numbers",
    "parquet_batches",
    "plain_texts",
    "read_table",
    "refuse_repeats",
    "with_numbers",
    "without_row_numbers",
]
