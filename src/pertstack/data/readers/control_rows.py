"""Controls that are rows among the samples, as in most single-cell files: who they are, and which sample gets which.

How they are handed out is the business of ``data/readers/vehicles.py``, the same for wells of a plate and for cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.readers.columns import canonical_obs, canonical_text, sample_ids, source_column
from pertstack.data.readers.matrices import Positions, RowSource
from pertstack.data.readers.vehicles import ControlChoice, pair_controls

Mask = np.ndarray[Any, np.dtype[np.bool_]]
LABELS = frozenset((
    "control", "ctrl", "ctl", "non-targeting", "non_targeting", "nontargeting", "nt", "dmso", "dmso_tf", "vehicle",
    "ctl_vehicle", "untreated", "unperturbed", "mock", "negative_control",
))  # fmt: skip
"""Names of the control in the perturbation column that are known without being told (upper or lower case)."""
FLAGS = ("is_control", "control")
"""Columns of true / false or 0 / 1 that mark control rows."""


@dataclass(frozen=True)
class Handed:
    """Treated samples with the control each was given."""

    obs: pd.DataFrame  # canonical, treated rows only, with control_id
    at: Positions  # their rows in the file
    control: RowSource
    reference: str  # how controls were given, in words
    notes: list[Finding]


def control_rows(obs: pd.DataFrame, mapping: Mapping[str, str] | None, label: str | None) -> Mask | None:
    """Which rows are controls (bool, n_rows), or None where nothing says so.

    By the label given; else by a column of ``FLAGS``; else by a known name in the perturbation column.

    Raises
    ------
    InputError
        The label given stands in no row of the perturbation column.
    """
    column = source_column(obs, mapping, "perturbation")
    names = None if column is None else obs[column].astype(str).str.strip()
    if label is not None:
        if names is None:
            raise InputError(f"--control-label {label}: no column says the perturbation. Name it with --map.")
        mask = (names == label).to_numpy(dtype=bool)
        if not mask.any():
            raise unknown_name(f"--control-label; column {column!r} has no row", label, names.unique())
        return mask
    for flag in FLAGS:
        if flag in obs.columns and (found := _flagged(obs[flag])) is not None:
            return found
    if names is None:
        return None
    mask = names.str.casefold().isin(LABELS).to_numpy(dtype=bool)
    return mask if mask.any() else None


def control_names(obs: pd.DataFrame, mapping: Mapping[str, str] | None, is_control: Mask, where: str) -> Finding:
    """A note of every name that was taken for a control, with its rows."""
    column = source_column(obs, mapping, "perturbation")
    names = pd.Series("marked rows", index=range(len(obs))) if column is None else obs[column].astype(str).str.strip()
    count = names[is_control].value_counts()
    shows = ", ".join(f"{name!r} ({n:,} rows)" for name, n in count.head(6).items())
    shows += f" and {len(count) - 6:,} more names" if len(count) > 6 else ""
    text = f"Controls of {where} are {int(is_control.sum()):,} rows: {shows}."
    return Finding(
        "note", "control_names", text, int(is_control.sum()), tuple(map(str, count.index[:10])), where, {"shows": shows}
    )


def hand_out(
    values: RowSource,
    obs: pd.DataFrame,
    treated: Mask,
    controls: Mask,
    mapping: Mapping[str, str] | None,
    *,
    choice: ControlChoice = "plate_mean",
    seed: int = 0,
    what: str = "control row",
    where: str = "the data",
) -> Handed:
    """A control for every treated row, from the control rows of its cell line and plate (see ``pair_controls``).

    Raises
    ------
    InputError
        No treated row, a row without cell line, or a cell line with treated rows and no control row.
    """
    if not treated.any():
        raise InputError(f"{where}: all {len(obs):,} rows are controls. There is no treated sample to predict.")
    at = np.flatnonzero(treated).astype(np.int64)
    table, notes = canonical_obs(obs.iloc[at], mapping, where=where)
    used = obs.iloc[np.flatnonzero(treated | controls)]
    line, plate = (np.full(len(obs), None, dtype=object) for _ in range(2))
    line[treated | controls] = canonical_text(used, mapping, "cell_line", where=where)
    known = canonical_text(used, mapping, "plate", where=where)
    if known is not None:
        plate[treated | controls] = known
    paired = pair_controls(
        values, at, np.flatnonzero(controls), line, None if known is None else plate, sample_ids(obs, mapping),
        choice=choice, seed=seed, what=what, where=where,
    )  # fmt: skip
    table["control_id"] = paired.control_ids
    said = (
        f"{int(controls.sum()):,} {what}s serve {len(at):,} samples: {paired.reference}"
        f"{' (no plate is known)' if known is None and choice.startswith('plate') else ''}."
    )
    notes += [Finding("note", "controls_from_rows", said, int(controls.sum()), where=where), *paired.notes]
    return Handed(table, at, paired.rows, paired.reference, notes)


def _flagged(column: pd.Series[Any]) -> Mask | None:
    """A column of true / false or 0 / 1 as a mask; None where it holds anything else, or marks no row or every row."""
    texts = column.astype(str).str.strip().str.casefold()
    if not texts.isin({"true", "false", "0", "1", "0.0", "1.0"}).all():
        return None
    mask = texts.isin({"true", "1", "1.0"}).to_numpy(dtype=bool)
    return mask if mask.any() and not mask.all() else None


def no_control_rows(obs: pd.DataFrame, mapping: Mapping[str, str] | None) -> str:
    """What was looked for and not found, for the message of a file without controls."""
    column = source_column(obs, mapping, "perturbation")
    seen = first_few(obs[column].astype(str).unique(), 6) if column is not None else "no perturbation column"
    return (
        f"Nor is any row marked as control (a column is_control, or a perturbation such as 'control', 'DMSO' or "
        f"'non-targeting'; here: {seen}): where controls are rows, name theirs with --control-label NAME."
    )
