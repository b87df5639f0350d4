"""Positive and negative control of a metric, made from development rows alone and scored like any prediction.

Rows of a condition that was measured more than once are cut in two: the first half is the truth, the mean of the second
half is the positive control. The negative control is the mean treated profile of the cell line outside the row's fold.
Where every condition is one sample made of cells, its two halves of cells take their place. So neither control shares a
row, or a cell, with the truth it is scored on. What the scores say is in ``calibration.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block
from pertstack.design.metric_names import parse_metrics
from pertstack.design.plan.groups import shared_parts
from pertstack.predictions.source import BlockSource, Mask
from pertstack.predictions.store.files.names import HALVES
from pertstack.reduce.read_tiles import ordered_blocks
from pertstack.reduce.references import References
from pertstack.reduce.scoring.calibration import Calibration, calibrate, in_numbers, without_vote
from pertstack.reduce.scoring.score import score
from pertstack.reduce.tile import Combine, Tile

CONDITION = ("perturbation", "cell_line", "log10_dose", "time_h")
POSITIVE, NEGATIVE = "measured again", "mean of the others"
Codes = np.ndarray[Any, np.dtype[np.int64]]


def condition_codes(obs: pd.DataFrame) -> tuple[Codes, int]:
    """Code (n,) of each row's condition, and how many: the column ``condition`` if rows have one, else perturbation,
    cell line, dose and time (unknown equals unknown)."""
    columns = ["condition"] if "condition" in obs else [c for c in CONDITION if c in obs]
    codes = obs.groupby(columns, dropna=False, sort=True, observed=True).ngroup().to_numpy(dtype=np.int64)
    return np.asarray(codes, dtype=np.int64), int(codes.max(initial=-1)) + 1


def second_half(codes: Codes) -> Mask:
    """(n,) rows that serve as the condition measured again: of k rows of a condition the last k - k // 2, if k > 1."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank, size = np.empty(len(codes), dtype=np.int64), np.bincount(codes, minlength=int(codes.max(initial=-1)) + 1)
    rank[order] = np.arange(len(codes)) - first
    return np.asarray((size[codes] > 1) & (rank >= size[codes] // 2))


@dataclass(frozen=True)
class _Truth:
    """The development rows of a source, without models."""

    source: BlockSource

    @property
    def gene_names(self) -> Names:
        return self.source.gene_names

    @property
    def models(self) -> tuple[str, ...]:
        return ()

    def blocks(self) -> list[Block]:
        return [b for b in self.source.blocks() if b.role == "development"]

    def genes_of(self, block: Block, model: str) -> Mask:
        return self.source.genes_of(block, model)


@dataclass(frozen=True)
class TruthHalf(_Truth):
    """The rows of a source that are not the condition measured again; no models."""

    kept: dict[Block, Codes]

    @classmethod
    def of(cls, source: BlockSource) -> TruthHalf:
        codes = {block: condition_codes(source.obs(block))[0] for block in ordered_blocks(source)}
        return cls(source, {block: np.flatnonzero(~second_half(c)) for block, c in codes.items()})

    def obs(self, block: Block) -> pd.DataFrame:
        return self.source.obs(block).iloc[self.kept[block]]

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        at = self.kept[block][start:stop]
        if len(at) == 0:
            return np.empty((0, len(self.gene_names)), np.float32)
        rows = np.asarray(self.source.read(block, layer, start=int(at[0]), stop=int(at[-1]) + 1))[at - at[0]]
        if out is not None:
            out[...] = rows
        return rows if out is None else out

    def sound(self, block: Block, model: str) -> Mask:
        return np.asarray(self.source.sound(block, model)[self.kept[block]])

    def layer_digest(self, block: Block, layer: str) -> str:
        return self.source.layer_digest(block, layer)


class MeasuredAgain:
    """A ``Combine``: mean of the second half of each row's condition; NaN where it was measured once."""

    def __init__(self, source: BlockSource) -> None:
        self.source = source
        self._block: Block | None = None

    def __call__(self, tile: Tile) -> Float32:
        if tile.block != self._block:
            self._load(tile.block)
        return np.asarray(self._means[[self._code[str(s)] for s in tile.obs.index]])

    def _load(self, block: Block) -> None:
        obs = self.source.obs(block)
        codes, n_conditions = condition_codes(obs)
        again = second_half(codes)
        total, count = np.zeros((n_conditions, len(self.source.gene_names))), np.zeros(n_conditions)
        for start in range(0, len(obs), 256):
            rows = self.source.read(block, "treated", start=start, stop=min(start + 256, len(obs)))
            for i in np.flatnonzero(again[start : start + len(rows)]):
                total[codes[start + i]] += rows[i]
                count[codes[start + i]] += 1
        with np.errstate(invalid="ignore"):
            self._means = (total / count[:, None]).astype(np.float32)
        self._code = dict(zip(map(str, obs.index), codes.tolist(), strict=True))
        self._block = block


def mean_of_others(references: References) -> Combine:
    """The centroid outside the row's fold (``References.centroid``) as a prediction."""

    def combine(tile: Tile) -> Float32:
        profile = references.centroid(tile.block.cell_line, tile.block.fold).astype(np.float32)
        return np.repeat(profile[None], tile.n, axis=0)

    return combine


@dataclass(frozen=True)
class FirstHalves(_Truth):
    """A source whose treated profiles are those of the first half of each sample's cells; no models."""

    def obs(self, block: Block) -> pd.DataFrame:
        return self.source.obs(block)

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        return self.source.read(block, HALVES[0] if layer == "treated" else layer, start=start, stop=stop, out=out)

    def sound(self, block: Block, model: str) -> Mask:
        return self.source.sound(block, model)

    def layer_digest(self, block: Block, layer: str) -> str:
        return self.source.layer_digest(block, HALVES[0] if layer == "treated" else layer)


class SecondHalves:
    """A ``Combine``: the profile of the second half of each sample's cells."""

    def __init__(self, source: BlockSource) -> None:
        self.source = source
        self._at: dict[Block, dict[str, int]] = {}

    def __call__(self, tile: Tile) -> Float32:
        if tile.block not in self._at:
            self._at = {tile.block: {str(s): i for i, s in enumerate(self.source.obs(tile.block).index)}}
        rows = np.array([self._at[tile.block][str(s)] for s in tile.obs.index])
        low = int(rows.min())
        return np.asarray(self.source.read(tile.block, HALVES[1], start=low, stop=int(rows.max()) + 1)[rows - low])


def measured_twice(source: BlockSource) -> bool:
    """Whether some condition has two rows in a block."""
    return any(second_half(condition_codes(source.obs(b))[0]).any() for b in ordered_blocks(source))


def calibrate_source(
    source: BlockSource,
    references: References,
    metrics: Sequence[str],
    *,
    memory: int = 10**9,
    workers: int = 1,
    halves: bool = False,
    among: Iterable[object] = (),
) -> dict[str, Calibration]:
    """Calibration of every metric on the development rows of a source, by full name.

    Where no condition was measured twice the positive control is unknown everywhere; the mean of the negative control
    is given all the same, so that the range of the metric is known. The centroid is that of the other folds; truth and
    positive control share its noise, worth a correlation of one over the number of its samples.

    Parameters
    ----------
    source : development rows; no model is read.
    references : of the same rows.
    metrics : by name.
    memory : bytes that a tile may take.
    workers : processes that share the pass.
    halves : the second half of each sample's cells is the condition measured again, the first half the truth.
    among : other names of perturbations of the same data, by which combinations are known.
    """
    half: TruthHalf | FirstHalves = FirstHalves(source) if halves else TruthHalf.of(source)
    again: Combine = SecondHalves(source) if halves else MeasuredAgain(source)
    controls: dict[str, Combine] = {POSITIVE: again, NEGATIVE: mean_of_others(references)}
    table = score(
        half, controls, references, metrics=parse_metrics(metrics), base_models=False, memory=memory, workers=workers
    )
    values = {m: (table.values(POSITIVE, m), table.values(NEGATIVE, m)) for m in table.metrics}
    conditions = np.concatenate(
        [
            np.char.add(f"{block.id}:", condition_codes(half.obs(block))[0].astype(str))
            for block in ordered_blocks(half)
            if len(half.obs(block))
        ]
    )
    groups = table.samples["group"].to_numpy()
    known: dict[str, Any] = {"conditions": conditions, "groups": groups, "parts": shared_parts(table.samples, among)}
    return {name: calibrate(name, *both, **known) for name, both in values.items()}


def votes_withheld(source: BlockSource, references: References, primary: str, metrics: Sequence[str]) -> dict[str, str]:
    """Metrics on which a constant beats a replicate, with their numbers; none if nothing was measured twice.

    Parameters
    ----------
    source : development rows.
    references : of the same rows.
    primary : the deciding metric.
    metrics : those that would bar a combination.
    """
    if not measured_twice(source):
        return {}
    found = calibrate_source(source, references, (primary, *metrics))
    return {m: in_numbers(c) for m, c in without_vote(found, primary).items()}
