"""What a table beside the values (``--metadata``) says of their rows, in the order of the rows.

One way for every kind of data: rows are found by their ids, whichever column holds them, and a column that file and
table both have is taken from the table, with a word if they differ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_names, as_texts, counts_rows, is_text, numbers, read_table, with_numbers
from pertstack._base.reading.text_tables import UNNAMED, text_table
from pertstack.data.readers.columns.aliases import ALIASES, AMOUNTS, alias_names, plain_name

IDS = (
    "sample_id",
    "inst_id",
    "distil_id",
    "sig_id",
    "index",
    UNNAMED,
    "__index_level_0__",
    "id",
    "cid",
    "cell_barcode",
    "barcode",
    "barcodes",
    "cell_id",
    "cell",
)
"""Columns that hold ids of rows, in the order of preference."""
_NUMBERED = frozenset(map(plain_name, ("index", UNNAMED, "__index_level_0__")))
_TEXTS = alias_names(*(n for n in ALIASES if n not in AMOUNTS)) | frozenset(map(plain_name, IDS))
_LOOKED_AT = 1000


def said_beside(
    metadata: Path,
    own: pd.DataFrame,
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    columns: Collection[str] = (),
    numbered: bool = False,
) -> tuple[pd.DataFrame, list[Finding]]:
    """What is said of the rows of a file, by itself and by a table beside it; findings where the two differ.

    Parameters
    ----------
    metadata
        The table: a line for each row of the file, and perhaps others.
    own
        What the file says; its index holds the ids of the rows.
    path
        The file, for messages.
    mapping
        ``sample_id`` may name the column of the table that holds the ids.
    columns
        Names of all columns of the file, if rows and columns may have been exchanged.
    numbered
        Whether the ids of the file are but numbers of rows.

    Raises
    ------
    InputError
        No column names every row, or one names a row twice with lines that differ.
    """
    table = _read(metadata)
    ids = pd.Index(as_texts(pd.Series(own.index)).str.strip())
    if ids.has_duplicates:
        twice = ids[ids.duplicated()].unique()
        raise InputError(
            f"{path}: {len(twice):,} ids of rows occur more than once ({first_few(twice)}), so {metadata} cannot say "
            f"which row is which. Give every row its own id in both."
        )
    key = _key(table, ids, asked=(mapping or {}).get("sample_id"), metadata=metadata, path=path, columns=columns)
    found = _texts_of(table[key])
    told = []
    if numbered and counts_rows(list(found)):
        told.append(_by_numbers(metadata, path, len(ids)))
    lines = table[found.isin(ids).to_numpy()]
    lines = lines[~as_texts(lines).duplicated().to_numpy()]
    lines = lines.set_index(pd.Index(_texts_of(lines[key])))
    if lines.index.has_duplicates:
        twice = lines.index[lines.index.duplicated()].unique()
        raise InputError(
            f"{metadata}: {len(twice):,} ids in column {key!r} occur more than once, with lines that differ: "
            f"{first_few(twice)}. Which one is which cannot be known. Keep one line of each."
        )
    said = lines.loc[ids].set_axis(own.index, axis=0)
    if key != (mapping or {}).get("sample_id"):
        said = said.drop(columns=key)
    return _joined(own, said, metadata, path, told)


def _read(metadata: Path) -> pd.DataFrame:
    table = read_table(metadata)
    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index(names=None if table.index.name else UNNAMED)
    decimal = text_table(metadata).decimal if is_text(metadata) else "."
    return with_numbers(table, {c for c in table.columns if plain_name(c) in _TEXTS}, decimal)


def _texts_of(column: pd.Series[Any]) -> pd.Series[Any]:
    return as_texts(as_names(column)).str.strip()


def _key(
    table: pd.DataFrame, ids: pd.Index[Any], *, asked: str | None, metadata: Path, path: Path, columns: Collection[str]
) -> str:
    """The column that names every row: the one asked for, else by its name, else the only one that does."""
    looked = [asked] if asked is not None and asked in table.columns else list(table.columns)
    some = ids[:_LOOKED_AT]
    share = {c: float(some.isin(_texts_of(table[c])).mean()) for c in looked}
    full = [c for c in looked if share[c] == 1 and ids.isin(_texts_of(table[c])).all()]
    if not full:
        raise _lacking(table, ids, share, metadata, path=path, columns=columns)
    counts = {c: plain_name(c) in _NUMBERED and counts_rows(list(_texts_of(table[c]))) for c in full}
    rank = {plain_name(n): i for i, n in enumerate(IDS)}
    known = sorted((c for c in full if plain_name(c) in rank), key=lambda c: (counts[c], rank[plain_name(c)]))
    if not known and len({tuple(pd.Index(_texts_of(table[c])).get_indexer_for(some)) for c in full}) > 1:
        raise InputError(
            f"Columns {first_few(full)} of {metadata} each name all rows of {path}, in different orders. Say which one "
            f"holds the ids: --map sample_id={full[0]}."
        )
    return str((known or full)[0])


def _lacking(
    table: pd.DataFrame,
    ids: pd.Index[Any],
    share: Mapping[str, float],
    metadata: Path,
    *,
    path: Path,
    columns: Collection[str],
) -> InputError:
    for column in share:
        found = _texts_of(table[column])
        if columns and found.is_unique and found.isin(columns).all():
            return InputError(
                f"{path} has a column for each row of {metadata}: cells are its columns and genes its rows. Turn it: "
                f"python -c \"import pandas; pandas.read_csv('{path}', index_col=0, sep=None, engine='python')"
                f".T.to_parquet('turned.parquet')\", then --data turned.parquet."
            )
    alike = {c: _alike(ids, _texts_of(table[c])) for c in share}
    best = max(share, key=lambda c: (share[c], alike[c]))
    found = _texts_of(table[best])
    if share[best]:
        missing = ids[~ids.isin(found)]
        return InputError(
            f"{metadata} has no line for {len(missing):,} of {len(ids):,} rows of {path}: {first_few(missing)} (its "
            f"ids are in column {best!r}). Every row needs its line: add them, or leave these rows out of the data."
        )
    near = f" Those of column {best!r} ({first_few(found, 3)}) are alike but for case or zeros." if alike[best] else ""
    return InputError(
        f"No column of {metadata} names the {len(ids):,} rows of {path} ({first_few(ids, 3)}).{near} Its columns: "
        f"{first_few(table.columns, 20)}. Give both files the same ids."
    )


def _alike(ids: pd.Index[Any], found: pd.Series[Any]) -> bool:
    """Whether most ids are there but for case and leading zeros."""

    def plain(texts: Any) -> pd.Index[Any]:
        return pd.Index(pd.Series(texts).str.casefold().str.lstrip("0"))

    return bool(plain(ids).isin(plain(found)).mean() > 0.5)


def _joined(
    own: pd.DataFrame, said: pd.DataFrame, metadata: Path, path: Path, told: list[Finding]
) -> tuple[pd.DataFrame, list[Finding]]:
    """Both, the table first if they have a column in common; what it leaves empty is taken from the file."""
    twins = {c: t for c in own.columns for t in said.columns if plain_name(c) == plain_name(t)}
    differ: dict[str, np.ndarray[Any, Any]] = {}
    for mine, theirs in twins.items():
        given, empty = said[theirs], said[theirs].isna().to_numpy()
        apart = _apart(own[mine], given) & ~empty & own[mine].notna().to_numpy()
        if apart.any():
            differ[theirs] = np.flatnonzero(apart)
        if empty.any():
            said = said.assign(**{theirs: given.astype(object).where(~empty, own[mine].astype(object))})
    if differ:
        name, rows = next(iter(differ.items()))
        mine = next(m for m, t in twins.items() if t == name)
        at = int(rows[0])
        text = (
            f"{path.name} and {metadata.name} both say {first_few(differ)} of their rows and differ in "
            f"{max(map(len, differ.values())):,} of {len(own):,}: {name} of {str(own.index[at])!r} is "
            f"{str(own[mine].iloc[at])!r} and {str(said[name].iloc[at])!r}. Those of {metadata.name} are taken. Remove "
            f"the column from the file that is wrong."
        )
        told.append(Finding("warning", "columns_in_both", text, len(differ), tuple(differ)[:10], where=path.name))
    return pd.concat([own.drop(columns=list(twins)), said], axis=1), told


def _apart(mine: pd.Series[Any], theirs: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where two columns differ, as numbers where both are."""
    a, b = numbers(mine), numbers(theirs)
    if a is not None and b is not None:
        return np.asarray(~np.isclose(a, b, equal_nan=True))
    return np.asarray(_texts_of(mine).to_numpy() != _texts_of(theirs).to_numpy())


def _by_numbers(metadata: Path, path: Path, n: int) -> Finding:
    text = (
        f"{path.name} has no ids of its rows but their numbers (0, 1, 2, ...), so its {n:,} rows and the lines of "
        f"{metadata.name} are matched by position. If one of them was sorted, every line says something wrong. Write "
        f"both with a column sample_id."
    )
    return Finding("warning", "row_numbers_as_ids", text, n, where=path.name)
