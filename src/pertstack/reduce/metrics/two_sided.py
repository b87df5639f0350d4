"""Metrics whose reference differs between truth and prediction: within the plate, and two halves of the controls.

``plate``: from the truth the mean truth, and from the prediction the mean prediction, of the other perturbations on the
sample's plate. What a model reads off the plate, through its controls or its replicates, is the same for all of them
and goes; what is left belongs to the perturbation. Out of fold the plate mean is taken within the fold, because each
fold is predicted by another fit.

``halves``: the distinct controls of a cell line in two disjoint halves, one subtracted from the truth, the other from
the prediction, so that the two share no control noise. Nicol et al. 2026 (bioRxiv 2026.05.07.723486) on the reuse of
controls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Metric
from pertstack.predictions.source import BlockSource
from pertstack.reduce.matched import LEAST_OTHERS
from pertstack.reduce.metrics.rows import TruthRows
from pertstack.reduce.read_tiles import iter_tiles, ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.tile import Combine, Tile

PLATE = "plate"


def two_sided_values(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    metrics: Sequence[Metric],
    *,
    memory: int = 10**9,
    pool: ThreadPoolExecutor | None = None,
) -> Float64:
    """Values (n_names, n_metrics, n_samples), block by block; as ``set_level_values``.

    NaN: rows a name did not predict, rows whose plate is not known or holds fewer than ``LEAST_OTHERS`` other
    perturbations (of the same fold), lines with fewer than two distinct controls.
    """
    n = len(samples_of(source))
    values = np.full((len(combines), len(metrics), n), np.nan)
    names, at = list(combines), 0
    halves = _control_halves(source) if any(m.reference == "halves" for m in metrics) else {}
    for block in ordered_blocks(source):
        n_rows = len(source.obs(block))
        rows = slice(at, at + n_rows)
        at += n_rows
        for reference in dict.fromkeys(m.reference for m in metrics):
            mine = [j for j, m in enumerate(metrics) if m.reference == reference]
            some = [metrics[j] for j in mine]
            if reference == "halves":
                found = _scored_by_halves(
                    source, combines, references, metrics=some, block=block, halves=halves, memory=memory, pool=pool
                )
            else:
                found = _scored_by_plate(
                    source, combines, references, metrics=some, block=block, memory=memory, pool=pool
                )
            for i in range(len(names)):
                values[i, mine, rows] = found[i]
    return values


def _plate_codes(obs: pd.DataFrame) -> tuple[Any, Any, Any]:
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


class _PlateMeans:
    """Sums of a layer by plate, and by plate and perturbation where several rows share them."""

    def __init__(self, plate: Any, pair: Any, n_genes: int) -> None:
        self.plate, self.pair = plate, pair
        n_pairs = int(pair.max(initial=-1)) + 1
        several = np.flatnonzero(np.bincount(pair[pair >= 0], minlength=n_pairs) > 1)
        self.slot = np.full(n_pairs + 1, -1, dtype=np.int64)  # the last: rows without a plate
        self.slot[several] = np.arange(len(several))
        n_plates = int(plate.max(initial=-1)) + 1
        self.sums, self.own = np.zeros((n_plates, n_genes)), np.zeros((len(several), n_genes))
        self.n, self.n_own = np.zeros(n_plates), np.zeros(len(several))

    def add(self, start: int, rows: Float32) -> None:
        """Rows of the block from ``start`` on; those with NaN or without a plate are passed over."""
        for i, row in enumerate(rows, start):
            if self.plate[i] < 0 or not np.isfinite(row).all():
                continue
            self.sums[self.plate[i]] += row
            self.n[self.plate[i]] += 1
            if (slot := self.slot[self.pair[i]]) >= 0:
                self.own[slot] += row
                self.n_own[slot] += 1

    def without_own(self, start: int, rows: Float32) -> Float64:
        """Rows minus the mean of the other perturbations on their plate, (n, n_genes); NaN without others."""
        answer = np.full(rows.shape, np.nan)
        for k, row in enumerate(rows):
            i = start + k
            if self.plate[i] < 0:
                continue
            slot = self.slot[self.pair[i]]
            own, n_own = (self.own[slot], self.n_own[slot]) if slot >= 0 else (row.astype(np.float64), 1.0)
            n = self.n[self.plate[i]] - n_own
            if n > 0:
                answer[k] = row - (self.sums[self.plate[i]] - own) / n
        return answer


def _tiles(
    source: BlockSource, references: References, block: Block, memory: int
) -> Iterator[tuple[int, Tile, Float32]]:
    start = 0
    for tile, treated in iter_tiles(source, references, memory, blocks=[block]):
        yield start, tile, treated
        start += tile.n


def _scored_by_plate(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    *,
    metrics: Sequence[Metric],
    block: Block,
    memory: int,
    pool: ThreadPoolExecutor | None,
) -> Float64:
    """(n_names, n_metrics, n rows of the block): one read for the plate means, one to score."""
    plate, pair, perturbations = _plate_codes(source.obs(block))
    answer = np.full((len(combines), len(metrics), len(plate)), np.nan)
    enough = (plate >= 0) & (np.append(perturbations, 0)[plate] > LEAST_OTHERS)
    if not enough.any():
        return answer
    n_genes = len(source.gene_names)
    names = list(combines)
    step = max(1, memory // 4 // (8 * n_genes * (len(perturbations) + 1)) - 1)
    for a in range(0, len(names), step):
        some = names[a : a + step]
        means = [_PlateMeans(plate, pair, n_genes) for _ in range(len(some) + 1)]
        for start, tile, treated in _tiles(source, references, block, memory // 2):
            means[0].add(start, treated)
            for name, mean in zip(some, means[1:], strict=True):
                mean.add(start, np.asarray(combines[name](tile), dtype=np.float32))
        for start, tile, treated in _tiles(source, references, block, memory // 2):
            truth = _truth(means[0].without_own(start, treated), enough[start : start + tile.n], metrics, pool)
            for i, name in enumerate(some):
                prediction = np.asarray(combines[name](tile), dtype=np.float32)
                answer[a + i, :, start : start + tile.n] = truth(means[i + 1].without_own(start, prediction))
    return answer


def _truth(truth: Float64, known: Any, metrics: Sequence[Metric], pool: ThreadPoolExecutor | None) -> Any:
    """From predictions that have lost their reference, as the truth has, to values (n_metrics, n)."""
    good = known & np.isfinite(truth).all(axis=1)
    zero: Any = {m.reference: np.zeros((1, truth.shape[1]), dtype=np.float32) for m in metrics}
    rows = TruthRows(np.where(good[:, None], truth, 0.0).astype(np.float32), zero, metrics, None, pool)

    def score(prediction: Float64) -> Float64:
        values, _ = rows.score(prediction.astype(np.float32))
        values[:, ~good] = np.nan
        return values

    return score


def _control_halves(source: BlockSource) -> dict[str, tuple[Float64, Float64]]:
    """Per cell line the means of two disjoint halves of its distinct controls; a hash of the row says which half.

    Lines with fewer than two distinct controls, or all of them in one half, are left out.
    """
    seen: dict[str, set[bytes]] = {}
    sums: dict[str, list[Float64]] = {}
    counts: dict[str, list[int]] = {}
    for block in ordered_blocks(source):
        line = block.cell_line
        mine = seen.setdefault(line, set())
        zero = np.zeros(len(source.gene_names))
        total, count = sums.setdefault(line, [zero, zero.copy()]), counts.setdefault(line, [0, 0])
        n = len(source.obs(block))
        for start in range(0, n, 256):
            for row in source.read(block, "control", start, min(n, start + 256)):
                digest = hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=12).digest()
                if digest not in mine:
                    mine.add(digest)
                    total[digest[0] & 1] += row
                    count[digest[0] & 1] += 1
    return {line: (sums[line][0] / a, sums[line][1] / b) for line, (a, b) in counts.items() if a > 0 and b > 0}


def _scored_by_halves(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    *,
    metrics: Sequence[Metric],
    block: Block,
    halves: Mapping[str, tuple[Float64, Float64]],
    memory: int,
    pool: ThreadPoolExecutor | None,
) -> Float64:
    answer = np.full((len(combines), len(metrics), len(source.obs(block))), np.nan)
    if block.cell_line not in halves:
        return answer
    first, second = halves[block.cell_line]
    for start, tile, treated in _tiles(source, references, block, memory // 2):
        truth = _truth(treated - first, np.ones(tile.n, dtype=bool), metrics, pool)
        for i, combine in enumerate(combines.values()):
            prediction = np.asarray(combine(tile), dtype=np.float64) - second
            answer[i, :, start : start + tile.n] = truth(prediction)
    return answer
