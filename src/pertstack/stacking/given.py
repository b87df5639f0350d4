"""What people hand to ``pertstack.stack`` beside predictions: names, folds, groups, controls, checked at the door."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack.data.labels import one_spelling, spelling_finding
from pertstack.data.near_names import alike_finding, near_names
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References

CALLER = 3
"""Frames from a warning here to the line of whoever called ``stack``."""


def one_name_each(perturbation: Any, *, grouped: bool) -> Any:
    """Perturbations under one spelling each (B+A is A+B), with a warning if one is changed, and of names that nearly
    agree if they are the groups."""
    names = np.asarray(perturbation, dtype=object)
    changed = one_spelling(names)
    alike = [] if grouped else near_names(changed.get(str(n), str(n)) for n in np.unique(names.astype(str)))
    mend = "give what holds them together as group=, or one name."
    for finding in [*spelling_finding(changed, "perturbation"), *alike_finding(alike, "perturbation", mend)]:
        warnings.warn(finding.message, stacklevel=CALLER)
    return np.array([changed.get(str(n), n) for n in names], dtype=object) if changed else perturbation


def require_whole_groups(source: ArraySource, n_rows: int, *, grouped: bool) -> None:
    """Refuse groups that folds cut; warn of rows without a fold, which take no part.

    Parameters
    ----------
    source : of development rows.
    n_rows : how many were given.
    grouped : whether the caller named groups; else they are the perturbations.

    Raises
    ------
    InputError
        A group has rows in several folds: weights would be learned from rows that belong with those they are scored on.
    """
    table = pd.concat([source.obs(b).assign(fold=b.fold) for b in source.blocks()])
    if len(table) < n_rows:
        warnings.warn(
            f"{n_rows - len(table):,} of {n_rows:,} rows have no fold (None, NaN or 'test') and take no part.",
            stacklevel=CALLER,
        )
    folds = table.groupby("group")["fold"].nunique()
    if len(cut := list(folds.index[folds > 1])):
        what = "groups" if grouped else "perturbations"
        raise InputError(
            f"{len(cut):,} of {len(folds):,} {what} have rows in several folds: {first_few(cut, 4)}. Combinations "
            f"would be learned from rows that belong with those they are scored on. Say with group= what the folds "
            f"hold together: group=cell_line if each fold leaves out cell lines, group=range(n) if each row "
            f"is an experiment of its own. A row that is predicted twice can be given once."
        )


def require_controls_alike(references: References, control: Any) -> None:
    """New samples have controls if the rows had them from which a stack was learned, and only then.

    ``control`` is None or (n, n_genes); zeros are what differential values have, and no control.

    Raises
    ------
    InputError
        Values would be taken for differences, or differences for values.
    """
    learned = any(bool(np.any(c)) for c in [references.mean_control, *references.controls.values()])
    given = control is not None and bool(np.any(control))
    if learned and not given:
        what = "none are given" if control is None else "those that are given are zero throughout"
        raise InputError(
            f"The stack was learned with controls, and {what}: new predictions would be taken for differences. "
            f"Give control= for the new samples, one profile per row."
        )
    if given and not learned:
        raise InputError(
            "The stack was learned on differential values (control=None), and a control is given: predictions would be "
            "taken for levels. Leave control= out, and give differences."
        )
