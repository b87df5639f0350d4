"""Controls that are rows of the same table as treated samples: who they are, and which sample gets which.

A control never serves another cell line: plates and batches often hold several. The choice is written into
``control_reference``, because it decides what an own-control score means (``pairing.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.choices import ControlChoice
from pertstack.data.readers.matrices import Float32, IndexedRows, Positions, RowSource, SubsetRows, take

Names = np.ndarray[Any, Any]
Key = tuple[Any, Any]  # cell line, plate (None: any, or not known)
_VEHICLE_TYPES = {"ctl_vehicle", "ctl_vehicle.cns", "ctl_untrt", "ctl_untrt.cns", "vehicle", "control"}
_OTHER_CONTROLS = {"ctl_vector", "ctl_vector.cns", "ctl_pos"}


def vehicle_rows(pert_type: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are vehicle controls, by LINCS's ``pert_type``; untreated wells only if there is no vehicle."""
    kind = pert_type.astype(str).str.strip().str.casefold()
    vehicle = kind.isin({"ctl_vehicle", "ctl_vehicle.cns", "vehicle", "control"}).to_numpy(dtype=bool)
    return vehicle if vehicle.any() else kind.isin(_VEHICLE_TYPES).to_numpy(dtype=bool)


def treated_rows(pert_type: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are treated samples: neither vehicle, untreated, nor empty vector."""
    kind = pert_type.astype(str).str.strip().str.casefold()
    return ~kind.isin(_VEHICLE_TYPES | _OTHER_CONTROLS).to_numpy(dtype=bool)


@dataclass(frozen=True)
class Paired:
    """The control of every treated row."""

    rows: RowSource
    control_ids: list[str]
    reference: str  # how they were given, in words
    notes: list[Finding]


def pair_controls(
    values: RowSource,
    treated: Positions,
    controls: Positions,
    *,
    line: Names,
    plate: Names | None,
    ids: Names,
    choice: ControlChoice = "plate_mean",
    seed: int = 0,
    what: str = "vehicle well",
    where: str = "",
) -> Paired:
    """A control for every treated row, always of its own cell line.

    Parameters
    ----------
    values
        All rows of the file, treated and control.
    treated, controls
        Their positions.
    line, plate, ids
        Cell line, plate (None if unknown; None altogether if the file knows no plates) and id of every row.
    choice
        ``plate_mean`` (mean control of the cell line on the plate), ``plate_random`` (one of them), ``line_mean`` and
        ``line_random`` (of the cell line, wherever it is). A sample whose plate holds no control of its cell line, or
        whose plate is not known, gets the mean (or one) of its cell line; a warning says which.
    seed
        Of the draws of ``plate_random`` and ``line_random``.
    what, where
        A control, and the file, in messages.

    Raises
    ------
    InputError
        A cell line with treated samples has no control at all.
    """
    if choice not in get_args(ControlChoice):
        raise InputError(
            f"The choice of controls {choice!r} is not known. Use one of {', '.join(get_args(ControlChoice))}."
        )
    by_plate = plate if choice.startswith("plate") else None
    of_line = _pools(controls, [(name, None) for name in line[controls]])
    of_plate = {} if by_plate is None else _pools(controls, _keys(line, by_plate, controls))
    pools = of_plate | of_line  # (line, None) is the whole line, not its controls of unknown plates
    wanted = [] if by_plate is None else _keys(line, by_plate, treated)
    keys = [key if key in pools else (key[0], None) for key in wanted] or [(name, None) for name in line[treated]]
    _need_controls(line[treated], of_line, what)
    place = "cell line" if by_plate is None else "cell line on the plate"
    notes = [] if by_plate is None else _elsewhere(wanted, keys, ids[treated], what=what, where=where)
    if notes:
        place += ", or of the cell line if the plate has none"
    if choice.endswith("mean"):
        units = sorted(set(keys), key=str)
        at = {key: i for i, key in enumerate(units)}
        means = np.stack([_mean(values, pools[key]) for key in units])
        rows: RowSource = IndexedRows(means, np.array([at[key] for key in keys], dtype=np.int64))
        named = {key: f"{_in_words(key)}:{what.split()[0]}_mean" for key in units}
        return Paired(rows, [named[key] for key in keys], f"mean of the {what}s of the {place}", notes)
    rng, chosen = np.random.default_rng(seed), np.empty(len(treated), dtype=np.int64)
    for key, members in sorted(_pools(np.arange(len(keys)), keys).items(), key=lambda item: str(item[0])):
        chosen[members] = rng.choice(pools[key], size=len(members))
    drawn = f"one {what} of the {place}, drawn at random (seed {seed})"
    return Paired(SubsetRows(values, chosen), [str(i) for i in ids[chosen]], drawn, notes)


def _keys(line: Names, plate: Names, rows: Positions) -> list[Key]:
    return list(zip(line[rows], plate[rows], strict=True))


def _pools(positions: Positions, keys: Sequence[Key]) -> dict[Key, Positions]:
    """Positions by cell line and plate."""
    found: dict[Key, list[int]] = {}
    for position, key in zip(positions, keys, strict=True):
        found.setdefault(key, []).append(int(position))
    return {key: np.array(rows, dtype=np.int64) for key, rows in found.items()}


def _need_controls(lines: Names, of_line: Mapping[Key, Positions], what: str) -> None:
    without = sorted({str(name) for name in lines if (name, None) not in of_line})
    if without:
        raise InputError(
            f"{len(without):,} cell lines have treated samples but no {what}: {first_few(without)}. A control of "
            f"another cell line would put the difference between the lines into every effect. Add controls of these "
            f"lines, or leave the lines out."
        )


def _elsewhere(wanted: Sequence[Key], keys: Sequence[Key], ids: Names, *, what: str, where: str) -> list[Finding]:
    """A warning if samples got the control of their cell line because their plate has none of it."""
    at = [i for i, got in enumerate(keys) if got[1] is None]
    if not at:
        return []
    units = sorted({_in_words((line, plate or "an unknown plate")) for line, plate in (wanted[i] for i in at)})
    return [
        Finding(
            "warning",
            "controls_from_other_plates",
            f"{len(at):,} of {len(wanted):,} samples have no {what} of their cell line on their plate "
            f"({first_few(units)}). They are given those of the cell line on its other plates, so the difference "
            f"between "
            f"plates is in their effects. Leave them out, or treat all samples alike with --controls line_mean.",
            count=len(at),
            examples=tuple(str(ids[i]) for i in at[:10]),
            where=where,
            numbers={"n_samples": len(at), "n_places": len(units)},
        )
    ]


def _in_words(key: Key) -> str:
    line, plate = key
    return str(line) if plate is None else f"{line} on {plate}"


def _mean(values: RowSource, positions: Positions, at_once: int = 1024) -> Float32:
    """Mean of any number of rows, (n_genes,), read ``at_once`` at a time."""
    total = np.zeros(values.shape[1])
    for first in range(0, len(positions), at_once):
        total += take(values, positions[first : first + at_once]).sum(axis=0, dtype=np.float64)
    return (total / len(positions)).astype(np.float32)
