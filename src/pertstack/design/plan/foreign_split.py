"""A split as other software wrote it: places of our samples, and how its words are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.design.plan.placing import place_names

WORDS = {
    "train": "development",
    "training": "development",
    "val": "development",
    "valid": "development",
    "validation": "development",
    "dev": "development",
    "test": "test",
    "testing": "test",
    "held-out": "test",
    "heldout": "test",
    "holdout": "test",
}
"""What a split calls a part, and its role here."""


@dataclass(frozen=True)
class ForeignSplit:
    """Places of the samples that a split names: role or fold by sample id. Others have no place and are left out."""

    table: pd.DataFrame  # sample_id, and role or fold
    group_by: str | None  # what whole groups are, if the split decides it
    findings: tuple[Finding, ...]


def names_of_part(value: Any, part: str, path: Path) -> list[str]:
    """A part of a split as a list of names.

    Parameters
    ----------
    value : as the file has it.
    part : its name.
    path : for the message.
    """
    if not isinstance(value, list) or not all(isinstance(v, str | int) for v in value):
        raise InputError(f"{path}: {part!r} is no list of names.")
    return [str(v) for v in value]


def said_once(path: Path, table: pd.DataFrame) -> Finding:
    """A split without folds, in words."""
    count = table["role"].value_counts()
    n, m = int(count.get("development", 0)), int(count.get("test", 0))
    if not n or not m:
        lacking = "training" if not n else "test"
        raise InputError(
            f"{path}: no sample of the data is in its {lacking} part, so there is nothing to "
            f"{'learn from' if not n else 'judge on'}. Check that data and split belong together."
        )
    return Finding(
        "warning",
        "split_without_folds",
        f"{path.name} cuts once: {n:,} samples to train and validate on, {m:,} to test on, and no folds. Folds of "
        f"the {n:,} were drawn here, so models that are fitted here are cross-fitted and combined as ever. Models "
        f"trained elsewhere on this split have seen all {n:,}: nothing can be learned from their predictions there, "
        f"so they are judged on the test alone (`pertstack evaluate`).",
        n,
        where=str(path),
    )


def one_cut(
    path: Path, roles: Mapping[str, set[str]], obs: pd.DataFrame, *, cells: pd.Series[Any] | None, by: str | None = None
) -> ForeignSplit:
    """A split without folds.

    Parameters
    ----------
    path : the split.
    roles : name -> its roles, of which it may have one.
    obs : canonical metadata, index = sample ids.
    cells : sample id by name of the cell; None if samples are not made of cells.
    by : what names are; None for what most of them are.

    Raises
    ------
    InputError
        A name is on both sides, or no name is known.
    """
    both = sorted(name for name, found in roles.items() if len(found) > 1)
    if both:
        raise InputError(
            f"{path}: {len(both):,} names are in training (or validation) and in the test: {first_few(both)}. Scores "
            f"on them would be in-sample. Keep each on one side."
        )
    places, findings = place_names(
        path, {name: next(iter(found)) for name, found in roles.items()}, obs, cells=cells, kind=by
    )
    table = pd.DataFrame({"sample_id": list(places), "role": list(places.values())})
    return ForeignSplit(table, None, (*findings, said_once(path, table)))


def in_folds(
    path: Path,
    at: Mapping[str, int | None],
    named: Sequence[str],
    obs: pd.DataFrame,
    *,
    cells: pd.Series[Any] | None,
    by: str | None = None,
) -> ForeignSplit:
    """A split in folds, with a test beside them or without.

    Parameters
    ----------
    path : the split.
    at : name -> its fold; None for the test.
    named : which fold is which, in words.
    obs, cells, by : as in ``one_cut``.

    Raises
    ------
    InputError
        No name is known.
    """
    places, findings = place_names(path, {n: -1 if k is None else k for n, k in at.items()}, obs, cells=cells, kind=by)
    fold = pd.Series(list(places.values()), dtype="Int64")
    table = pd.DataFrame({"sample_id": list(places), "fold": fold.mask(fold < 0)})
    if table["fold"].isna().any():
        return ForeignSplit(table, None, tuple(findings))
    said = Finding(
        "warning",
        "folds_without_test",
        f"{path.name} has {len(named)} folds ({', '.join(named)}) and no test beside them: combinations are learned "
        f"and scored out of fold, and no verdict on a held-out test is possible. For one, keep some perturbations out "
        f"of all folds and name them in a separate test.",
        len(named),
        where=str(path),
    )
    return ForeignSplit(table, None, (*findings, said))


def k_folds(
    path: Path,
    folds: Mapping[str, Mapping[str, Any]],
    obs: pd.DataFrame,
    *,
    cells: pd.Series[Any] | None,
    by: str | None = None,
) -> ForeignSplit:
    """A split that says for each fold what it trains, validates and tests on: what it tests on is the fold.

    Parameters
    ----------
    path : the split.
    folds : name of the fold -> part -> names.
    obs, cells, by : as in ``one_cut``.

    Raises
    ------
    InputError
        A fold trains on its own test, or a name is in the tests of two.
    """
    order = sorted(folds, key=lambda k: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", k)])
    at: dict[str, int | None] = {}
    for number, name in enumerate(order):
        parts = {str(k).casefold(): v for k, v in folds[name].items()}
        held_out = [n for p, v in parts.items() if WORDS.get(p) == "test" for n in names_of_part(v, p, path)]
        seen = {n for p, v in parts.items() if WORDS.get(p) == "development" for n in names_of_part(v, p, path)}
        if memory := sorted(seen.intersection(held_out)):
            raise InputError(
                f"{path}: {name} trains or validates on {len(memory):,} names of its own test: {first_few(memory)}."
            )
        for held in held_out:
            if (first := at.setdefault(held, number)) != number:
                raise InputError(
                    f"{path}: {held!r} is in the test of {order[first or 0]} and of {name}. Each name is predicted "
                    f"out of fold once."
                )
    return in_folds(path, at, [f"{name} = fold {i}" for i, name in enumerate(order)], obs, cells=cells, by=by)
