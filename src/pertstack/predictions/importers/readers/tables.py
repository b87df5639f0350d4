"""Predictions in tables: parquet, Arrow / Feather, CSV. Ids are in the index or the first column, genes are the
columns.

Column-wise files are turned into rows through a scratch file, a slab of columns at a time, so memory stays small.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.dialects import is_number
from pertstack._base.reading.tables import CHECKED, WALK_ARROW, counts_rows, plain_texts
from pertstack._base.reading.text_tables import UNNAMED, TextTable, text_table
from pertstack._base.reading.tried_first import tried_first
from pertstack.data.readers.columns.aliases import alias_names, plain_name
from pertstack.data.readers.refused import GENE_COLUMNS
from pertstack.data.readers.spill import Table
from pertstack.data.rows import Float32
from pertstack.predictions.importers.readers.files import STATUS, PredictionFile, names_of

SLAB_BYTES = 24_000_000
_KEYS = alias_names() - alias_names("smiles")
"""Plain names of columns that say what was done, wherever they stand."""
ReadColumns = Callable[[list[str]], Any]  # -> pyarrow.Table


def open_parquet_predictions(path: Path, told: Collection[str] = ()) -> PredictionFile:
    """A parquet file with one row per sample; ``told`` are columns that say what was done, by the user's word."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as parquet: {error}.") from error

    def read(columns: list[str]) -> Any:
        with pa.parquet.ParquetFile(path, pre_buffer=False, **CHECKED) as file:
            return file.read(columns=columns, use_threads=False)

    return _columnar(path, schema, read, told)


def open_arrow_predictions(path: Path, told: Collection[str] = ()) -> PredictionFile:
    """An Arrow IPC (Feather) file with one row per sample; ``told`` as in ``open_parquet_predictions``."""
    tried_first(path, WALK_ARROW)
    try:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            schema = reader.schema
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an Arrow file: {error}.") from error

    def read(columns: list[str]) -> Any:
        # a buffer as long as the whole record batch is asked for, of which only the wanted columns are filled: next to
        # nothing with the system's allocator (the command line sets it), resident memory with pooling ones
        table = pa.feather.read_table(str(path), columns=columns, memory_map=False, use_threads=False)
        table.validate(full=True)  # forged offsets of texts are followed to anywhere in the memory
        return table

    return _columnar(path, schema, read, told)


def _keyed(schema: Any, columns: list[str], told: Collection[str]) -> bool:
    """Whether rows are known by what was done to them: no index of ids, or one that says it."""
    named = [
        n for n in json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", []) if n in columns
    ]
    return is_key(columns[0], told) or not named or (len(named) > 1 and all(is_key(n, told) for n in named))


def id_column(path: Path, schema: Any) -> str:
    """Name of the column that holds sample ids: the pandas index, else the first column when it holds text."""
    pandas_facts = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    for name in pandas_facts.get("index_columns", []):
        if isinstance(name, str) and name in schema.names:
            return name
    first = schema.field(0)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    if any(is_text(first.type) for is_text in text):
        return str(first.name)
    raise InputError(
        f"{path} has no sample ids: there is no named index and the first column, {first.name!r}, holds {first.type}. "
        f"Write the table with the ids as index, or as the first column."
    )


def is_key(column: str, told: Collection[str] = ()) -> bool:
    """Whether a column says what was done to a row, or what kind of row it is, by its name or as ``told``.

    >>> is_key("Cell Line"), is_key("status"), is_key("SET"), is_key("TP53")
    (True, True, False, False)
    """
    return plain_name(column) in _KEYS or column in STATUS or column in told


def parted(
    columns: Sequence[str], numeric: Collection[str], ids_in: str | None, *, told: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """What is said of the rows of a table, and its genes: the other columns of numbers.

    Parameters
    ----------
    columns : of the table.
    numeric : those that hold numbers.
    ids_in : the column of ids, which is neither; None if rows have none.
    told : columns that say something of the rows by the user's word.
    """
    said = [c for c in columns if c != ids_in and (is_key(c, told) or c not in numeric)]
    return said, [c for c in columns if c != ids_in and c not in set(said)]


def _refuse_long(path: Path, values: list[str], said: list[str]) -> None:
    """Refuse a table with a row for every profile and gene: its one column of numbers is no gene."""
    gene = next((c for c in reversed(said) if plain_name(c) in GENE_COLUMNS), None)
    rest = [c for c in said if c != gene]
    if len(values) != 1 or gene is None or not rest:
        return
    packed = path.suffix.casefold() in (".parquet", ".pq")
    read = f"read_parquet({str(path)!r})" if packed else f"read_csv({str(path)!r}, sep=None, engine='python')"
    if not packed and path.suffix.casefold() in (".feather", ".arrow", ".ipc"):
        read = f"read_feather({str(path)!r})"
    raise InputError(
        f"{path} has a row for every gene of every profile: {gene!r} names the gene, {values[0]!r} holds the value. "
        f'Give each gene a column: python -c "import pandas; pandas.{read}.pivot(index={rest!r}, columns={gene!r}, '
        f"values={values[0]!r}).reset_index().to_csv('wide.csv', index=False)\", then name wide.csv."
    )


def _columnar(path: Path, schema: Any, read: ReadColumns, told: Collection[str]) -> PredictionFile:
    columns = [str(f.name) for f in schema]
    numeric = {str(f.name) for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)}
    known = any(is_key(c, told) for c in columns)
    ids_in = None if known and _keyed(schema, columns, told) else id_column(path, schema)
    keys, names = parted(columns, numeric, ids_in, told=told)
    _refuse_long(path, names, [*keys, *([] if ids_in is None else [ids_in])])
    if not any(is_key(k, told) for k in keys) and keys:
        raise InputError(
            f"{path}: columns without numbers: {first_few(keys)}. Keep the id column and one column per gene."
        )
    obs = None if not keys else plain_texts(read(keys).replace_schema_metadata(None).to_pandas())
    if ids_in is None:
        assert obs is not None
        ids = [str(i) for i in range(len(obs))]
    else:
        ids = names_of(read([ids_in]).column(ids_in).to_numpy(zero_copy_only=False), "the id column", path)
    if len(set(names)) != len(names):
        # PredictionFile says which; columns of one name cannot be read one by one
        return PredictionFile(path, ids, names, lambda n_rows: iter(()))
    return PredictionFile(path, ids, names, lambda n_rows: _turned(names, len(ids), read, n_rows), obs=_named(obs, ids))


def _named(obs: pd.DataFrame | None, ids: list[str]) -> pd.DataFrame | None:
    return None if obs is None else obs.set_axis(pd.Index(ids, dtype=object))


def _turned(names: list[str], n: int, read: ReadColumns, n_rows: int) -> Iterator[Float32]:
    """Rows of a column-wise table: slabs of columns go to a scratch file, rows are gathered from the slabs."""
    width = max(1, min(len(names), SLAB_BYTES // (4 * max(1, n))))
    slabs: list[tuple[int, int, int]] = []  # offset in the scratch file, first column, last column + 1
    with tempfile.TemporaryFile(prefix="pertstack-", buffering=0) as scratch:
        for low in range(0, len(names), width):
            columns = names[low : low + width]
            slab = _slab(read(columns), columns, n)
            slabs.append((scratch.tell(), low, low + len(columns)))
            _write(scratch, slab)
            del slab
        for start in range(0, n, n_rows):
            rows = min(n_rows, n - start)
            out = np.empty((rows, len(names)), np.float32)
            for offset, low, high in slabs:
                scratch.seek(offset + 4 * start * (high - low))
                raw = _read(scratch, 4 * rows * (high - low))
                out[:, low:high] = np.frombuffer(raw, np.float32).reshape(rows, high - low)
            yield out


def _slab(table: Any, columns: list[str], n: int) -> Float32:
    slab = np.empty((n, len(columns)), np.float32)
    with np.errstate(over="ignore"):
        for i, name in enumerate(columns):
            slab[:, i] = table.column(name).to_numpy(zero_copy_only=False)
    return slab


def _write(stream: Any, slab: Float32) -> None:
    view = memoryview(slab.reshape(-1).view(np.uint8).data)
    done = 0
    while done < len(view):
        done += stream.write(view[done:])


def _read(stream: Any, n_bytes: int) -> bytes:
    pieces, left = [], n_bytes
    while left:
        piece = stream.read(left)
        assert piece, "scratch file ended early"
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def open_csv_predictions(path: Path, told: Collection[str] = ()) -> PredictionFile:
    """A text table with ids in the first column (behind a column that only counts rows) and a column per gene; ``told``
    as in ``open_parquet_predictions``."""
    table = text_table(path, blanks=False)
    columns = list(table.columns)
    if len(columns) < 2:
        raise InputError(
            f"{path}: the first line holds no comma, tab or semicolon: {' '.join(columns)[:60]!r}. Is this a table?"
        )
    known = any(is_key(c, told) for c in columns)
    numeric, ids = Table(path).numeric, _texts(table, columns[0])
    if columns[0] == UNNAMED and len(columns) > 2 and counts_rows(ids):
        second = _texts(table, columns[1])
        if known or not all(is_number(i, table.decimal) for i in second):
            columns, ids = columns[1:], second
    ids_in: str | None = columns[0]
    if known and (is_key(columns[0], told) or (columns[0] in numeric and columns[0] != UNNAMED)):
        ids_in, ids = None, [str(i) for i in range(len(ids))]
    keys, gene_names = parted(columns, numeric, ids_in, told=told)
    _refuse_long(path, gene_names, [*keys, *([] if ids_in is None else [ids_in])])
    if not any(is_key(k, told) for k in keys):  # what is no number is then refused where it stands
        keys, gene_names = [], [c for c in columns if c != ids_in]
    obs = pd.DataFrame({c: _texts(table, c) for c in keys}) if keys else None

    def rows(n_rows: int) -> Iterator[Float32]:
        for batch in table.batches(gene_names, numbers=gene_names):
            for start in range(0, batch.num_rows, n_rows):
                part = batch.slice(start, n_rows)
                yield _slab(part, gene_names, part.num_rows)

    return PredictionFile(path, ids, gene_names, rows, obs=_named(obs, ids))


def _texts(table: TextTable, column: str) -> list[str]:
    return [str(i) for batch in table.batches([column]) for i in batch.column(0).to_pylist()]
