"""A split as other software wrote it: places of our samples, and how its words are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding

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
    group_by: str | None  # what whole groups are, where the split decides it
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
