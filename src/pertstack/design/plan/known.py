"""What the fits of a row knew of its perturbation: known when it is predicted, no truth involved.

A combination of two genes is another question with both genes seen, with one and with none (GEARS: Roohani, Huang and
Leskovec 2024, Nat Biotechnol 42:927). Out of fold the fits know less than the final ones: parts of a combination may
lie in its own fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from pertstack.data.labels import perturbation_keys
from pertstack.design.blocks import SUPPORT

SEEN, PARTS, ALONE, JOINED = "perturbation", "parts seen", "parts measured alone", "parts seen in combinations"
SINGLE = "single"
"""Level of a perturbation that joins nothing, among combinations."""

Fitted = Mapping[int, Sequence[str]]
"""Perturbations that may be fitted on: those of each fold, and those of support under ``SUPPORT``."""


def fitted_of(samples: pd.DataFrame) -> dict[int, tuple[str, ...]]:
    """From a table with ``perturbation``, ``role`` and ``fold`` of every sample; test rows are never fitted on."""
    developed = samples[samples["role"] != "test"]
    grouped = developed.groupby(developed["fold"].astype("Int64").fillna(SUPPORT).astype(int))["perturbation"]
    return {int(k): tuple(sorted(map(str, names.unique()))) for k, names in grouped}


def sharing(names: Iterable[object], left_out: Iterable[object]) -> set[str]:
    """Those of ``names`` that have a part of one that is left out: what no fit may see if groups are ``parts``.

    >>> sharing(["A+B", "C", "D+E"], ["B+D", "C+F"]) == {"A+B", "C", "D+E"}
    True
    """
    asked, away = [str(n) for n in names], [str(n) for n in left_out]
    keys = perturbation_keys([*asked, *away])
    parts = {part for name in away for part in keys[name]}
    return {name for name in asked if not parts.isdisjoint(keys[name])}


def known_levels(
    perturbations: Iterable[object], folds: Iterable[Any], fitted: Fitted, *, apart: bool = False
) -> dict[str, list[str]]:
    """What was known of each row (n,) when it was predicted, by view.

    Parameters
    ----------
    perturbations, folds : (n,)
        A row of a fold is predicted by fits without that fold; a fold that is missing (None, NaN) marks a row of the
        test or a new one, which all of ``fitted`` was fitted for.
    fitted
        Perturbations that may be fitted on, by fold; see ``fitted_of``.
    apart : fits left out the development rows that share a part with the rows they predict (groups are ``parts``).

    Returns
    -------
    ``perturbation``: seen or unseen; ``parts seen``: how many of the parts were fitted on, alone or in another
    combination (``1 of 2``; ``single`` for rows that join nothing); ``parts measured alone``; ``parts seen in
    combinations``, which tells genes that are left out whole from pairs whose genes occur in other pairs.
    """
    asked = [str(p) for p in perturbations]
    own = [None if pd.isna(f) else int(f) for f in folds]
    keys = perturbation_keys([*asked, *(p for names in fitted.values() for p in names)])
    rows: dict[tuple[str, int | None], tuple[str, ...]] = {}
    for fold in dict.fromkeys(own):
        mine = {p for p, f in zip(asked, own, strict=True) if f == fold}
        able = {p for k, names in fitted.items() if k not in (fold, SUPPORT) for p in names}
        able -= sharing(able, mine) if apart else set()
        there = {keys[p] for p in (*able, *fitted.get(SUPPORT, ()))}
        alone = {key[0] for key in there if len(key) == 1}
        joined = {part for key in there if len(key) > 1 for part in key}
        for name in mine:
            rows[name, fold] = (
                "seen" if keys[name] in there else "unseen",
                _count(keys[name], alone | joined),
                _count(keys[name], alone),
                _count(keys[name], joined),
            )
    found = [rows[name, fold] for name, fold in zip(asked, own, strict=True)]
    return {view: [row[i] for row in found] for i, view in enumerate((SEEN, PARTS, ALONE, JOINED))}


def telling(*sides: Mapping[str, list[str]]) -> list[str]:
    """The views of several sets of rows that say something: those of combinations only if there are some, and those
    beside ``parts seen`` only if they are not the same on every side."""
    views = [SEEN]
    if any(level != SINGLE for side in sides for level in side[PARTS]):
        views += [PARTS, *(v for v in (ALONE, JOINED) if any(side[v] != side[PARTS] for side in sides))]
    return views


def _count(parts: tuple[str, ...], known: set[str]) -> str:
    return SINGLE if len(parts) == 1 else f"{sum(p in known for p in parts)} of {len(parts)}"
