"""Means by plate, and by plate and perturbation: what a row loses to be seen within its plate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.machine.compiled import kernel
from pertstack.data.rows import Float32
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import Cut, ordered_blocks
from pertstack.reduce.scoring.same import is_whole

PLATE = "plate"
LEAST_RUN = 16
"""Neighbouring rows, on average, that a tile of whole plates must be made of: rows one by one are slow to read."""


def plate_codes(obs: pd.DataFrame) -> tuple[Any, Any, Any]:
    """Per row its plate (-1: not known) and its pair of plate and perturbation; per plate its perturbations."""
    n = len(obs)
    nothing = np.full(n, -1, dtype=np.int64)
    if PLATE not in obs or not obs[PLATE].notna().any():
        return nothing, nothing, np.zeros(0, dtype=np.int64)
    plate = pd.factorize(obs[PLATE].astype(object), sort=True)[0].astype(np.int64)
    drug = pd.factorize(obs["perturbation"].astype(object), sort=True)[0].astype(np.int64)
    pairs = np.where(plate < 0, -1, plate * (drug.max() + 1) + drug)
    known = np.unique(pairs[pairs >= 0])
    pair = np.where(pairs < 0, -1, np.searchsorted(known, pairs))
    return plate, pair, np.bincount(known // (drug.max() + 1), minlength=int(plate.max()) + 1)


def shared_pairs(pair: Any) -> Any:
    """Pairs of plate and perturbation that several rows share: each has a sum of its own."""
    return np.flatnonzero(np.bincount(pair[pair >= 0], minlength=int(pair.max(initial=-1)) + 1) > 1)


def plate_cuts(source: BlockSource, most: int) -> list[Cut] | None:
    """Tiles of at most ``most`` rows that hold whole plates; None if a plate is larger, or a tile would be made of
    rows that lie far apart, or some model lacks rows or genes.

    Parameters
    ----------
    source : to be read.
    most : rows of a tile.
    """
    cuts: list[Cut] = []
    for block in ordered_blocks(source):
        plate = plate_codes(source.obs(block))[0]
        alone = plate.max(initial=-1) + 1 + np.arange(len(plate))  # a row without a plate goes anywhere
        unit = pd.factorize(np.where(plate < 0, alone, plate))[0]  # in the order of their first rows
        size = np.bincount(unit)
        if not is_whole(source, block) or size.max(initial=0) > most:
            return None
        number, rows = np.zeros(len(size), dtype=np.int64), 0
        for i, n in enumerate(size):
            rows = rows + n if rows + n <= most else n
            number[i] = number[i - 1] + (rows == n) if i else 0
        tiles = [np.flatnonzero(number[unit] == t) for t in range(int(number.max(initial=-1)) + 1)]
        if sum(1 + int((np.diff(t) > 1).sum()) for t in tiles) > len(plate) / LEAST_RUN:
            return None
        cuts += [(block, t) for t in tiles]
    return cuts


class PlateMeans:
    """Sums of layers by plate, and by plate and perturbation if several rows share them.

    Parameters
    ----------
    plate, pair : (n rows of the block,), from ``plate_codes``.
    n_layers, n_genes : how many of each.
    """

    def __init__(self, plate: Any, pair: Any, n_layers: int, n_genes: int) -> None:
        several = shared_pairs(pair)
        slot = np.full(int(pair.max(initial=-1)) + 2, -1, dtype=np.int64)  # the last: rows without a plate
        slot[several] = np.arange(len(several))
        self.plate, self.slot = plate, slot[pair]
        n_plates = int(plate.max(initial=-1)) + 1
        self.sums, self.own = np.zeros((n_layers, n_plates, n_genes)), np.zeros((n_layers, len(several), n_genes))
        self.n, self.n_own = np.zeros((n_layers, n_plates)), np.zeros((n_layers, len(several)))

    def add(self, layer: int, start: int, rows: Float32) -> None:
        """Add rows of the block; those with NaN or without a plate are passed over.

        Parameters
        ----------
        layer : whose sums.
        start : row of the block where they begin.
        rows : (n, n_genes).
        """
        found = (self.sums[layer], self.own[layer], self.n[layer], self.n_own[layer])
        add_to_plates(np.ascontiguousarray(rows), self.plate[start:], self.slot[start:], *found)

    def without_own(self, layer: int, start: int, rows: Float32) -> Float32:
        """Rows minus the mean of the other perturbations on their plate, (n, n_genes); NaN without others.

        Parameters
        ----------
        layer, start, rows : as in ``add``.
        """
        answer = np.empty(rows.shape, dtype=np.float32)
        found = (self.sums[layer], self.own[layer], self.n[layer], self.n_own[layer])
        minus_others(np.ascontiguousarray(rows), self.plate[start:], self.slot[start:], *found, answer)
        return answer


@kernel
def add_to_plates(rows, plate, slot, sums, own, n, n_own):  # type: ignore[no-untyped-def]
    """Add rows (n, n_genes) to the sums of their plate and of their slot, if they have one."""
    n_genes = rows.shape[1]
    for i in range(rows.shape[0]):
        row, total = rows[i], 0.0
        for g in range(n_genes):
            total += row[g]
        if plate[i] < 0 or not np.isfinite(total):
            continue
        into = sums[plate[i]]
        for g in range(n_genes):
            into[g] += row[g]
        n[plate[i]] += 1
        if slot[i] >= 0:
            into = own[slot[i]]
            for g in range(n_genes):
                into[g] += row[g]
            n_own[slot[i]] += 1


@kernel
def minus_others(rows, plate, slot, sums, own, n, n_own, out):  # type: ignore[no-untyped-def]
    """Rows less the mean of the other perturbations on their plate, into out; NaN if there are none."""
    n_genes = rows.shape[1]
    for i in range(rows.shape[0]):
        row, to = rows[i], out[i]
        others = -1.0
        if plate[i] >= 0:
            others = n[plate[i]] - (n_own[slot[i]] if slot[i] >= 0 else 1.0)
        if others <= 0:
            to[:] = np.nan
            continue
        all_rows = sums[plate[i]]
        for g in range(n_genes):
            mine = own[slot[i], g] if slot[i] >= 0 else np.float64(row[g])
            to[g] = row[g] - (all_rows[g] - mine) / others
