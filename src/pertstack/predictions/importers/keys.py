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
Mask = np.ndarray[Any, np.dtype[np.bool_]]


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


@dataclass(frozen=True)
class Serving:
    """Which rows of a file are one prediction, and which sample each prediction serves."""

    keys: list[tuple[str, ...]]  # (n_predictions,)
    codes: Codes  # (n_rows,) prediction of each row; -1 if it serves none
    count: Codes  # (n_predictions,) rows of each
    samples: list[str]  # that are served
    order: Codes  # (n_samples served,) prediction of each
    missing: tuple[str, ...]  # keys of samples that are not predicted, in words
    left_over: tuple[str, ...]  # keys of predictions that are asked of no sample, in words

    @classmethod
    def of(
        cls, predicted: Mask, theirs: list[tuple[str, ...]], samples: pd.Index[Any], own: list[tuple[str, ...]]
    ) -> Serving:
        """Match by key.

        Parameters
        ----------
        predicted : (n_rows,) which rows of the file are predictions.
        theirs : the key of each of these.
        samples : ids.
        own : the key of each sample.
        """
        there, wanted = set(theirs), list(dict.fromkeys(own))
        keys = [key for key in wanted if key in there]
        at = {key: i for i, key in enumerate(keys)}
        codes = np.full(len(predicted), -1, dtype=np.int64)
        codes[predicted] = [at.get(key, -1) for key in theirs]
        served = [(str(sample), at[key]) for sample, key in zip(samples, own, strict=True) if key in at]
        asked = set(wanted)
        return cls(
            keys,
            codes,
            np.bincount(codes[codes >= 0], minlength=len(keys)),
            samples=[sample for sample, _ in served],
            order=np.array([i for _, i in served], dtype=np.int64),
            missing=tuple(key_in_words(key) for key in wanted if key not in at),
            left_over=tuple(key_in_words(key) for key in dict.fromkeys(theirs) if key not in asked),
        )
