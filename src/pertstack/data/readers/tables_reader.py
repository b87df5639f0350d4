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
from pertstack.data.file import DataFile
from pertstack.data.readers.columns import ALIASES, canonical_obs, source_column
from pertstack.data.readers.matrices import IndexedRows, RepeatedRow, RowSource
from pertstack.data.readers.spill import header, pour

Names = np.ndarray[Any, Any]
_ID_COLUMNS = ("sample_id", "index", "Unnamed: 0", "__index_level_0__")
_KNOWN = {"sample_id", "control_id", "log10_dose", *_ID_COLUMNS, *(a for names in ALIASES.values() for a in names)}


def open_tables(
    path: Path, control: Path | None, *, mapping: Mapping[str, str] | None = None, delta: bool = False
) -> DataFile:
    """Open a treated table and its control table; with ``delta`` no control table is needed. See ``open_data``."""
    first = header(path)
    one_sided: set[str] = set()
    if delta:
        genes = _numeric(first) - _taken(mapping)
        source = "no control file (differential values)"
    elif control is None:
        raise InputError(
            f"{path} is a table of treated profiles; the controls are missing. Name their table with --control FILE "
            f"(a row per "
            f"sample_id, or per control_id), or say --delta when the values already are differences."
        )
    else:
        other = header(control)
        genes = (_numeric(first) & _numeric(other)) - _taken(mapping)
        one_sided = (_numeric(first) ^ _numeric(other)) - _taken(mapping)
        source = str(control)
        if not genes:
            raise InputError(
                f"{path} and {control} share no numeric column, so no gene is known. The first has "
                f"{first_few(first.columns, 8)}, the "
                f"second {first_few(other.columns, 8)}. Give genes the same names in both."
            )
    ordered = [str(c) for c in first.columns if str(c) in genes]
    keep = [c for c in first.columns if str(c) not in genes]
    treated, table = pour(path, ordered, keep)
    obs_source = _indexed(table, path)
    obs, notes = canonical_obs(obs_source, mapping, where=path.name)
    if delta:
        controls: RowSource = RepeatedRow(np.zeros(len(ordered), dtype=np.float32), len(table))
    else:
        assert control is not None
        line = source_column(obs_source, mapping, "cell_line")
        controls = _controls(control, ordered, obs_source, line)
    notes.append(_gene_note(path, ordered, keep))
    if one_sided:
        notes.append(_one_sided_note(path, sorted(one_sided)))
    var = pd.DataFrame(index=pd.Index(np.array(ordered, dtype=object), name="gene"))
    return DataFile(
        path=str(path), obs=obs, var=var, treated=treated, control=controls, delta=delta, control_reference=source,
        notes=notes,
    )  # fmt: skip


def _taken(mapping: Mapping[str, str] | None) -> set[str]:
    return {str(v) for v in (mapping or {}).values()}


def _numeric(table: pd.DataFrame) -> set[str]:
    return {str(c) for c in table.columns if pd.api.types.is_numeric_dtype(table[c]) and str(c) not in _KNOWN}


def _id_column(table: pd.DataFrame) -> Any:
    return next((c for c in _ID_COLUMNS if c in table.columns), None)


def _indexed(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The metadata with sample ids as index: column sample_id, else the first unnamed column."""
    column = _id_column(table)
    if column is None:
        raise InputError(
            f"{path} has no column of sample ids. Add one named sample_id: rows are matched by id, never by position. "
            f"Its other columns: {first_few(table.columns, 20)}."
        )
    named: pd.DataFrame = table.set_index(table[column].astype(str)).drop(columns=column).rename_axis("sample_id")
    return named


def _controls(path: Path, genes: list[str], obs: pd.DataFrame, line: str | None) -> RowSource:
    columns = header(path).columns
    by_control = "control_id" in columns and "control_id" in obs
    key = "control_id" if by_control else next((c for c in _ID_COLUMNS if c in columns), None)
    if key is None:
        raise InputError(
            f"{path} has neither a column sample_id nor control_id (with control_id in the treated table too), so "
            f"controls cannot be "
            f"matched to samples. Its columns: {first_few(columns, 20)}."
        )
    stated = line if line in columns else None
    values, table = pour(path, genes, [key] if stated is None else [key, stated])
    ids = pd.Index(table[key].astype(str))
    if ids.has_duplicates:
        raise InputError(
            f"{path}: {key} {first_few(ids[ids.duplicated()].unique())} occurs more than once. Keep one row of each."
        )
    wanted = pd.Index(obs["control_id"].astype(str) if by_control else obs.index.astype(str))
    at = ids.get_indexer(wanted)
    if (at < 0).any():
        missing = list(dict.fromkeys(wanted[at < 0]))
        raise InputError(
            f"{path} has no control for {int((at < 0).sum()):,} of {len(wanted):,} samples: {key} "
            f"{first_few(missing)} is not in it "
            f"(it has {first_few(ids[:3])})."
        )
    if stated is not None:
        _need_own_line(path, wanted, table[stated].astype(str).to_numpy()[at], obs[stated].astype(str).to_numpy())
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
    return Finding("warning", "columns_in_one_table", message, len(columns), tuple(columns[:10]), str(path))


def _gene_note(path: Path, genes: list[str], keep: list[Any]) -> Finding:
    return Finding(
        "note", "genes_taken",
        f"{len(genes):,} columns of {path.name} were taken as genes ({first_few(genes, 3)}), {len(keep):,} as metadata "
        f"({first_few(keep, 12)}).", len(genes), where=str(path),
    )  # fmt: skip
