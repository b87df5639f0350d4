"""Controls that are rows of the same table as treated samples: who they are, and which sample gets which.

A control never serves another cell line: plates and batches often hold several. Nor another time, if there are some of
the sample's own. The choice is written into ``control_reference``, because it decides what an own-control score means
(``pairing.py``).
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
Key = tuple[Any, Any, Any]  # cell line, plate, time (None: any, or not known)
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
    time: Names | None = None,
    choice: ControlChoice = "plate_mean",
    seed: int = 0,
    what: str = "vehicle well",
    where: str = "",
) -> Paired:
    """A control for every treated row, always of its own cell line, and of its own time if there is one.

    Parameters
    ----------
    values
        All rows of the file, treated and control.
    treated, controls
        Their positions.
    line, plate, time, ids
        Cell line, plate, time (None if unknown; None altogether if the file knows no plates, or no times) and id of
        every row.
    choice
        ``plate_mean`` (mean control of the cell line on the plate), ``plate_random`` (one of them), ``line_mean`` and
        ``line_random`` (of the cell line, wherever it is). A sample whose plate holds no control of its cell line, or
        whose plate is not known, gets the mean (or one) of its cell line; a warning says which. Among these controls
        those of the sample's time go first; a warning says which samples have none.
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
    pools = control_pools(controls, line, by_plate, time)
    _need_controls(line[treated], pools, what)
    wanted, placed = where_placed(treated, pools, line, by_plate)
    notes = [] if by_plate is None else _elsewhere(wanted, placed, ids[treated], what=what, where=where)
    place = ", or of the cell line if the plate has none" if notes else ""
    place = f"cell line{'' if by_plate is None else ' on the plate'}{place}"
    keys = placed if time is None else [at_time(key, at, pools) for key, at in zip(placed, time[treated], strict=True)]
    if keys != placed:
        place += ", at the time of the sample if there are some"
    if time is not None:
        notes += other_times(placed, pools, time, treated=treated, ids=ids[treated], what=what, where=where)
    if choice.endswith("mean"):
        units = sorted(set(keys), key=str)
        at = {key: i for i, key in enumerate(units)}
        means = np.stack([_mean(values, pools[key]) for key in units])
        rows: RowSource = IndexedRows(means, np.array([at[key] for key in keys], dtype=np.int64))
        named = {key: f"{_in_words(key)}:{what.split()[0]}_mean" for key in units}
        return Paired(rows, [named[key] for key in keys], f"mean of the {what}s of the {place}", notes)
    rng, chosen = np.random.default_rng(seed), np.empty(len(treated), dtype=np.int64)
    for key, members in sorted(_by_key(np.arange(len(keys)), keys).items(), key=lambda item: str(item[0])):
        chosen[members] = rng.choice(pools[key], size=len(members))
    drawn = f"one {what} of the {place}, drawn at random (seed {seed})"
    return Paired(SubsetRows(values, chosen), [str(i) for i in ids[chosen]], drawn, notes)


def _keys(rows: Positions, line: Names, plate: Names | None, time: Names | None) -> list[Key]:
    nothing = [None] * len(rows)
    return list(
        zip(
            line[rows],
            nothing if plate is None else plate[rows],
            nothing if time is None else time[rows],
            strict=True,
        )
    )


def _by_key(positions: Positions, keys: Sequence[Key]) -> dict[Key, Positions]:
    found: dict[Key, list[int]] = {}
    for position, key in zip(positions, keys, strict=True):
        found.setdefault(key, []).append(int(position))
    return {key: np.array(rows, dtype=np.int64) for key, rows in found.items()}


def control_pools(controls: Positions, line: Names, plate: Names | None, time: Names | None) -> dict[Key, Positions]:
    """Controls by cell line, plate and time. None stands for all of them, not only for those not known.

    Parameters
    ----------
    controls : positions.
    line, plate, time : (n,) of every row; None where not known, or altogether.
    """
    found: dict[Key, Positions] = {}
    for of_plate in (plate, None):
        for of_time in (time, None):
            found |= _by_key(controls, _keys(controls, line, of_plate, of_time))
    return found


def where_placed(
    treated: Positions, pools: Mapping[Key, Positions], line: Names, plate: Names | None
) -> tuple[list[Key], list[Key]]:
    """Cell line and plate of every treated row, and where its controls are: there, or else in the whole cell line.

    Parameters
    ----------
    treated : positions.
    pools : from ``control_pools``.
    line, plate : as there.
    """
    wanted = _keys(treated, line, plate, None)
    return wanted, [key if key in pools else (key[0], None, None) for key in wanted]


def at_time(key: Key, time: Any, pools: Mapping[Key, Positions]) -> Key:
    """The key with the time of a sample, if controls there are of several times and some are of this one.

    Parameters
    ----------
    key : where the controls are.
    time : of the sample; None if it is not known.
    pools : from ``control_pools``.
    """
    narrowed = (*key[:2], time)
    return narrowed if 0 < len(pools.get(narrowed, ())) < len(pools[key]) else key


def _need_controls(lines: Names, pools: Mapping[Key, Positions], what: str) -> None:
    without = sorted({str(name) for name in lines if (name, None, None) not in pools})
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
    units = sorted({_in_words((wanted[i][0], wanted[i][1] or "an unknown plate", None)) for i in at})
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


def other_times(
    placed: Sequence[Key],
    pools: Mapping[Key, Positions],
    time: Names,
    *,
    treated: Positions,
    ids: Names,
    what: str,
    where: str,
) -> list[Finding]:
    """A warning if all controls where a sample is were taken at other times than it.

    Parameters
    ----------
    placed : where the controls of every treated row are.
    pools : from ``control_pools``.
    time, ids : (n,) of every row; ids of treated ones (n_treated,).
    treated : positions.
    what : a control, in words.
    where : the file.
    """
    times = {key: set(time[pools[key]]) for key in set(placed)}
    at = [
        i
        for i, (key, own) in enumerate(zip(placed, time[treated], strict=True))
        if own is not None and None not in times[key] and own not in times[key]
    ]
    if not at:
        return []
    said = {key: " and ".join(sorted(map(str, found))) for key, found in times.items()}
    units = sorted({f"{_in_words((*placed[i][:2], time[treated[i]]))}, controls at {said[placed[i]]}" for i in at})
    return [
        Finding(
            "warning",
            "controls_of_other_times",
            f"{len(at):,} of {len(placed):,} samples have no {what} of their time, only of others "
            f"({first_few(units)}). What changes with time alone is in their effects. Add controls of these times, or "
            f"leave the samples out.",
            count=len(at),
            examples=tuple(str(ids[i]) for i in at[:10]),
            where=where,
            numbers={"n_samples": len(at), "n_places": len(units)},
        )
    ]


def _in_words(key: Key) -> str:
    line, plate, time = key
    return f"{line}{'' if plate is None else f' on {plate}'}{'' if time is None else f' at {time}'}"


def _mean(values: RowSource, positions: Positions, at_once: int = 1024) -> Float32:
    """Mean of any number of rows, (n_genes,), read ``at_once`` at a time."""
    total = np.zeros(values.shape[1])
    for first in range(0, len(positions), at_once):
        total += take(values, positions[first : first + at_once]).sum(axis=0, dtype=np.float64)
    return (total / len(positions)).astype(np.float32)
