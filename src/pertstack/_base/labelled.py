"""Tables and columns that carry names are put in one order by name; what carries none is taken by position.

Where both are given, the named ones must already be in one order: which of several orders a plain array follows
cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import MisalignedError, first_few


@dataclass(frozen=True)
class Aligned:
    """Arguments in one order, as arrays; ``rows`` and ``columns`` are the names of that order, if there are any."""

    values: dict[str, Any]
    rows: pd.Index[Any] | None
    columns: pd.Index[Any] | None


def align(arguments: Mapping[str, Any], *, columns: Iterable[Any] | None = None, first: Sequence[str] = ()) -> Aligned:
    """Arrays of named arguments (``None`` stays), all in the order of one of them.

    Parameters
    ----------
    arguments
        Name, as the caller knows it, -> array, list, Series (a value per row) or DataFrame (rows x columns); also a
        sparse matrix, a tensor, or AnnData, whose X is taken with its names.
    columns
        Names that plain arrays have in their columns; DataFrames are brought to them.
    first
        Whose order is taken, the first of these that has names; else that of the first argument with names.

    Raises
    ------
    MisalignedError
        Names that differ or repeat, or several orders beside arguments without names.
    """
    arguments = {name: _readable(name, value) for name, value in arguments.items()}
    given = {name: value for name, value in arguments.items() if value is not None}
    by_rows = {n: v.index for n, v in given.items() if _has_names(v)}
    by_columns = {n: v.columns for n, v in given.items() if isinstance(v, pd.DataFrame) and not _plain(v.columns)}
    order = [*[n for n in first if n in by_rows], *by_rows]
    rows = by_rows[order[0]] if order else None
    _need_one_order(
        by_rows, rows, [n for n, v in given.items() if n not in by_rows and np.ndim(v) > 0], what="row", order=order
    )
    wanted = None if columns is None else pd.Index([str(c) for c in columns])
    wide = [n for n, v in given.items() if n not in by_columns and np.ndim(v) > 1]
    names = {n: pd.Index([str(c) for c in index]) for n, index in by_columns.items()}
    order = [*[n for n in first if n in names], *names]
    across = wanted if wanted is not None else (names[order[0]] if order else None)
    _need_one_order(names, across, wide if wanted is None else [], what="column", order=order)
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in by_rows and rows is not None and not by_rows[name].equals(rows):
            value = value.reindex(rows)
        if name in names and across is not None and not names[name].equals(across):
            value = value.set_axis(names[name], axis=1).reindex(columns=across)
        values[name] = np.asarray(value) if isinstance(value, pd.DataFrame | pd.Series | pd.Index) else value
    return Aligned(values, rows, across)


def _readable(name: str, value: Any) -> Any:
    """A table or array of what can be turned into one; anything else as it is."""
    if hasattr(value, "obs_names") and hasattr(value, "to_df"):  # AnnData
        return value.to_df()
    if hasattr(value, "toarray"):  # sparse
        return value.toarray()
    if hasattr(value, "detach"):  # a tensor, with its gradient or on a device
        return value.detach().cpu().numpy()
    if isinstance(value, list | tuple) and value and np.ndim(value[0]) == 1:
        try:
            return np.asarray(value, dtype=np.float64)
        except ValueError as error:
            raise MisalignedError(f"{name}: its rows are no lists of numbers of one length ({error}).") from error
    return value


def _has_names(value: Any) -> bool:
    return isinstance(value, pd.DataFrame | pd.Series) and not _plain(value.index)


def _plain(index: pd.Index[Any]) -> bool:
    """Whether an index only counts from 0, as pandas gives to what has no names."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _need_one_order(
    found: Mapping[str, pd.Index[Any]],
    wanted: pd.Index[Any] | None,
    nameless: Sequence[str],
    *,
    what: str,
    order: Sequence[str],
) -> None:
    if wanted is None:
        return
    leader = order[0] if order else "gene_names"
    for name, index in found.items():
        if not index.is_unique:
            twice = index[index.duplicated()].unique()
            raise MisalignedError(
                f"{name}: {len(twice):,} {what} names occur more than once: {first_few(twice)}. Which is which cannot "
                f"be known. Make them unique, or provide plain arrays in one order."
            )
        lacking, foreign = wanted.difference(index, sort=False), index.difference(wanted, sort=False)
        if len(lacking) or len(foreign):
            raise MisalignedError(
                f"{name} and {leader} do not have the same {what} names: {len(lacking):,} are missing "
                f"({first_few(lacking) if len(lacking) else 'none'}), {len(foreign):,} are only in {name} "
                f"({first_few(foreign) if len(foreign) else 'none'}). Give all of them the same names."
            )
        if nameless and not index.equals(wanted):
            at = int(np.flatnonzero(np.asarray(index != wanted))[0])
            raise MisalignedError(
                f"{name} has its {what}s in another order than {leader} (first at {at}: {index[at]!r} and "
                f"{wanted[at]!r}), and {first_few(nameless)} have no names: which order they follow cannot be known. "
                f"Provide everything as Series and DataFrames with the same names, or everything in one order."
            )
