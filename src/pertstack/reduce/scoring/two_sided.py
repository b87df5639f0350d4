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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Metric
from pertstack.predictions.source import BlockSource
from pertstack.reduce.matched import LEAST_OTHERS
from pertstack.reduce.metrics.rows import TruthRows
from pertstack.reduce.read_tiles import iter_tiles, ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.scoring.made import Made, mixture_of
from pertstack.reduce.scoring.mixtures import Mixture, Mixtures
from pertstack.reduce.scoring.plate_means import PlateMeans, plate_codes, shared_pairs
from pertstack.reduce.tile import Combine, Tile


def two_sided_values(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    metrics: Sequence[Metric],
    *,
    memory: int = 10**9,
    pool: ThreadPoolExecutor | None = None,
) -> Float64:
    """Values (n_names, n_metrics, n_samples), block by block.

    NaN: rows a name did not predict, rows whose plate is not known or holds fewer than ``LEAST_OTHERS`` other
    perturbations (of the same fold), lines with fewer than two distinct controls.

    Parameters
    ----------
    source, combines, references, metrics, memory, pool : as in ``set_level_values``.
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


def _tiles(
    source: BlockSource, references: References, block: Block, memory: int, *, made: int = 0
) -> Iterator[tuple[int, Tile, Float32]]:
    """Tiles of a block and where they start; ``made`` counts the layers that are made of each beside a few."""
    start = 0
    for tile, treated in iter_tiles(source, references, memory, extra_layers=4 + made, blocks=[block]):
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
    plate, pair, perturbations = plate_codes(source.obs(block))
    answer = np.full((len(combines), len(metrics), len(plate)), np.nan)
    enough = _enough(plate, perturbations)
    if not enough.any():
        return answer
    n_sums = len(perturbations) + len(shared_pairs(pair)) + 1
    layout = _Layout(source, references, combines, block, memory // 4 // (8 * n_sums))
    for some in layout.groups:
        means = PlateMeans(plate, pair, 1 + layout.n_models + len(some), len(source.gene_names))
        for start, tile, treated in _tiles(source, references, block, memory // 2):
            for layer, found in enumerate((treated, *layout.of_models(tile), *(combines[n](tile) for n in some))):
                means.add(layer, start, np.asarray(found, dtype=np.float32))
        layers = 2 * layout.n_models + max(len(layout.mixing), 2 * len(some))
        for start, tile, treated in _tiles(source, references, block, memory // 2, made=layers):
            rows = slice(start, start + tile.n)
            truth = _Lost.of(means.without_own(0, start, treated), enough[rows], metrics, pool).score
            left = [means.without_own(1 + j, start, p) for j, p in enumerate(layout.of_models(tile))]
            alone = enumerate((combines[n](tile) for n in some), 1 + layout.n_models)
            made = [means.without_own(j, start, np.asarray(p, dtype=np.float32)) for j, p in alone]
            if layout.mixing and some is layout.groups[0]:
                answer[layout.places, :, rows] = truth(layout.mixed(tile, left))
            if some:
                answer[[layout.names.index(n) for n in some], :, rows] = truth(np.stack(made))
    return answer


class _Layout:
    """Which names of a block are mixtures of models, whose plate means follow from those of the models, and which are
    read row by row; the latter in groups whose plate means fit into memory."""

    def __init__(
        self, source: BlockSource, references: References, combines: Mapping[str, Combine], block: Block, room: int
    ) -> None:
        self.names, n_models = list(combines), len(source.models)
        whole = all(source.sound(block, m).all() and source.genes_of(block, m).all() for m in source.models)
        at_once = room // len(source.gene_names) - 1
        tile = next(_tiles(source, references, block, 1))[1]
        self.mixing: dict[str, Mixture] = {}
        if whole and at_once > n_models + 1:
            found = {n: mixture_of(c, tile) for n, c in combines.items()}
            self.mixing = {n: replace(m, shift=0 * m.shift) for n, m in found.items() if m is not None}
        self.n_models = 1 + n_models if self.mixing else 0
        self.places = [self.names.index(n) for n in self.mixing]
        others = [n for n in self.names if n not in self.mixing]
        step = max(1, at_once - self.n_models)
        self.groups = [others[a : a + step] for a in range(0, max(len(others), 1), step)]
        self._mixtures = Mixtures(list(self.mixing.values()), n_models, len(source.gene_names))

    def of_models(self, tile: Tile) -> list[Float32]:
        """Layers that mixtures are made of: predictions and the control."""
        return [*tile.predictions, tile.control] if self.mixing else []

    def mixed(self, tile: Tile, left: Sequence[Float32]) -> Float32:
        """Mixtures (names, n, n_genes) less their plate means: the same weights of what is left of every model."""
        nothing = np.zeros_like(tile.pooled)
        rest = replace(tile, predictions=np.stack(left[:-1]), control=left[-1], pooled=nothing)
        out = np.empty((len(self.mixing), *tile.control.shape), dtype=np.float32)
        self._mixtures.mix(rest, 0, tile.n, out=out)
        return out


@dataclass(frozen=True)
class _Lost:
    """Truth (n, n_genes) that has lost its reference, and if it is known."""

    rows: TruthRows
    good: Any

    @classmethod
    def of(cls, truth: Any, known: Any, metrics: Sequence[Metric], pool: ThreadPoolExecutor | None) -> _Lost:
        good = known & np.isfinite(truth).all(axis=1)
        zero: Any = {m.reference: np.zeros((1, truth.shape[1]), dtype=np.float32) for m in metrics}
        kept = np.where(good[:, None], truth, 0.0).astype(np.float32)
        return cls(TruthRows(kept, zero, metrics, landmarks=None, pool=pool), good)

    def score(self, predictions: Any) -> Float64:
        """Values (names, n_metrics, n) of predictions (names, n, n_genes) that have lost theirs."""
        return self.where_known(self.rows.score_all(np.ascontiguousarray(predictions, dtype=np.float32))[0])

    def where_known(self, values: Float64) -> Float64:
        values[:, :, ~self.good] = np.nan
        return values


def scored_within_plates(
    made: Made, tile: Tile, treated: Float32, metrics: Sequence[Metric], *, pool: ThreadPoolExecutor | None
) -> Float64:
    """Values (names, n_metrics, n) of a tile that holds whole plates and was just scored by ``made``: the same bits as
    from two readings.

    Parameters
    ----------
    made : gives the predictions.
    tile, treated : of ``plate_cuts``.
    metrics : within the plate.
    pool : threads that share the work; None for none.
    """
    plate, pair, perturbations = plate_codes(tile.obs)

    def less(rows: Float32) -> Float32:
        means = PlateMeans(plate, pair, 1, rows.shape[1])
        means.add(0, 0, rows)
        return means.without_own(0, 0, rows)

    lost = _Lost.of(less(treated), _enough(plate, perturbations), metrics, pool)
    return lost.where_known(made.score_less(tile, lost.rows, less))


def _enough(plate: Any, perturbations: Any) -> Any:
    """(n,) rows whose plate is known and holds enough other perturbations."""
    return (plate >= 0) & (np.append(perturbations, 0)[plate] > LEAST_OTHERS)


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
            for row in source.read(block, "control", start=start, stop=min(n, start + 256)):
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
        truth = _Lost.of(treated - first, np.ones(tile.n, dtype=bool), metrics, pool).score
        for i, combine in enumerate(combines.values()):
            prediction = np.asarray(combine(tile), dtype=np.float64) - second
            answer[i, :, start : start + tile.n] = truth(prediction[None])[0]
    return answer
