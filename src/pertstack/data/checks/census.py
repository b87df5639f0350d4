"""Sums over one pass of a data file: ranges, offenders, row digests, and a few rows kept for a closer look.

Memory is bounded by a chunk, a few numbers per gene, 16 bytes per sample and the kept rows. What the numbers mean is
said in ``data/checks/validate.py`` and ``data/checks/pairing.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from pertstack._base.digests import digest_names
from pertstack.data.card import Card, CardPairing, Transform
from pertstack.data.cells.recognise import FEW
from pertstack.data.file import Chunk

if TYPE_CHECKING:
    from pertstack.data.file import DataFile

KEPT = 512  # rows kept to judge how controls were paired
MISSING_MARKER = -666.0  # LINCS writes this for a missing number

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Digests = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True)
class Pairing:
    """How controls were given to samples, judged from the data."""

    word: CardPairing
    n_controls: int
    excess: float | None


class Bad:
    """Where unusable numbers are."""

    def __init__(self, n_samples: int, n_genes: int) -> None:
        self.n = 0
        self.rows: Mask = np.zeros(n_samples, dtype=bool)
        self.columns: Mask = np.zeros(n_genes, dtype=bool)

    def add(self, values: np.ndarray[Any, Any], start: int) -> Mask | None:
        """Which of some rows' values are unusable; None if all can be used, as their extremes say."""
        low, high = values.min(axis=0), values.max(axis=0)  # NaN if there is one
        if np.isfinite(low).all() and np.isfinite(high).all() and (low > MISSING_MARKER).all():
            return None
        bad = ~np.isfinite(values) | (values == MISSING_MARKER)
        if not bad.any():
            return None
        self.n += int(bad.sum())
        self.rows[start : start + len(values)] |= bad.any(1)
        self.columns |= bad.any(0)
        return np.asarray(bad)


class Census:
    """Feed it chunks in order, then read the numbers."""

    def __init__(self, file: DataFile) -> None:
        n, g = file.n_samples, file.n_genes
        self.file = file
        self.bad_treated, self.bad_control = Bad(n, g), Bad(n, g)
        self.flat: Mask = np.zeros(n, dtype=bool)  # samples with one value in all genes
        self.same_as_control: Mask = np.zeros(n, dtype=bool)
        self.control_digest: Digests = np.zeros(n, dtype=np.uint64)
        self.treated_digest: Digests = np.zeros(n, dtype=np.uint64)
        self.gene_low, self.gene_high = np.full(g, np.inf), np.full(g, -np.inf)  # over treated
        self.both_low, self.both_high = np.full(g, np.inf), np.full(g, -np.inf)  # over treated and control
        self.zeros = False  # among values that are whole numbers so far
        self.n_below, self.below = 0, np.zeros(n, dtype=bool)  # whole numbers below zero, and the samples that have one
        self._whole, self._count, self._sum, self._squares = True, 0, 0.0, 0.0
        self._wanted = np.unique(np.linspace(0, max(n - 1, 0), min(n, KEPT)).astype(np.int64))
        self._kept: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in; chunks come once each, in order."""
        rows, treated, control = slice(chunk.start, chunk.stop), chunk.treated, chunk.control
        self.control_digest[rows], self.treated_digest[rows] = _digests(control), _digests(treated)
        self.flat[rows] = _flat(treated)
        self.same_as_control[rows] = (treated == control).all(1)
        bad = self.bad_treated.add(treated, chunk.start)
        bad_control = self.bad_control.add(control, chunk.start)
        clean = treated if bad is None else np.where(bad, np.nan, treated)
        clean_control = control if bad_control is None else np.where(bad_control, np.nan, control)
        low, high = _range(clean)
        self.gene_low, self.gene_high = np.fmin(self.gene_low, low), np.fmax(self.gene_high, high)
        low_c, high_c = (low, high) if self.file.delta else _range(clean_control)
        self.both_low = np.fmin(self.both_low, np.fmin(low, low_c))
        self.both_high = np.fmax(self.both_high, np.fmax(high, high_c))
        if self._whole:
            self._whole = bool(np.array_equal(np.rint(clean), clean, equal_nan=True))
            self.zeros |= bool((clean == 0).any())
            if low.min(initial=0) < 0:
                self.n_below += int((clean < 0).sum())
                self.below[rows] = (clean < 0).any(axis=1)
        good = clean if bad is None else clean[~bad]
        self._count += good.size
        self._sum += float(good.sum(dtype=np.float64))
        self._squares += float(np.square(good, dtype=np.float64).sum())
        keep = self._wanted[(self._wanted >= chunk.start) & (self._wanted < chunk.stop)] - chunk.start
        if len(keep):
            self._kept.append((control[keep], treated[keep]))

    @property
    def low(self) -> float:
        return float(np.min(self.both_low, initial=np.inf)) if self._count else 0.0

    @property
    def high(self) -> float:
        return float(np.max(self.both_high, initial=-np.inf)) if self._count else 0.0

    @property
    def constant_genes(self) -> Mask:
        return (
            np.asarray(self.gene_low == self.gene_high)
            if self.file.n_samples > 1
            else np.zeros(self.file.n_genes, bool)
        )

    @property
    def n_unit_genes(self) -> int:
        """Genes that run from exactly 0 to exactly 1."""
        return int(((self.both_low == 0) & (self.both_high == 1)).sum())

    @cached_property
    def transform(self) -> Transform:
        """What was done to the values, as far as the values show."""
        if self.file.delta:
            return "differences"
        if self.n_unit_genes > 0.5 * self.file.n_genes:
            return "min-max"
        few_below = self.n_below <= FEW * self._count if self.n_below else self.low >= 0
        if self._whole and few_below and (self.high > 30 or (self.zeros and self.high > 1)):
            return "counts"
        if self.high > 100:
            return "linear"
        return "log" if self.low > -15 and self.high > 2 else "unknown"

    def kept(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """(positions, control, treated) of the kept rows."""
        control, treated = (np.concatenate([k[i] for k in self._kept]) for i in range(2))
        return self._wanted, control, treated

    def repeated_treated(self) -> Mask:
        """Samples whose treated profile another sample has too (all-zero differential rows included)."""
        _, inverse, counts = np.unique(self.treated_digest, return_inverse=True, return_counts=True)
        return np.asarray(counts[inverse] > 1)

    def card(self, pairing: Pairing) -> Card:
        genes = [str(g) for g in self.file.gene_names]
        mean = self._sum / max(self._count, 1)
        spread = max(self._squares / max(self._count, 1) - mean**2, 0.0)
        return Card(
            n_samples=self.file.n_samples,
            n_genes=len(genes),
            gene_digest=digest_names(genes),
            gene_set_digest=digest_names(sorted(genes)),
            scale="delta" if self.file.delta else "treated",
            transform=self.transform,
            value_min=self.low,
            value_max=self.high,
            value_mean=mean,
            value_sd=float(np.sqrt(spread)),
            control_reference=self.file.control_reference,
            pairing=pairing.word,
            n_controls=pairing.n_controls,
            pairing_excess=pairing.excess,
            made=self.file.made,
        )


def _digests(values: np.ndarray[Any, Any]) -> Digests:
    rows = np.ascontiguousarray(values + np.float32(0))  # + 0 turns -0.0 into 0.0
    return np.array([xxhash.xxh3_64_intdigest(row.data) for row in rows], dtype=np.uint64)


def _flat(values: np.ndarray[Any, Any]) -> Mask:
    """(n,) rows with one value in all columns; most are told by three of them."""
    found = np.zeros(len(values), dtype=bool)
    if values.shape[1]:
        some = values[:, [0, values.shape[1] // 2, -1]]
        at = np.flatnonzero((some == some[:, :1]).all(axis=1))
        found[at] = (values[at] == values[at, :1]).all(axis=1)
    return found


def _range(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Lowest and highest per gene, NaN skipped (inf, -inf where nothing is left)."""
    return np.fmin.reduce(values, axis=0, initial=np.inf), np.fmax.reduce(values, axis=0, initial=-np.inf)
