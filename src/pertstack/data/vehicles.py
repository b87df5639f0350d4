"""Controls that stand in the same table as treated samples (vehicle wells): who they are, and which sample gets which.

The choice is written into ``control_reference``, because it decides what an own-control score means (``pairing.py``).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack.data.matrices import Float32, IndexedRows, Positions, RowSource, SubsetRows, take

ControlChoice = Literal["plate_mean", "plate_random", "line_mean", "line_random"]
_VEHICLE_TYPES = {"ctl_vehicle", "ctl_vehicle.cns", "ctl_untrt", "ctl_untrt.cns", "vehicle", "control"}
_OTHER_CONTROLS = {"ctl_vector", "ctl_vector.cns", "ctl_pos"}


def vehicle_rows(pert_type: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are vehicle controls, by LINCS's ``pert_type``; untreated wells only where there is no vehicle."""
    kind = pert_type.astype(str).str.strip().str.casefold()
    vehicle = kind.isin({"ctl_vehicle", "ctl_vehicle.cns", "vehicle", "control"}).to_numpy(dtype=bool)
    return vehicle if vehicle.any() else kind.isin(_VEHICLE_TYPES).to_numpy(dtype=bool)


def treated_rows(pert_type: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are treated samples: neither vehicle, untreated, nor empty vector."""
    kind = pert_type.astype(str).str.strip().str.casefold()
    return ~kind.isin(_VEHICLE_TYPES | _OTHER_CONTROLS).to_numpy(dtype=bool)


def pair_controls(
    values: RowSource,
    treated: Positions,
    vehicles: Positions,
    plate: np.ndarray[Any, Any],
    line: np.ndarray[Any, Any],
    ids: np.ndarray[Any, Any],
    *,
    choice: ControlChoice = "plate_mean",
    seed: int = 0,
    what: str = "vehicle well",
) -> tuple[RowSource, list[str], str]:
    """A control for every treated row.

    Parameters
    ----------
    values
        All rows of the file, treated and vehicle.
    treated, vehicles
        Their positions.
    plate, line, ids
        Plate, cell line and id of every row of the file.
    choice
        ``plate_mean`` (mean vehicle of the plate), ``plate_random`` (one vehicle well of the plate), and the same per
        cell line.
    what
        What a control is called in messages.

    Returns
    -------
    The controls as rows, the control id of every treated row, and a sentence for ``control_reference``.

    Raises
    ------
    InputError
        A plate (or cell line) with treated samples has no control.
    """
    if choice not in get_args(ControlChoice):
        raise InputError(
            f"The choice of controls {choice!r} is not known. Use one of {', '.join(get_args(ControlChoice))}."
        )
    by_plate = choice.startswith("plate")
    where = plate if by_plate else line
    unit = "plate" if by_plate else "cell line"
    pools = {str(w): vehicles[where[vehicles].astype(str) == str(w)] for w in np.unique(where[treated].astype(str))}
    empty = [w for w, pool in pools.items() if not len(pool)]
    if empty:
        raise InputError(
            f"{len(empty):,} {unit}s have treated samples but no {what}: {first_few(empty)}. "
            + ("Take controls from the whole cell line (--controls line_mean), or leave" if by_plate else "Leave")
            + f" these {unit}s out."
        )
    names = where[treated].astype(str)
    if choice.endswith("mean"):
        units = sorted(pools)
        means = np.stack([_mean(values, pools[u]) for u in units])
        at = {u: i for i, u in enumerate(units)}
        index = np.array([at[w] for w in names], dtype=np.int64)
        return (
            IndexedRows(means, index),
            [f"{w}:{what.split()[0]}_mean" for w in names],
            f"mean of the {what}s of the {unit}",
        )
    rng = np.random.default_rng(seed)
    chosen = np.empty(len(treated), dtype=np.int64)
    for w in sorted(pools):
        members = np.flatnonzero(names == w)
        chosen[members] = rng.choice(pools[w], size=len(members))
    control_ids = [str(i) for i in ids[chosen]]
    return SubsetRows(values, chosen), control_ids, f"one {what} of the {unit}, drawn at random (seed {seed})"


def _mean(values: RowSource, positions: Positions, at_once: int = 1024) -> Float32:
    """Mean of any number of rows, (n_genes,), read ``at_once`` at a time."""
    total = np.zeros(values.shape[1])
    for first in range(0, len(positions), at_once):
        total += take(values, positions[first : first + at_once]).sum(axis=0, dtype=np.float64)
    return (total / len(positions)).astype(np.float32)
