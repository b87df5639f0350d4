"""Controls that are rows among the samples, as in most single-cell files: who they are, and which sample gets which.

How they are assigned is handled by ``data/readers/vehicles.py``, the same for wells of a plate and for cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack.data.labels import control_kind, is_control_name
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.readers.columns.columns import source_column
from pertstack.data.readers.columns.doses import EMPTY

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Labels = str | Sequence[str] | None
NEGATIVE = re.compile(
    r"neg|non.?target|safe|scramb|control|ctrl|\bnt|aavs|rosa|luc|lacz|gfp|rfp|dmso|vehicle|mock|"
    r"untreat|unstim|no.?guide|empty|^wt$|wild.?type|intergenic|none"
)
"""Names that guides and vectors of negative controls have."""
_YES = frozenset({"true", "t", "yes", "y", "1", "1.0"})
_NO = frozenset({"false", "f", "no", "n", "0", "0.0"})
FLAGS = ("is_control", "control", "vehicle")
"""Columns of true / false, yes / no or 0 / 1 that mark control rows."""


@dataclass(frozen=True)
class Controls:
    """Which rows serve as controls, and which are controls of another kind: neither those nor samples."""

    rows: Mask
    aside: Mask
    notes: list[Finding]


def control_rows(
    obs: pd.DataFrame, mapping: Mapping[str, str] | None, label: Labels, *, where: str = "the data"
) -> Controls | None:
    """Which rows are controls, or None if nothing says so.

    By the labels given; else by a column of ``FLAGS``; else by known names in the perturbation column. Controls of
    several kinds are never put together unasked: untreated ones are set aside if there are others, and anything else
    has to be named.

    Parameters
    ----------
    obs : table as the file has it.
    mapping : canonical column -> column of ``obs``.
    label : the perturbation, or perturbations, that are the control; None to look.
    where : the file, for messages.

    Raises
    ------
    InputError
        A label is in no row of the perturbation column, or which rows are the control has to be said.
    """
    column = source_column(obs, mapping, "perturbation")
    names = None if column is None else as_texts(obs[column]).str.strip()
    if label:
        return _labelled(
            obs, names, [label] if isinstance(label, str) else list(label), column=str(column), where=where
        )
    for flag, found in _flags(obs):
        return _by_flag(flag, found, names, where)
    if names is None:
        return None
    usual = _usual(names)
    return _by_name(names, usual, where) if usual else None


def _labelled(obs: pd.DataFrame, names: pd.Series[Any] | None, labels: list[str], column: str, where: str) -> Controls:
    if names is None:
        raise InputError(f"--control-label {labels[0]}: no column says the perturbation. Name it with --map.")
    for label in labels:
        if not (names == label).any():
            raise unknown_name(f"--control-label; column {column!r} has no row", label, names.unique())
    rows = names.isin(labels).to_numpy(dtype=bool)
    others = {n for n in _usual(names) if n not in labels}
    flagged = next((rows for _, rows in _flags(obs)), None)
    aside = names.isin(others).to_numpy(dtype=bool) & (np.ones(len(obs), dtype=bool) if flagged is None else flagged)
    notes = _set_aside(names, aside, labels, where)
    if len(labels) > 1:
        notes.append(
            Finding(
                "note",
                "controls_pooled",
                f"Rows of {counted(names[rows])} serve together as the control, as asked.",
                count=int(rows.sum()),
                examples=tuple(labels[:10]),
                where=where,
            )
        )
    return Controls(rows, aside, notes)


def _by_flag(flag: str, flagged: Mask, names: pd.Series[Any] | None, where: str) -> Controls:
    """Controls by a column of true and false, held against the names of the perturbations it marks."""
    none = np.zeros(len(flagged), dtype=bool)
    if names is None:
        return Controls(flagged, none, [])
    told = names[flagged]
    told = told[~told.str.casefold().isin(EMPTY)]
    usual, odd = _usual(told), sorted({n for n in told.unique() if not is_control_name(n)})
    if usual and odd:
        found = _by_name(names, usual, where)
        text = (
            f"Column {flag!r} is true for several perturbations: {counted(told)}. The control is "
            f"{first_few(sorted(set(names[found.rows])))}; {first_few(odd)} are taken as samples (positive controls?). "
            f"If they are the control too, name each with --control-label."
        )
        return Controls(
            found.rows,
            found.aside,
            [
                *found.notes,
                Finding(
                    "warning", "control_flag_of_samples", text, count=len(odd), examples=tuple(odd[:10]), where=where
                ),
            ],
        )
    elsewhere = {n for n in _usual(names[~flagged]) if n not in usual} if odd else set()
    if elsewhere or (len(odd) > 1 and not all(map(NEGATIVE.search, map(str.casefold, odd)))):
        beside = f", and other rows are called {first_few(sorted(elsewhere))}" if elsewhere else ""
        raise InputError(
            f"{where}: column {flag!r} is true for {counted(told)}{beside}. Several perturbations under one flag may "
            f"be positive controls, and their mean would be the control of every sample. Name the control: "
            f"--control-label {sorted(elsewhere or odd)[0]!r} (once for each that serves). Where values are "
            f"differences already (z-scores, signed log p), no control is needed: --delta."
        )
    if odd and len(odd) > 1:
        return Controls(flagged, none, [_pooled(told, where)])
    if not usual:
        return Controls(flagged, none, [])
    found = _by_name(names, usual, where)
    unnamed = flagged & ~names.isin(usual).to_numpy(dtype=bool)
    return Controls((found.rows & flagged) | unnamed, found.aside & flagged, found.notes)


def _by_name(names: pd.Series[Any], usual: set[str], where: str) -> Controls:
    """Controls by known names: those of one kind together, with a word if there are several names."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(usual):
        kinds.setdefault(str(control_kind(name)), []).append(name)
    serving = [k for k in kinds if k not in ("control", "untreated")]
    serving = serving or [k for k in kinds if k == "control"] or ["untreated"]
    if len(serving) > 1:
        listed = "; ".join(f"{k}: {counted(names[names.isin(kinds[k])])}" for k in serving)
        raise InputError(
            f"{where}: rows are controls of several kinds ({listed}). Name the one that serves: "
            f"--control-label {kinds[serving[0]][0]!r}; repeat it for others to put them together."
        )
    chosen = sorted({*kinds[serving[0]], *kinds.get("control", ())})
    rows = names.isin(chosen).to_numpy(dtype=bool)
    aside = names.isin(usual).to_numpy(dtype=bool) & ~rows
    notes = _set_aside(names, aside, chosen, where)
    if len(chosen) > 1:
        notes.append(_pooled(names[rows], where))
    return Controls(rows, aside, notes)


def vehicles_by_name(
    obs: pd.DataFrame, vehicles: Mask, mapping: Mapping[str, str] | None, *, label: Labels, where: str
) -> tuple[Mask, list[Finding]]:
    """Wells that a column says are vehicles: those of the names given, else all, with a word if names are several.

    Parameters
    ----------
    obs : table as the file has it.
    vehicles : (n,) mask.
    mapping : canonical column -> column of ``obs``.
    label : perturbations to keep; None for all.
    where : the file, for messages.

    Raises
    ------
    InputError
        No vehicle well has a name that was given.
    """
    column = source_column(obs, mapping, "perturbation")
    if column is None:
        return vehicles, []
    names = as_texts(obs[column]).str.strip()
    told = names[vehicles & ~names.str.casefold().isin(EMPTY).to_numpy(dtype=bool)]
    if not label:
        return vehicles, [_pooled(told, where)] if told.nunique() > 1 else []
    labels = [label] if isinstance(label, str) else list(label)
    for name in labels:
        if name not in set(told):
            raise unknown_name(f"--control-label; no vehicle well of {where} is called", name, told.unique())
    rows = vehicles & names.isin(labels).to_numpy(dtype=bool)
    return rows, _set_aside(names, vehicles & ~rows, labels, where)


def _usual(names: pd.Series[Any]) -> set[str]:
    return {n for n in names.unique() if is_control_name(n)}


def counted(names: pd.Series[Any]) -> str:
    counts = names.value_counts()
    told = [f"{name!r} ({n:,} row{'' if n == 1 else 's'})" for name, n in counts.head(8).items()]
    return ", ".join(told) + (f" and {len(counts) - 8:,} more" if len(counts) > 8 else "")


def _pooled(names: pd.Series[Any], where: str) -> Finding:
    return Finding(
        "warning",
        "controls_several",
        f"Rows of several names serve together as the control: {counted(names)}. If one of them is no control, "
        f"or they differ, name those that serve with --control-label, once for each.",
        count=len(names),
        examples=tuple(sorted(set(names))[:10]),
        where=where,
    )


def _set_aside(names: pd.Series[Any], aside: Mask, serving: Sequence[str], where: str) -> list[Finding]:
    if not aside.any():
        return []
    return [
        Finding(
            "warning",
            "controls_aside",
            f"{int(aside.sum()):,} rows are left out: they are controls of another kind ({counted(names[aside])}) "
            f"than {first_few(serving)}, which serve. To put them together, name each with --control-label.",
            count=int(aside.sum()),
            examples=tuple(sorted(set(names[aside]))[:10]),
            where=where,
        )
    ]


def control_names(obs: pd.DataFrame, mapping: Mapping[str, str] | None, is_control: Mask, *, where: str) -> Finding:
    """A note of every name that was taken for a control, with its rows.

    Parameters
    ----------
    obs : table as the file has it.
    mapping : canonical column -> column of ``obs``.
    is_control : (n,) mask.
    where : the file, for messages.
    """
    column = source_column(obs, mapping, "perturbation")
    names = pd.Series("marked rows", index=range(len(obs))) if column is None else as_texts(obs[column]).str.strip()
    count = names[is_control].value_counts()
    shows = ", ".join(f"{name!r} ({n:,} rows)" for name, n in count.head(6).items())
    shows += f" and {len(count) - 6:,} more names" if len(count) > 6 else ""
    text = f"Controls of {where} are {int(is_control.sum()):,} rows: {shows}."
    return Finding(
        "note",
        "control_names",
        text,
        count=int(is_control.sum()),
        examples=tuple(map(str, count.index[:10])),
        where=where,
        numbers={"shows": shows},
    )


def _flags(obs: pd.DataFrame) -> Iterator[tuple[str, Mask]]:
    """Columns that mark rows as controls, with the rows."""
    for flag in FLAGS:
        column = column_of(obs.columns, [flag])
        if column is not None and (found := _flagged(obs[column])) is not None:
            yield column, found


def _flagged(column: pd.Series[Any]) -> Mask | None:
    """A column of true / false, yes / no or 0 / 1 as a mask; None if it holds anything else, or marks no row or every
    row."""
    texts = as_texts(column).str.strip().str.casefold()
    if not texts.isin(_YES | _NO).all():
        return None
    mask = texts.isin(_YES).to_numpy(dtype=bool)
    return mask if mask.any() and not mask.all() else None
