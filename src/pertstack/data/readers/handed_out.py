"""Control rows handed out to the samples they serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack.data.choices import ControlChoice
from pertstack.data.readers.columns.columns import canonical_obs, canonical_text, sample_ids
from pertstack.data.readers.control_rows import Mask
from pertstack.data.readers.matrices import Positions, RowSource
from pertstack.data.readers.vehicles import pair_controls


@dataclass(frozen=True)
class Handed:
    """Treated samples with the control each was given."""

    obs: pd.DataFrame  # canonical, treated rows only, with control_id
    at: Positions  # their rows in the file
    control: RowSource
    reference: str  # how controls were given, in words
    notes: list[Finding]


def hand_out(
    values: RowSource,
    obs: pd.DataFrame,
    treated: Mask,
    *,
    controls: Mask,
    mapping: Mapping[str, str] | None,
    choice: ControlChoice = "plate_mean",
    seed: int = 0,
    what: str = "control row",
    where: str = "the data",
) -> Handed:
    """A control for every treated row, from the control rows of its cell line, plate and time (``pair_controls``).

    Parameters
    ----------
    values : all rows of the file, (n, n_genes).
    obs : table as the file has it, (n rows).
    treated, controls : (n,) masks; rows in neither take no part.
    mapping : canonical column -> column of ``obs``.
    choice, seed : as in ``pair_controls``.
    what : a control in messages.
    where : the file, for messages.

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
    line, plate, time = (np.full(len(obs), None, dtype=object) for _ in range(3))
    line[treated | controls] = canonical_text(used, mapping, "cell_line", where=where)
    known = canonical_text(used, mapping, "plate", where=where)
    if known is not None:
        plate[treated | controls] = known
    times = canonical_text(used, mapping, "time", where=where)
    if times is not None:
        time[treated | controls] = [None if t is None else _plain_number(t) for t in times]
    paired = pair_controls(
        values,
        at,
        np.flatnonzero(controls),
        line=line,
        plate=None if known is None else plate,
        ids=sample_ids(obs, mapping),
        time=None if times is None else time,
        choice=choice,
        seed=seed,
        what=what,
        where=where,
    )
    table["control_id"] = paired.control_ids
    said = (
        f"{int(controls.sum()):,} {what}s serve {len(at):,} samples: {paired.reference}"
        f"{' (no plate is known)' if known is None and choice.startswith('plate') else ''}."
    )
    notes += [Finding("note", "controls_from_rows", said, int(controls.sum()), where=where), *paired.notes]
    return Handed(table, at, paired.rows, reference=paired.reference, notes=notes)


def _plain_number(text: str) -> str:
    """``24`` for 24.0, 024 and 24; other text as it is."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
