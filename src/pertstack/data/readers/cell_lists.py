"""Parquet with one row a cell and its genes and values as two lists, as Tahoe-100M is published: one file or a folder.

The cells are written once, in their order, to a scratch AnnData file by rows, and read like any other from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.machine.progress import track
from pertstack._base.machine.scratch import scratch_path
from pertstack._base.reading.tables import CHECKED, plain_texts, read_table
from pertstack.data.readers.columns.genes import IDS, SYMBOLS

GENES = ("genes", "gene_ids", "gene_names")
VALUES = ("expressions", "expression", "counts", "values")
NAMES = ("gene_metadata.parquet", "metadata/gene_metadata.parquet")
"""Tables that name genes given as numbers: ``token_id`` and their symbols or Ensembl ids; beside the cells or above."""
_CELLS = ("cell_id", "barcode", "BARCODE", "BARCODE_SUB_LIB_ID")
_BATCH = 4096
_MARK = -2.0  # the value of a token that stands before the genes of every cell in Tahoe's files


def cell_lists(path: Path) -> tuple[str, str] | None:
    """The columns of genes and of values if a parquet file, or a folder of them, has one row a cell; else None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = parquet_files(path)
    if not files:
        return None
    try:
        schema = pq.read_schema(files[0])
    except (OSError, pa.ArrowException):
        return None  # its reader says what is wrong
    lists = {f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_large_list(f.type)}
    genes, values = (next((n for n in names if n in lists), None) for names in (GENES, VALUES))
    return None if genes is None or values is None else (genes, values)


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or those in a folder, by name."""
    if path.is_dir():
        return sorted(p for p in path.glob("*.parquet") if p.name != NAMES[0])
    return [path] if path.suffix.casefold() in (".parquet", ".pq") else []


def as_anndata(path: Path, columns: tuple[str, str]) -> Path:
    """A scratch ``.h5ad`` with the same cells, X sparse by rows.

    Raises
    ------
    InputError
        Lists of different lengths, or genes that nothing names.
    """
    import h5py
    import pyarrow.dataset as ds
    from anndata.io import write_elem

    form = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(**CHECKED))
    table = ds.dataset([str(p) for p in parquet_files(path)], format=form)
    kept = [n for n in table.schema.names if n not in columns]
    tokens = _tokens(path, table.schema.field(columns[0]).type)
    known: dict[str, int] = {}
    out, said, row = scratch_path(path.name), [], 0
    with h5py.File(out, "w") as file:
        x = file.create_group("X")
        parts = {
            n: x.create_dataset(n, (0,), t, maxshape=(None,), chunks=(2**16,))
            for n, t in (("data", "f4"), ("indices", "i4"))
        }
        ends: list[Any] = [np.zeros(1, np.int64)]
        for batch in track(table.to_batches(columns=[*kept, *columns], batch_size=_BATCH), "reading cells"):
            if not batch.num_rows:
                continue
            genes, values, sizes = _entries(batch, columns, path, row)
            genes, values, sizes = (genes, values, sizes) if tokens is None else _unmarked(genes, values, sizes, tokens)
            at = _columns(genes, known) if tokens is None else _looked_up(genes, tokens, path)
            for name, new in (("data", values), ("indices", at)):
                parts[name].resize(len(parts[name]) + len(new), axis=0)
                parts[name][len(parts[name]) - len(new) :] = new
            ends.append(ends[-1][-1] + np.cumsum(sizes))
            said.append(plain_texts(batch.select(kept).to_pandas()))
            row += batch.num_rows
        var = pd.DataFrame(index=pd.Index(list(known), dtype=object)) if tokens is None else tokens
        x.create_dataset("indptr", data=np.concatenate(ends))
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array([row, len(var)])})
        write_elem(file, "obs", _obs(said))
        write_elem(file, "var", var)
        for part in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            write_elem(file, part, {})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    return out


def _entries(batch: Any, columns: tuple[str, str], path: Path, row: int) -> tuple[Any, Any, Any]:
    """Genes and values of all cells one after the other, and how many each cell has."""
    genes, values = (batch.column(c) for c in columns)
    sizes = [c.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) for c in (genes, values)]
    unlike = np.flatnonzero(sizes[0] != sizes[1])
    if len(unlike):
        at = int(unlike[0])
        raise InputError(
            f"{path}: cell {row + at:,} has {sizes[0][at]:,} {columns[0]} and {sizes[1][at]:,} {columns[1]}. Each "
            f"value belongs to one gene. The file is damaged; copy it again."
        )
    flat = genes.flatten().to_numpy(zero_copy_only=False), values.flatten().to_numpy(zero_copy_only=False)
    return flat[0], flat[1].astype(np.float32), sizes[0]


def _tokens(path: Path, kind: Any) -> pd.DataFrame | None:
    """The genes by number, index = their ids with symbols beside; None if the lists hold names."""
    import pyarrow as pa

    if not pa.types.is_integer(kind.value_type):
        return None
    folder = path if path.is_dir() else path.parent
    found = next((p for at in (folder, folder.parent) for n in NAMES if (p := at / n).exists()), None)
    if found is None:
        raise InputError(
            f"{path} names genes by numbers, and no table says which. Put {NAMES[0]} (columns token_id, gene_symbol, "
            f"ensembl_id) beside it."
        )
    table = read_table(found)
    names = [c for c in (*IDS, *SYMBOLS) if c in table.columns]
    if "token_id" not in table.columns or not names or table["token_id"].duplicated().any():
        raise InputError(
            f"{found} does not name genes: it needs token_id, each once, and one of {first_few([*SYMBOLS, *IDS])}."
        )
    return table.set_index(pd.Index(table[names[0]].astype(str), name=None))[["token_id", *names[1:]]]


def _unmarked(genes: Any, values: Any, sizes: Any, tokens: pd.DataFrame) -> tuple[Any, Any, Any]:
    """Without the token that stands before the genes of every cell and is no gene."""
    first = np.cumsum(sizes) - sizes
    if not len(sizes) or (sizes == 0).any() or (values[first] != _MARK).any():
        return genes, values, sizes
    if np.isin(genes[first], tokens["token_id"].to_numpy()).any():
        return genes, values, sizes
    keep = np.ones(len(genes), dtype=bool)
    keep[first] = False
    return genes[keep], values[keep], sizes - 1


def _columns(genes: Any, known: dict[str, int]) -> Any:
    """Position of each name, in the order in which names were met."""
    codes, names = pd.factorize(genes)
    return np.array([known.setdefault(str(n), len(known)) for n in names], dtype=np.int32)[codes]


def _looked_up(genes: Any, tokens: pd.DataFrame, path: Path) -> Any:
    at = pd.Index(tokens["token_id"]).get_indexer(genes)
    if (at < 0).any():
        foreign = np.unique(genes[at < 0])
        raise InputError(
            f"{path}: {len(foreign):,} gene numbers are not in the table of genes: {first_few(foreign.tolist(), 5)}. "
            f"The table is of another release; put the one published with these cells beside them."
        )
    return at.astype(np.int32)


def _obs(said: list[pd.DataFrame]) -> pd.DataFrame:
    """What is said of the cells; their names, or numbers."""
    table = pd.concat(said, ignore_index=True) if said else pd.DataFrame()
    column = next((c for c in _CELLS if c in table.columns and table[c].is_unique), None)
    names = [f"cell{i}" for i in range(len(table))] if column is None else table[column].astype(str).to_numpy()
    for name in table.columns:
        if pd.api.types.is_object_dtype(table[name]):
            table[name] = table[name].astype("category")
    return table.set_index(pd.Index(names, dtype=object))
