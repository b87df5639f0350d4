"""Do the values belong to the names they carry? A probe for rows, and genes, that are under other names.

When names match but values were moved by a row or two (a header counted as a row, a ``shift``, an off-by-one slice),
each prediction resembles its neighbour's measured profile more than its own. Both the file's and the store's order are
tried, over all rows and over every stretch of them, so that a shift that begins at a gap is seen. Exchanges of any kind
are tried in ``assignment.py``. Models that use neither control nor anything particular to a sample leave no trace; that
is said, not hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pertstack._base.findings import Finding
from pertstack.data.rows import Float32
from pertstack.predictions.importers.checks.assignment import (
    BACKWARDS,
    Exchange,
    exchanged_genes,
    exchanged_rows,
    levels_of_other_genes,
)
from pertstack.predictions.importers.checks.sampled import Place, Sampled, measured_rows
from pertstack.predictions.store.reader import StoreReader

STEPS = (-2, -1, 1, 2)
FEWEST_PAIRS = 12
SIGNIFICANT = 6.0  # standard errors by which a neighbour must fit better
MARGIN = 0.02  # and in correlation
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def check_shift(
    store: StoreReader,
    sampled: Sampled,
    all_ids: Sequence[str],
    *,
    places: dict[str, Place],
    name: str,
    file_genes: Sequence[str] = (),
) -> list[Finding]:
    """Error when a neighbour's measured profile fits the predictions better than the own one; else what could be seen.

    The statistic is the paired difference, over sampled rows, of the correlation over genes between the prediction and
    a measured profile (control, and treated if it may be seen): neighbour's minus own. Profiles are centred per gene
    and cell line first, so that what all samples share does not count.

    Parameters
    ----------
    store : gives measured rows.
    sampled : predicted rows and genes, treated scale.
    all_ids : samples of all files, in their order: who is a neighbour in the file.
    places : sample -> block and row: who is a neighbour in the study.
    name : of the model.
    file_genes : in the order of the file; empty for that of the study.
    """
    own: list[Place | None] = [places.get(i) for i in sampled.ids]
    if len(own) < FEWEST_PAIRS or len(sampled.genes) < 3:
        return [
            _note("shift_not_checked", f"{name}: too few rows or genes to check that values belong to their ids.", name)
        ]
    at_home = False
    lines = [p.block.cell_line if p else "" for p in own]
    layers = {layer: measured_rows(store, layer, own, genes=sampled.genes) for layer in ("control", "treated")}
    for layer in ("control", "treated"):
        measured = layers[layer]
        if not np.isfinite(measured).all(axis=1).any():
            continue
        view = _View(sampled.values, measured, lines)
        for order, step, neighbours in _neighbours(sampled, all_ids, places, store):
            rows = measured_rows(store, layer, neighbours, genes=sampled.genes)
            difference = view.differences(rows, [p.block.cell_line if p else "" for p in neighbours])
            along = np.arange(len(own)) if order == "file" else _store_order(own)
            found = _clearest(difference[along], view.fit[along])
            if found is not None:
                gain, z, n = found
                numbers = {"layer": layer, "order": order, "step": step, "gain": gain, "z": z, "pairs": n}
                return [_shifted(name, numbers)]
        at_home |= view.own_beats_others()
    elsewhere = _exchanged(store, sampled, own, layers=layers, name=name, file_genes=file_genes)
    if elsewhere is not None:
        return [elsewhere]
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

    def differences(self, rows: Float32, lines: list[str]) -> Any:
        """Gain in correlation of each row with another measured row over its own; NaN if there is no pair."""
        found = np.full(len(self.lines), np.nan)
        use = self.usable & (np.asarray(lines, dtype=object) == self.lines) & np.isfinite(rows).all(axis=1)
        if use.sum() >= FEWEST_PAIRS:
            centred = rows[use].astype(np.float64) - np.stack([self.means[line] for line in self.lines[use]])
            found[use] = correlation(self.values[use], centred) - self.fit[use]
        return found

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


def _store_order(own: Sequence[Place | None]) -> Any:
    """Sampled rows in the order of the store."""
    return np.array(sorted(range(len(own)), key=lambda i: ("", 0) if (p := own[i]) is None else (p.block.id, p.row)))


def _clearest(difference: Any, fit: Any) -> tuple[float, float, int] | None:
    """Mean gain, its standard errors and the pairs of a stretch of rows whose neighbours fit better; None else.

    All rows, else the clearest run of eighths. A run has to be as improbable as ``SIGNIFICANT`` standard errors are of
    many rows. Where the own ``fit`` is plainly negative the model errs, and every neighbour fits better.
    """
    whole = _mean_gain(difference)
    if whole[2] >= FEWEST_PAIRS and whole[1] > SIGNIFICANT and whole[0] > MARGIN and np.nanmean(fit) > BACKWARDS:
        return whole
    edges = np.linspace(0, len(difference), 9).round().astype(int)
    pieces = [slice(edges[a], edges[b]) for a in range(8) for b in range(a + 1, 9)]
    runs = [_mean_gain(difference[p]) for p in pieces if np.isfinite(fit[p]).any() and np.nanmean(fit[p]) > BACKWARDS]
    from scipy.special import ndtr, stdtr  # slow to import

    clear = [r for r in runs if r[2] >= FEWEST_PAIRS and r[0] > MARGIN and stdtr(r[2] - 1, -r[1]) < ndtr(-SIGNIFICANT)]
    return max(clear, key=lambda run: run[1], default=None)


def _mean_gain(difference: Any) -> tuple[float, float, int]:
    there = difference[np.isfinite(difference)]
    if len(there) < 2:
        return 0.0, 0.0, len(there)
    error = there.std(ddof=1) / np.sqrt(len(there))
    z = there.mean() / error if error > 0 else (np.inf if there.mean() > 0 else 0.0)
    return float(there.mean()), float(z), len(there)


def _exchanged(
    store: StoreReader,
    sampled: Sampled,
    own: Sequence[Place | None],
    *,
    layers: Mapping[str, Float32],
    name: str,
    file_genes: Sequence[str],
) -> Finding | None:
    """An error if rows or genes fit clearly better under other names; a warning if the model may be wrong."""
    lines = [p.block.cell_line if p else "" for p in own]
    kinds = {b: store.obs(b)["perturbation"].astype(str).to_numpy() for b in {p.block for p in own if p is not None}}
    drugs = ["" if p is None else str(kinds[p.block][p.row]) for p in own]
    control, treated = layers["control"], layers["treated"]
    doubt: Finding | None = None
    for layer, measured in layers.items():
        rows = exchanged_rows(sampled.values, measured, lines, perturbations=drugs)
        if rows is not None:  # a model without skill may fit other treated rows better; its control is always its own
            found = _under_other_names(name, "rows", "ids", found=rows, fit=f"{layer} profiles")
            if layer == "control":
                return found
            said = f"{found.message} Or the model has no skill for these samples, and no trace of their controls."
            doubt = replace(found, severity="warning", message=said)
    there: Mask = np.asarray(np.isfinite(treated).all(axis=1) & np.isfinite(control).all(axis=1))
    orders = [np.arange(len(sampled.genes))]
    if len(file_genes):
        at = {str(g): i for i, g in enumerate(file_genes)}
        orders.append(np.argsort([at.get(str(store.gene_names[g]), -1) for g in sampled.genes], kind="stable"))
    genes = levels_of_other_genes(sampled.values[there], treated[there], orders)
    if genes is not None:
        return _under_other_names(name, "genes", "gene names", found=genes, fit="means of genes")
    inside = [line for line, use in zip(lines, there, strict=True) if use]
    for less in (np.zeros_like(control), control):  # of levels, then of changes
        genes = exchanged_genes((sampled.values - less)[there], (treated - less)[there], inside)
        if genes is not None:
            return _under_other_names(name, "genes", "gene names", found=genes, fit="measured genes over samples")
    return doubt


def _under_other_names(name: str, what: str, names: str, *, found: Exchange, fit: str) -> Finding:
    return Finding(
        "error",
        f"{what}_exchanged",
        f"{name}: the values look as if they were under other {names}. Among the sampled {what}, {found.moved:,} fit "
        f"clearly better under others (correlation with {fit}: {found.own:.2f} under the names they carry, "
        f"{found.better:.2f} under others). Were {what} sorted without their {names}? Write the {names} again beside "
        f"the values they were made for.",
        where=name,
        numbers={"moved": found.moved, "own": found.own, "better": found.better, "z": found.z},
    )


def correlation(a: Any, b: Any) -> Any:
    """Pearson correlation of each row of ``a`` with the same row of ``b``; NaN if a row is constant."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=scale > 1e-12)


def _note(code: str, text: str, name: str) -> Finding:
    return Finding("note", code, text, where=name)


def _shifted(name: str, numbers: dict[str, Any]) -> Finding:
    return Finding(
        "error",
        "rows_shifted",
        f"{name}: the values look shifted against their ids. Over {numbers['pairs']} sampled rows, predictions "
        f"correlate by "
        f"{numbers['gain']:.3f} more ({numbers['z']:.0f} standard errors) with the {numbers['layer']} profile of the "
        f"sample "
        f"{numbers['step']:+d} row{'s' if abs(numbers['step']) > 1 else ''} away in the {numbers['order']}'s order "
        f"than with "
        f"that of their own id. Each prediction would be judged on another sample. Write the ids again beside the "
        f"rows they were made for.",
        where=name,
        numbers=numbers,
    )
