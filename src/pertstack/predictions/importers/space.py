"""Rows of one pair are averaged in the space of the truth: a mean of logarithms is not the logarithm of a mean.

Where the truth was made of cells, it says how (``data/cells``); predicted cells are then summed in the same way. Where
its rows are samples, predicted rows are averaged as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack.data.cells.choice import IN_WORDS, Kind
from pertstack.data.cells.profiles import PER
from pertstack.data.cells.recognise import kind_of
from pertstack.data.choices import Normalise
from pertstack.predictions.importers.readers.files import PredictionFile

LOOKED_AT = 512
LEAST_GENES = 0.99
"""Share of the genes of the truth that a file must have for its rows to be brought to a depth."""
FACTOR, CONSTANT = 2.0, 0.01
"""Logarithms are of another depth than the truth if it is more than so many times off, or the same in all cells."""
LOWEST_LOG = -0.5
"""Predicted logarithms of counts may miss zero, but not by that."""
LARGEST_LOG = 30.0
"""Above any logarithm of a count; values beyond it are no logarithms."""


def space_of(findings: Iterable[Finding]) -> Normalise | None:
    """How the samples of a truth were made of cells, as its reader noted; None if they were not."""
    found = next((f.numbers.get("normalise") for f in findings if f.code == "pseudobulk"), None)
    return found if found in get_args(Normalise) else None


@dataclass(frozen=True)
class Averaging:
    """What is summed over the rows of a key (``lift``), and the profile that comes of the sum (``finish``)."""

    kind: Kind
    where: str
    depth: float | None = None  # to which a sum of counts is brought
    factor: float | None = None  # by which a mean of expression is multiplied; neither: a plain mean

    def lift(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(k, n_genes) float64, to be added up."""
        plain = np.asarray(values, dtype=np.float64)
        if self.depth is None and self.factor is None:
            return plain
        if self.kind == "counts":
            if not (np.rint(plain) == plain).all():
                odd = plain[np.rint(plain) != plain].flat[0]
                raise InputError(
                    f"{self.where}: some rows hold counts (whole numbers) and others do not ({odd:.4g}). Counts and "
                    f"logarithms cannot be averaged together. Put all rows on one scale."
                )
            return plain
        if plain.max(initial=0.0) > LARGEST_LOG:
            raise InputError(
                f"{self.where}: values up to {plain.max():,.4g}, not all of them whole: normalised counts rather than "
                f"counts or logarithms. Say --transform log1p_cp10k (log1p of counts per 10,000 of each row)."
            )
        if plain.min(initial=0.0) < LOWEST_LOG:
            raise InputError(
                f"{self.where}: values down to {plain.min():.4g}, which are no logarithms of counts, so rows cannot be "
                f"averaged as expression like the cells of the truth. If they are differences from the control, say "
                f"--scale delta; else write levels, not z-scores or residuals."
            )
        counts = np.expm1(plain)
        return np.asarray(np.rint(counts) if self.kind == "log1p_counts" else counts)

    def finish(self, total: np.ndarray[Any, Any], n: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """(n_keys, n_genes) profiles of sums over ``n`` rows."""
        if self.factor is not None:
            return np.asarray(np.log1p(self.factor * total / n[:, None]))
        if self.depth is None:
            return np.asarray(total / n[:, None])
        all_counts = np.maximum(total.sum(axis=1, keepdims=True), 1e-300)
        return np.asarray(np.log1p(self.depth * total / all_counts))


def averaging(
    file: PredictionFile, space: Normalise | None, rows_per_key: float, *, own_genes: int, differences: bool = False
) -> tuple[Averaging, list[Finding]]:
    """How the rows of a file are averaged so that they are comparable with the truth.

    Parameters
    ----------
    file : some of its values are read, to see what they are.
    space : how the truth was made of cells; None if it was not.
    rows_per_key : rows of the file per sample, on average; nothing is averaged at 1.
    own_genes : how many genes the truth has.
    differences : the values are differences from the control, of which the plain mean is taken.

    Raises
    ------
    InputError
        Counts for a truth of logarithms, or counts of a part of the genes.
    """
    if differences:
        return Averaging("other", str(file.path)), []
    first = _first_rows(file)
    kind: Kind = kind_of(first) if first.size else "other"
    whole = len(file.gene_names) >= LEAST_GENES * own_genes
    where = str(file.path)
    if kind == "mixed" and (space is not None or rows_per_key > 1):
        raise InputError(
            f"{where}: some rows hold counts (whole numbers) and others logarithms. Counts and logarithms cannot be "
            f"averaged together. Put all rows on one scale."
        )
    counting = kind in ("counts", "log1p_counts")
    if space is None or (not counting and (space == "mean_log1p" or rows_per_key <= 1)):
        return Averaging(kind, where), []
    if space not in PER:
        truth = IN_WORDS[space]
        if not counting:
            raise InputError(
                f"{where}: the truth is a {truth} and the predictions are logarithms. Make the truth with "
                f"--normalise cp10k."
            )
        raise InputError(
            f"{where}: the predictions are counts and the truth is a {truth}. Say how they become logarithms: "
            f"--transform log1p_cp10k (log1p of counts per 10,000 of each row)."
        )
    if counting and not whole:
        raise InputError(
            f"{where} holds counts of {len(file.gene_names):,} of {own_genes:,} genes of the truth. The depth of a "
            f"cell is that of all its genes, so they cannot be brought to the scale of the truth. Predict all genes, "
            f"or write log1p values."
        )
    if counting:
        return Averaging(kind, where, depth=PER[space]), []
    depth = _depth_beside(first, PER[space]) if whole else None
    text = (
        f"{where}: logarithms of single cells are averaged as expression and logged again, because the truth is "
        f"{IN_WORDS[space]}. Every cell weighs the same there; in the truth, by its counts."
    )
    if depth is not None:
        text += f" They have {depth:,.0f} counts a cell and are brought to the {PER[space]:,.0f} of the truth."
    found = Finding("warning", "averaged_as_expression", text, where=where)
    return Averaging(kind, where, factor=1.0 if depth is None else PER[space] / depth), [found]


def _first_rows(file: PredictionFile) -> np.ndarray[Any, Any]:
    """(k, n_genes) the rows by which it is told what the others are."""
    return next(iter(file.rows(LOOKED_AT)), np.empty((0, 0), dtype=np.float32))


def _depth_beside(logs: np.ndarray[Any, Any], asked: float) -> float | None:
    """The depth that logarithms of cells were made for, if it is not the one asked for.

    A model's cells need not add up to it exactly: then the depth is a part of what it predicts, and is left.
    """
    depths = np.expm1(np.clip(np.asarray(logs, dtype=np.float64), 0.0, LARGEST_LOG)).sum(axis=1)
    middle = float(np.median(depths)) if len(depths) else asked
    off = max(middle, asked) / max(min(middle, asked), 1e-300)
    same = float(np.std(depths)) <= CONSTANT * middle
    return middle if middle > 0 and (off > FACTOR or (same and off > 1 + CONSTANT)) else None
