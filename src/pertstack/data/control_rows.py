"""Controls that are rows among the samples, as in most single-cell files: who they are, and which sample gets which.

How they are handed out is the business of ``vehicles.py``, the same for wells of a plate and for cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.columns import canonical_obs, source_column
from pertstack.data.matrices import Positions, RowSource
from pertstack.data.vehicles import ControlChoice, pair_controls

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


def hand_out(
    values: RowSource,
    obs: pd.DataFrame,
    is_control: Mask,
    mapping: Mapping[str, str] | None,
    *,
    choice: ControlChoice = "plate_mean",
    seed: int = 0,
    where: str = "the data",
) -> Handed:
    """A control for every treated row, from the control rows of its plate, or of its cell line where no plate is known.

    Raises
    ------
    InputError
        No treated row, or a plate / cell line with treated rows and no control row.
    """
    if is_control.all():
        raise InputError(f"{where}: all {len(obs):,} rows are controls. There is no treated sample to predict.")
    table, notes = canonical_obs(_named(obs, is_control, mapping), mapping, where=where)
    at, controls = np.flatnonzero(~is_control), np.flatnonzero(is_control)
    by_line = choice.startswith("plate") and "plate" not in table
    used: ControlChoice = choice
    if by_line:
        used = "line_mean" if choice == "plate_mean" else "line_random"
    line = table["cell_line"].to_numpy(dtype=object)
    plate = table["plate"].to_numpy(dtype=object) if "plate" in table else line
    control, ids, reference = pair_controls(
        values, at, controls, plate, line, np.asarray(table.index, dtype=object), choice=used, seed=seed,
        what="control row",
    )  # fmt: skip
    treated = table.iloc[at].copy()
    treated["control_id"] = ids
    said = (
        f"{len(controls):,} control rows serve {len(at):,} samples: {reference}"
        f"{' (no plate is known)' if by_line else ''}."
    )
    notes.append(Finding("note", "controls_from_rows", said, len(controls), where=where))
    return Handed(treated, at.astype(np.int64), control, reference, notes)


def _flagged(column: pd.Series[Any]) -> Mask | None:
    """A column of true / false or 0 / 1 as a mask; None where it holds anything else, or marks no row or every row."""
    texts = column.astype(str).str.strip().str.casefold()
    if not texts.isin({"true", "false", "0", "1", "0.0", "1.0"}).all():
        return None
    mask = texts.isin({"true", "1", "1.0"}).to_numpy(dtype=bool)
    return mask if mask.any() and not mask.all() else None


def _named(obs: pd.DataFrame, is_control: Mask, mapping: Mapping[str, str] | None) -> pd.DataFrame:
    """The table with a perturbation name in every control row, which may have been left empty there."""
    column = source_column(obs, mapping, "perturbation")
    if column is None:
        return obs
    names = obs[column].astype(object).to_numpy(copy=True)
    names[is_control] = "control"
    return obs.assign(**{column: names})


def no_control_rows(obs: pd.DataFrame, mapping: Mapping[str, str] | None) -> str:
    """What was looked for and not found, for the message of a file without controls."""
    column = source_column(obs, mapping, "perturbation")
    seen = first_few(obs[column].astype(str).unique(), 6) if column is not None else "no perturbation column"
    return (
        f"Nor is any row marked as control (a column is_control, or a perturbation such as 'control', 'DMSO' or "
        f"'non-targeting'; here: {seen}): where controls are rows, name theirs with --control-label NAME."
    )
