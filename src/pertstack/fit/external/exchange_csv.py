"""The exchange folder as CSV files, for programs that read no HDF5 (plain R, awk, anything).

In: ``fit_control.csv``, ``fit_treated.csv``, ``predict_control.csv`` (a row per sample: ``sample_id``, then one column
per gene), ``fit_samples.csv``, ``predict_samples.csv`` (what is known of the samples) and, if the study has
features, ``features.csv`` (a row per perturbation). Out: ``predictions.csv`` as the profiles, perhaps
``embedding.csv``. What is in the answer is checked by ``exchange.py``, whatever file it came in.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, Names, PredictRows
from pertstack.data.side.side import PerturbationFeatures

INPUTS = ("fit_control.csv", "fit_treated.csv", "fit_samples.csv", "predict_control.csv", "predict_samples.csv")
OUTPUT, EMBEDDING = "predictions.csv", "embedding.csv"
DIGITS = "%.9g"  # enough to give back every float32 exactly


def write_tables(
    folder: Path,
    fit: FitRows,
    predict: PredictRows,
    *,
    obs: tuple[pd.DataFrame, pd.DataFrame],
    features: PerturbationFeatures | None,
) -> None:
    """Write the input files.

    Parameters
    ----------
    folder : of the exchange.
    fit, predict : rows to fit on and to predict.
    obs : sample tables of both, in plain texts and numbers.
    features : of perturbations; None for a model without.

    Raises
    ------
    InputError
        A gene called ``sample_id``, which is the name of the first column.
    """
    if "sample_id" in set(map(str, fit.gene_names)):
        raise InputError("A gene is called 'sample_id', which names the first column of the CSV files. Rename it.")
    _profiles(folder / "fit_control.csv", fit.control, fit)
    _profiles(folder / "fit_treated.csv", fit.treated, fit)
    _profiles(folder / "predict_control.csv", predict.control, predict)
    for name, table in zip(("fit_samples.csv", "predict_samples.csv"), obs, strict=True):
        table.to_csv(folder / name, index_label="sample_id", float_format=DIGITS)
    if features is not None:
        names = np.unique(np.concatenate([fit.perturbation.astype(str), predict.perturbation.astype(str)]))
        values, known = features.rows(names)
        table = pd.DataFrame(values, index=names, columns=list(features.columns))
        table.insert(0, "known", known)
        table.to_csv(folder / "features.csv", index_label="perturbation", float_format=DIGITS)


def _profiles(path: Path, values: Float32, rows: PredictRows) -> None:
    ids = [str(s) for s in rows.sample_ids]
    table = pd.DataFrame(np.asarray(values), index=ids, columns=[str(g) for g in rows.gene_names])
    table.to_csv(path, index_label="sample_id", float_format=DIGITS)


def read_tables(folder: Path) -> tuple[Any, list[str], list[str], Any]:
    """Values (n, g), sample ids, gene names and embedding (or None) of an answer in CSV, in the order of the file.

    Raises
    ------
    ValueError
        Not a table of numbers, rows of different lengths, an embedding for other samples.
    """
    values, samples, genes = _numbers(folder / OUTPUT)
    if not (folder / EMBEDDING).is_file():
        return values, samples, genes, None
    vectors, of, _ = _numbers(folder / EMBEDDING)
    place = {name: i for i, name in enumerate(of)}
    if sorted(of) != sorted(samples):
        raise ValueError(f"{EMBEDDING} names other samples than {OUTPUT}")
    return values, samples, genes, vectors[[place[s] for s in samples]]


def _numbers(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str], list[str]]:
    """A header (its first word is free), then a name and numbers in every row."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        lines = csv.reader(stream)
        header = next(lines, [])
        names: list[str] = []
        rows: list[Names] = []
        for words in lines:
            if not words:
                continue
            if len(words) != len(header):
                raise ValueError(f"line {lines.line_num} has {len(words)} fields, the header {len(header)}")
            names.append(words[0])
            rows.append(np.array([_number(w, lines.line_num) for w in words[1:]]))
    values = np.array(rows, dtype=np.float64).reshape(len(names), max(len(header) - 1, 0))
    return values, names, header[1:]


def _number(word: str, line: int) -> float:
    """A number; NA and its like (R writes NA, NaN, Inf) become NaN or infinity, which the check of values refuses."""
    if word in ("NA", ""):
        return float("nan")
    try:
        return float(word)
    except ValueError as error:
        raise ValueError(f"line {line} holds {word!r} where a number should be") from error


__all__ = ["EMBEDDING", "INPUTS", "OUTPUT", "read_tables", "write_tables"]
