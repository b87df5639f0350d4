"""Labels that hold drug, dose and unit together, as Tahoe-100M and STATE write them: ``[('Dabrafenib', 0.5, 'uM')]``.

They are parted into perturbation, dose and unit, so that the same drug at two doses is one perturbation at two doses,
and ``[('DMSO_TF', 0.0, 'uM')]`` is a control.
"""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding

LONGEST = 2000
Parted = tuple[str, float | None, str | None]  # perturbation, dose, unit


def part_label(label: str) -> Parted | None:
    """Perturbation, dose and unit of a label; None where it is no list of tuples.

    Several drugs of one dose are joined by ``+``; where their doses differ, these stay in the name.

    >>> part_label("[('Dabrafenib', 0.5, 'uM')]"), part_label("[('A', 1, 'uM'), ('B', 2, 'uM')]"), part_label("KLF1")
    (('Dabrafenib', 0.5, 'uM'), ('A (1 uM)+B (2 uM)', None, None), None)
    """
    text = label.strip()
    if len(text) > LONGEST or not text.startswith(("[(", "((", "('", '("')):
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    parts = [value] if isinstance(value, tuple) and value and isinstance(value[0], str) else list(value)
    if not parts or not all(_is_part(p) for p in parts):
        return None
    doses = {(float(p[1]), p[2].strip()) for p in parts}
    if len(doses) == 1:
        dose, unit = doses.pop()
        return "+".join(p[0].strip() for p in parts), dose, unit
    return "+".join(f"{p[0].strip()} ({p[1]:g} {p[2].strip()})" for p in parts), None, None


def _is_part(part: Any) -> bool:
    return (
        isinstance(part, tuple)
        and len(part) == 3
        and isinstance(part[0], str)
        and bool(part[0].strip())
        and isinstance(part[1], int | float)
        and isinstance(part[2], str)
    )


def part_labels(obs: pd.DataFrame, column: str | None, where: str) -> tuple[pd.DataFrame, list[Finding]]:
    """The table with plain names of perturbations and columns ``dose`` and ``dose_unit``; as it is where labels are
    plain.

    Parameters
    ----------
    obs : table as the file has it.
    column : of labels; None changes nothing.
    where : the file, for messages.

    Raises
    ------
    InputError
        Some labels begin as a list of tuples and cannot be read as one.
    """
    if column is None:
        return obs, []
    codes, values = pd.factorize(obs[column].astype(object))
    texts = [str(v) for v in values]
    parted = [part_label(t) for t in texts]
    listed = [t.lstrip().startswith("[(") for t in texts]
    if not any(p is not None for p in parted):
        return obs, []
    odd = [t for t, p, is_list in zip(texts, parted, listed, strict=True) if is_list and p is None]
    if odd:
        raise InputError(
            f"{where}: {len(odd):,} labels of {column!r} are no list of (drug, dose, unit), while others are: "
            f"{first_few(odd)}. Correct them, or name another column with --map perturbation=COLUMN."
        )
    full: list[Parted] = [(t, None, None) if p is None else p for t, p in zip(texts, parted, strict=True)]
    names = np.array([*(p[0] for p in full), None], dtype=object)[codes]
    doses = np.array([*(np.nan if p[1] is None else p[1] for p in full), np.nan], dtype=np.float64)[codes]
    units = np.array([*(p[2] for p in full), None], dtype=object)[codes]
    added = {"dose": doses, "dose_unit": units} if "dose" not in obs.columns else {}
    n = sum(p is not None for p in parted)
    note = Finding(
        "note",
        "labels_parted",
        f"{n:,} labels of {where}, such as {first_few([texts[i] for i, p in enumerate(parted) if p is not None], 1)}, "
        f"were parted into perturbation{', dose and unit' if added else ''}.",
        n,
        where=where,
    )
    return obs.assign(**{column: names, **added}), [note]


def says_dose(notes: list[Finding]) -> bool:
    """Whether labels held the dose, so that it is part of what was done."""
    return any(n.code == "labels_parted" for n in notes)
