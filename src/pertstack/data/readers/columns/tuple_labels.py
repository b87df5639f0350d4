"""Labels that are the text of a list: of drug, dose and unit, as Tahoe-100M and STATE write them
(``[('Dabrafenib', 0.5, 'uM')]``), or of names (``['KLF1', 'BAK1']``, a combination); or that name two guides twice.

They are parted into perturbation, dose and unit, so that the same drug at two doses is one perturbation at two doses,
and ``[('DMSO_TF', 0.0, 'uM')]`` is a control.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.labels import is_control_name

LONGEST = 2000
_TWICE = re.compile(r"([^_]+_[^_]+)__\1")
"""Two guides of one vector, as Norman et al. (2019) name them: ``KLF1_BAK1__KLF1_BAK1``."""
Parted = tuple[str, float | None, str | None]  # perturbation, dose, unit


def part_label(label: str) -> Parted | None:
    """Perturbation, dose and unit of a label; None if it is no list of tuples or of names.

    Several drugs of one dose are joined by ``+``; if their doses differ, these stay in the name.

    >>> part_label("[('Dabrafenib', 0.5, 'uM')]"), part_label("[('A', 1, 'uM'), ('B', 2, 'uM')]"), part_label("KLF1")
    (('Dabrafenib', 0.5, 'uM'), ('A (1 uM)+B (2 uM)', None, None), None)
    >>> part_label("['KLF1', 'BAK1']")
    ('KLF1+BAK1', None, None)
    >>> part_label("KLF1_NegCtrl0__KLF1_NegCtrl0"), part_label("NegCtrl1_NegCtrl0__NegCtrl1_NegCtrl0")
    (('KLF1', None, None), ('NegCtrl1', None, None))
    """
    text = label.strip()
    if (twice := _TWICE.fullmatch(text)) is not None and len(text) <= LONGEST:
        acting = [p for p in twice[1].split("_") if not is_control_name(p)]
        return "+".join(acting) or twice[1].split("_")[0], None, None
    if len(text) > LONGEST or not text.startswith(("[(", "((", "('", '("', "['", '["')):
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if value and all(isinstance(v, str) and v.strip() for v in value):
        return "+".join(v.strip() for v in value), None, None
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
    """The table with plain names of perturbations and columns ``dose`` and ``dose_unit``; as it is if labels are
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
    column_of_lists = obs[column].dtype == object and obs[column].map(lambda v: isinstance(v, list | np.ndarray)).any()
    labels = obs[column].map(_as_text) if column_of_lists else obs[column]
    codes, values = pd.factorize(labels.astype(object))
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
    dosed = any(p is not None and p[1] is not None for p in parted)
    added = {"dose": doses, "dose_unit": units} if dosed and "dose" not in obs.columns else {}
    n = sum(p is not None for p in parted)
    how = "read as names" if not dosed else "parted into perturbation" + ", dose and unit" * bool(added)
    note = Finding(
        "note",
        "labels_parted" if dosed else "labels_joined",
        f"{n:,} labels of {where}, such as {first_few([texts[i] for i, p in enumerate(parted) if p is not None], 1)}, "
        f"were {how}.",
        n,
        where=where,
    )
    return obs.assign(**{column: names, **added}), [note]


def _as_text(value: Any) -> Any:
    return str(list(map(str, value))) if isinstance(value, list | np.ndarray) else value


def says_dose(notes: list[Finding]) -> bool:
    """Whether labels held the dose, so that it is part of what was done."""
    return any(n.code == "labels_parted" for n in notes)
