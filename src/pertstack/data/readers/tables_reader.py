"""Pairs of plain tables (parquet, CSV, TSV): one with treated profiles and metadata, one with controls.

Layout (``docs/formats-data.md``): a row per sample in both. The treated table has metadata columns and gene columns;
the control table has the same gene columns and either ``sample_id`` (the control of that sample) or ``control_id`` (a
control that treated rows name in their own ``control_id`` column). Genes are the numeric columns that both tables
share; rows are matched by id, never by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack._base.reading.text_tables import UNNAMED
from pertstack.data.file import DataFile
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.readers.columns.beside import said_beside
from pertstack.data.readers.columns.columns import canonical_obs, source_column
from pertstack.data.readers.columns.no_genes import among_genes, apart, names_of_rows, no_genes, unlike_genes
from pertstack.data.readers.matrices import IndexedRows, RepeatedRow, RowSource
from pertstack.data.readers.refused import no_controls
from pertstack.data.readers.spill import Table, pour

Names = np.ndarray[Any, Any]
_ID_COLUMNS = ("sample_id", "index", UNNAMED, "__index_level_0__", "id")


def open_tables(
    path: Path,
    control: Path | None,
    *,
    mapping: Mapping[str, str] | None = None,
    delta: bool = False,
    metadata: Path | None = None,
) -> DataFile:
    """Open a treated table and its control table.

    Parameters
    ----------
    path : a row per sample, with metadata and genes; genes are the numeric columns that both tables share.
    control : a row per sample_id, or per control_id; None with ``delta`` only.
    mapping, delta, metadata : as in ``open_data``.

    Raises
    ------
    InputError
        Controls are missing, or the tables share no gene.
    """
    first = Table(path)
    other = None if control is None else Table(control)
    one_sided: set[str] = set()
    columns = [*first.columns, *(other.columns if other else ())]
    taken = no_genes(columns, mapping)
    odd = unlike_genes([c for c in first.columns if c in first.numeric and c not in taken])
    taken |= odd
    if delta:
        genes = first.numeric - taken
        source = "no control file (differential values)"
    elif other is None:
        raise no_controls(first, mapping)
    else:
        genes = (first.numeric & other.numeric) - taken
        one_sided = (first.numeric ^ other.numeric) - taken
        source = str(control)
        if not genes:
            raise InputError(
                f"{path} and {control} share no numeric column, so no gene is known. The first has "
                f"{first_few(first.columns, 8)}, the "
                f"second {first_few(other.columns, 8)}. Give genes the same names in both."
            )
    ordered = [c for c in first.columns if c in genes]
    keep = [c for c in first.columns if c not in genes]
    treated, table = pour(first, ordered, keep, names=names_of_rows(first.columns, mapping))
    column = _id_column(first, mapping)
    obs_source, told = _indexed(table, column, path), apart(path.name, sorted(odd & set(first.columns)))
    if metadata is not None:
        numbered = column == UNNAMED and first.counts_rows
        obs_source, found = said_beside(metadata, obs_source, path, mapping=mapping, numbered=numbered)
        told += found
    if column == (mapping or {}).get("sample_id"):
        mapping = {k: v for k, v in (mapping or {}).items() if k != "sample_id"}  # is the index now
    obs, notes = canonical_obs(obs_source, mapping, where=path.name)
    notes += told
    if delta:
        controls: RowSource = RepeatedRow(np.zeros(len(ordered), dtype=np.float32), len(table))
    else:
        assert other is not None
        controls = _controls(other, ordered, obs_source, mapping=mapping, ids_in=column)
    notes.append(_gene_note(path, ordered, keep))
    notes += among_genes(path.name, first.columns, ordered, numeric=first.numeric, told=set((mapping or {}).values()))
    if column == UNNAMED and first.counts_rows:
        notes.append(_row_numbers(path, len(obs)))
    if one_sided:
        notes.append(_one_sided_note(path, sorted(one_sided)))
    var = pd.DataFrame(index=pd.Index(np.array(ordered, dtype=object), name="gene"))
    return DataFile(
        path=str(path),
        obs=obs,
        var=var,
        treated=treated,
        control=controls,
        delta=delta,
        control_reference=source,
        notes=notes,
    )


def _id_column(table: Table, mapping: Mapping[str, str] | None) -> str | None:
    """The mapped column, else the first known one; an unnamed column that counts the rows is the last resort."""
    asked = (mapping or {}).get("sample_id")
    if asked in table.columns:
        return asked
    known = [c for n in _ID_COLUMNS if (c := column_of(table.columns, [n])) is not None]
    better = [c for c in known if c != UNNAMED or not table.counts_rows]
    return next(iter([*better, *known]), None)


def _indexed(table: pd.DataFrame, column: str | None, path: Path) -> pd.DataFrame:
    """The metadata with sample ids as index."""
    if column is None:
        kind = "parquet" if path.suffix.casefold() in (".parquet", ".pq") else "csv"
        raise InputError(
            f"{path} has no column of sample ids, and rows are matched by id, never by position. Name it with --map "
            f"sample_id=COLUMN (of {first_few(table.columns, 20)}). Where no column tells the rows apart, number them: "
            f"python -c \"import pandas; t = pandas.read_{kind}({str(path)!r}); t.insert(0, 'sample_id', [f'row{{i}}' "
            f"for i in range(len(t))]); t.to_{kind}('named.{kind}', index=False)\", then --data named.{kind}."
        )
    empty = table.index[table[column].isna()]
    if len(empty):
        raise InputError(
            f"{path}: column {column!r} has no sample id in {len(empty):,} rows (the first is row {empty[0] + 1:,}). "
            f"Give every row its id, or remove these rows."
        )
    named: pd.DataFrame = table.set_index(table[column].astype(str)).drop(columns=column).rename_axis("sample_id")
    return named


def _controls(
    given: Table, genes: list[str], obs: pd.DataFrame, mapping: Mapping[str, str] | None, ids_in: str | None
) -> RowSource:
    path, columns, line = given.path, given.columns, source_column(obs, mapping, "cell_line")
    named, theirs = source_column(obs, mapping, "control_id"), column_of(columns, ["control_id"])
    by_control = named is not None and theirs is not None
    key = theirs if by_control else _id_column(given, {"sample_id": ids_in or ""})
    if key is None:
        raise InputError(
            f"{path} has neither a column sample_id nor control_id (with control_id in the treated table too), so "
            f"controls cannot be matched to samples. Its columns: {first_few(columns, 20)}."
        )
    stated = line if line in columns else None
    kept = [key] if stated is None else [key, stated]
    values, table = pour(given, genes, kept, names=kept)
    ids = pd.Index(as_texts(table[key]))
    if ids.has_duplicates:
        raise InputError(
            f"{path}: {key} {first_few(ids[ids.duplicated()].unique())} occurs more than once. Keep one row of each."
        )
    wanted = pd.Index(as_texts(obs[named]) if by_control else obs.index.astype(str))
    at = ids.get_indexer(wanted)
    if (at < 0).any():
        missing = list(dict.fromkeys(wanted[at < 0]))
        raise InputError(
            f"{path} has no control for {int((at < 0).sum()):,} of {len(wanted):,} samples: {key} "
            f"{first_few(missing)} is not in it "
            f"(it has {first_few(ids[:3])})."
        )
    if stated is not None:
        _need_own_line(path, wanted, as_texts(table[stated]).to_numpy()[at], as_texts(obs[stated]).to_numpy())
    return IndexedRows(values.values, at.astype(np.int64))


def _need_own_line(path: Path, control_ids: pd.Index[Any], of_control: Names, of_sample: Names) -> None:
    """Refuse a control table that says itself that a control is of another cell line than its sample."""
    other = np.flatnonzero(of_control != of_sample)
    if len(other):
        i = other[0]
        raise InputError(
            f"{path}: {len(other):,} of {len(of_sample):,} samples name a control of another cell line: {of_sample[i]} "
            f"was given {control_ids[i]!r} of {of_control[i]}. The difference between the lines would be in the "
            f"effect. Correct control_id in the treated table."
        )


def _one_sided_note(path: Path, columns: list[str]) -> Finding:
    message = (
        f"{len(columns):,} numeric columns are in only one of the two tables and are not genes here: "
        f"{first_few(columns)}. If they are "
        f"genes, give both tables the same gene names; if they are metadata, all is well."
    )
    return Finding(
        "warning", "columns_in_one_table", message, count=len(columns), examples=tuple(columns[:10]), where=str(path)
    )


def _row_numbers(path: Path, n: int) -> Finding:
    message = (
        f"{path.name} has no sample ids but numbers of rows (0, 1, 2, ...), so its {n:,} rows are matched to their "
        f"controls by position in their files. If the two tables were sorted differently, every control is wrong. "
        f"Write both tables with a column sample_id."
    )
    return Finding("warning", "row_numbers_as_ids", message, n, where=str(path))


def _gene_note(path: Path, genes: list[str], keep: list[Any]) -> Finding:
    return Finding(
        "note",
        "genes_taken",
        f"{len(genes):,} columns of {path.name} were taken as genes ({first_few(genes, 3)}), {len(keep):,} as metadata "
        f"({first_few(keep, 12)}).",
        len(genes),
        where=str(path),
    )
