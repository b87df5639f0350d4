"""Do the values belong to the ids they carry? A probe for rows shifted against their names.

When names match but values were moved by a row or two (a header counted as a row, a ``shift``, an off-by-one slice),
each prediction resembles its neighbour's measured profile more than its own. Both the file's and the store's order are
tried. Models that use neither control nor anything particular to a sample leave no trace; that is said, not hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pertstack._base.findings import Finding
from pertstack.data.rows import Float32
from pertstack.predictions.importers.sampled import Place, Sampled, measured_rows
from pertstack.predictions.store.reader import StoreReader

STEPS = (-2, -1, 1, 2)
FEWEST_PAIRS = 12
SIGNIFICANT = 6.0  # standard errors by which a neighbour must fit better
MARGIN = 0.02  # and in correlation
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def check_shift(
    store: StoreReader, sampled: Sampled, all_ids: Sequence[str], places: dict[str, Place], name: str
) -> list[Finding]:
    """Error when a neighbour's measured profile fits the predictions better than the own one; else what could be seen.

    The statistic is the paired difference, over sampled rows, of the correlation over genes between the prediction and
    a measured profile (control, and treated where it may be seen): neighbour's minus own. Profiles are centred per
    gene and cell line first, so that what all samples share does not count.
    """
    own: list[Place | None] = [places.get(i) for i in sampled.ids]
    if len(own) < FEWEST_PAIRS or len(sampled.genes) < 3:
        return [
            _note("shift_not_checked", f"{name}: too few rows or genes to check that values belong to their ids.", name)
        ]
    at_home = False
    for layer in ("control", "treated"):
        measured = measured_rows(store, layer, own, sampled.genes)
        if not np.isfinite(measured).all(axis=1).any():
            continue
        view = _View(sampled.values, measured, [p.block.cell_line if p else "" for p in own])
        for order, step, neighbours in _neighbours(sampled, all_ids, places, store):
            rows = measured_rows(store, layer, neighbours, sampled.genes)
            gain, z, n = view.compare(rows, [p.block.cell_line if p else "" for p in neighbours])
            if n >= FEWEST_PAIRS and z > SIGNIFICANT and gain > MARGIN:
                numbers = {"layer": layer, "order": order, "step": step, "gain": gain, "z": z, "pairs": n}
                return [_shifted(name, numbers)]
        at_home |= view.own_beats_others()
    if at_home:
        return [
            _note("rows_belong", f"{name}: predictions resemble their own samples more than others; ids fit.", name)
        ]
    return [
        _note(
            "rows_unproven",
            f"{name}: the predictions do not resemble their own samples more than others of the same cell line, so "
            f"whether the "
            f"ids belong to the values cannot be seen from them. That is natural for models that ignore the control.",
            name,
        )
    ]


def _neighbours(
    sampled: Sampled, all_ids: Sequence[str], places: dict[str, Place], store: StoreReader
) -> list[tuple[str, int, list[Place | None]]]:
    """For every order and step, the place of each sampled row's neighbour."""
    found: list[tuple[str, int, list[Place | None]]] = []
    for step in STEPS:
        there = [at + step for at in sampled.positions]
        found.append(("file", step, [places.get(all_ids[t]) if 0 <= t < len(all_ids) else None for t in there]))
        moved: list[Place | None] = []
        for name in sampled.ids:
            place = places.get(name)
            row = -1 if place is None else place.row + step
            inside = place is not None and 0 <= row < store.n_samples(place.block)
            moved.append(Place(place.block, row) if inside and place is not None else None)
        found.append(("store", step, moved))
    return found


class _View:
    """Predictions and own measured rows, centred per gene within each cell line."""

    def __init__(self, values: Float32, own: Float32, lines: list[str]) -> None:
        self.lines = np.asarray(lines, dtype=object)
        self.usable: Mask = np.asarray(np.isfinite(own).all(axis=1))
        self.means: dict[str, Any] = {}
        self.values = np.array(values, dtype=np.float64)
        self.own = np.array(own, dtype=np.float64)
        for line in set(lines):
            rows = (self.lines == line) & self.usable
            if rows.sum() < 3:
                self.usable &= self.lines != line
                continue
            self.means[line] = self.own[rows].mean(axis=0)
            self.values[rows] -= self.values[rows].mean(axis=0)
            self.own[rows] -= self.means[line]
        self.fit = correlation(self.values, self.own)
        self.usable &= np.isfinite(self.fit)

    def compare(self, rows: Float32, lines: list[str]) -> tuple[float, float, int]:
        """Mean gain in correlation with other rows over own ones, its size in standard errors, and the number of
        pairs."""
        use = self.usable & (np.asarray(lines, dtype=object) == self.lines) & np.isfinite(rows).all(axis=1)
        if use.sum() < FEWEST_PAIRS:
            return 0.0, 0.0, int(use.sum())
        centred = rows[use].astype(np.float64) - np.stack([self.means[line] for line in self.lines[use]])
        difference = correlation(self.values[use], centred) - self.fit[use]
        difference = difference[np.isfinite(difference)]
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
        z = difference.mean() / error if error > 0 else (np.inf if difference.mean() > 0 else 0.0)
        return float(difference.mean()), float(z), len(difference)

    def own_beats_others(self) -> bool:
        """Whether predictions fit their own rows better than rows half a sample away (within the cell line)."""
        order = np.arange(len(self.lines))
        for line in self.means:
            rows = np.flatnonzero(self.lines == line)
            order[rows] = np.roll(rows, len(rows) // 2)
        difference = (self.fit - correlation(self.values, self.own[order]))[
            self.usable & (order != np.arange(len(order)))
        ]
        difference = difference[np.isfinite(difference)]
        if len(difference) < FEWEST_PAIRS:
            return False
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        return bool(difference.mean() > 3 * error)


def correlation(a: Any, b: Any) -> Any:
    """Pearson correlation of each row of ``a`` with the same row of ``b``; NaN where a row is constant."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=scale > 1e-12)


def _note(code: str, text: str, name: str) -> Finding:
    return Finding("note", code, text, where=name)


def _shifted(name: str, numbers: dict[str, Any]) -> Finding:
    return Finding(
        "error", "rows_shifted",
        f"{name}: the values look shifted against their ids. Over {numbers['pairs']} sampled rows, predictions "
        f"correlate by "
        f"{numbers['gain']:.3f} more ({numbers['z']:.0f} standard errors) with the {numbers['layer']} profile of the "
        f"sample "
        f"{numbers['step']:+d} row{'s' if abs(numbers['step']) > 1 else ''} away in the {numbers['order']}'s order "
        f"than with "
        f"that of their own id. Each prediction would be judged on another sample. Write the ids again beside the "
        f"rows they "
        f"were made for.",
        where=name, numbers=numbers,
    )  # fmt: skip
