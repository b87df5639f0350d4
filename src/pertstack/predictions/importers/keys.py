"""Keys by which rows are matched: what was done to a sample, under one spelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack.data.labels import perturbation_keys

SAME = 1e-4
"""Two predictions of one key that differ by less are one and the same."""


Codes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Labels:
    """What every name of a perturbation means, on both sides: equal texts for spellings of one."""

    keys: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, *names: Iterable[str]) -> Labels:
        return cls(perturbation_keys(dict.fromkeys(str(n) for listed in names for n in listed)))

    def key(self, name: str) -> str:
        return "+".join(self.keys[name])


def keys_of(table: pd.DataFrame, columns: Sequence[str], labels: Labels) -> list[tuple[str, ...]]:
    """One tuple of texts per row.

    Parameters
    ----------
    table : rows with these columns.
    columns : the parts of a key.
    labels : spellings of perturbations.
    """
    parts = []
    for name in columns:
        codes, values = pd.factorize(table[name].astype(object))
        if name == "perturbation":
            texts = [labels.key(str(v)) for v in values]
        elif name in ("log10_dose", "time_h"):
            texts = [f"{float(v) + 0.0:.5f}" for v in values]
        else:
            texts = [str(v) for v in values]
        texts = [*texts, ""]  # code -1: unknown
        parts.append([texts[c] for c in codes])
    return list(zip(*parts, strict=True))


def key_in_words(key: tuple[str, ...]) -> str:
    """The parts that are known, as ``drug / line``."""
    return " / ".join(part for part in key if part)


def n_served(given: pd.DataFrame, samples: pd.DataFrame, columns: tuple[str, ...], *, labels: Labels) -> int:
    """How many samples have a row with their key.

    Parameters
    ----------
    given, samples : the tables of both sides.
    columns : the parts of a key.
    labels : spellings of perturbations.
    """
    there = set(keys_of(given, columns, labels))
    return sum(key in there for key in keys_of(samples, columns, labels))


def few_of(values: pd.Series[Any]) -> list[str]:
    """The four smallest numbers of a column, as text."""
    return [f"{v:g}" for v in sorted(set(values.dropna()))[:4]]
