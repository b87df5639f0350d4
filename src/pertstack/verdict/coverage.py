"""Prediction intervals per gene from out-of-fold residuals: CV+ by cell line, with one residual per group.

Residuals are kept as one sorted list per cell line and fold, thinned so that intervals can only widen; a query merges
K lists and never forms residuals x test rows. Which predictions are used is the caller's choice.

References: Barber, Candes, Ramdas, Tibshirani (2021) Annals of Statistics 49:486 (CV+); Vovk (2015) Annals of
Mathematics and AI 74:9 (cross-conformal); Dunn, Wasserman, Ramdas (2022) JASA 118:2491 (one residual per group).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._base.plain_json import plain_json
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource
from pertstack.predictions.sources.some_rows import Rows, SomeRows
from pertstack.reduce.read_tiles import iter_tiles, ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.tile import Combine, Tile
from pertstack.verdict.residuals import KEEP, CrossConformal, SortedResiduals, around


def guaranteed_coverage(level: float, n: int, n_folds: int) -> float:
    """What is proven for CV+ (Barber et al. 2021, theorem 4).

    Parameters
    ----------
    level : 1 - alpha, nominal.
    n : groups.
    n_folds : K.
    """
    alpha = 1 - level
    slack = min(2 * (1 - 1 / n_folds) / (n / n_folds + 1), (1 - n_folds / n) / (n_folds + 1))
    return max(0.0, 1 - 2 * alpha - slack)


def collect_residuals(
    source: BlockSource,
    combine: Combine | Mapping[int, Combine],
    references: References,
    *,
    seed: int = 0,
    keep: int = KEEP,
    memory: int = 10**9,
    scratch: Path | None = None,
) -> CrossConformal:
    """Residual lists of out-of-fold rows.

    One row is drawn per group, cell line and fold (samples of a group are alike, so more would count one thing twice);
    no other is read.
    Memory: one tile, and the drawn rows of one block.

    Parameters
    ----------
    source : development rows, block by block.
    combine : one combination, or by fold, each learned without the fold.
    references : of the same rows.
    seed : of the draw of one row per group.
    keep : residuals kept per gene, cell line and fold, at most.
    memory : bytes that a tile may take.
    scratch : folder for the lists if they are long (they are mapped then); None keeps them in memory.

    Raises
    ------
    InputError
        The source holds held-out test rows.
    """
    if any(block.fold is None for block in source.blocks()):
        raise InputError("Residuals come from out-of-fold rows; this source holds held-out test rows.")
    drawn = SomeRows(source, _one_per_group(source, seed))
    kept: dict[tuple[str, int], list[Float32]] = {}
    done: dict[str, dict[int, SortedResiduals]] = {}
    current: tuple[str, int] | None = None
    for tile, treated in iter_tiles(drawn, references, memory):
        assert tile.block.fold is not None
        place = (tile.block.cell_line, tile.block.fold)
        if current not in (None, place):
            _finish(kept, done, current, keep=keep, scratch=scratch)
        current = place
        kept.setdefault(place, []).append(treated - _centre(combine, tile))
    _finish(kept, done, current, keep=keep, scratch=scratch)
    return CrossConformal(done)


def _centre(combine: Combine | Mapping[int, Combine], tile: Tile) -> Float32:
    one = combine[tile.block.fold] if isinstance(combine, Mapping) and tile.block.fold is not None else combine
    if isinstance(one, Mapping):
        raise InputError("There is one combination per fold; for test rows provide the final one.")
    return np.asarray(one(tile), dtype=np.float32)


def _finish(
    kept: dict[tuple[str, int], list[Float32]],
    done: dict[str, dict[int, SortedResiduals]],
    place: tuple[str, int] | None,
    *,
    keep: int,
    scratch: Path | None,
) -> None:
    """Sort and thin what was collected for a cell line and fold."""
    if place is not None and place in kept:
        line, fold = place
        done.setdefault(line, {})[fold] = SortedResiduals.of(np.concatenate(kept.pop(place)), keep, scratch=scratch)


def _one_per_group(source: BlockSource, seed: int) -> dict[Block, Rows]:
    """Rows by block: one per cell line, fold and group, drawn with the seed."""
    samples = samples_of(source)
    order = np.random.default_rng(seed).permutation(len(samples))
    drawn = np.zeros(len(samples), dtype=bool)
    drawn[samples.iloc[order].drop_duplicates(["cell_line", "fold", "group"]).index] = True
    blocks = ordered_blocks(source)
    ends = np.cumsum([len(source.obs(block)) for block in blocks])
    return {b: np.flatnonzero(part) for b, part in zip(blocks, np.split(drawn, ends[:-1]), strict=True)}


def measured_coverage(
    source: BlockSource,
    combine: Combine,
    references: References,
    *,
    conformal: CrossConformal,
    level: float = 0.9,
    memory: int = 10**9,
) -> pd.DataFrame:
    """How often the truth lies inside, by cell line.

    Columns cell_line, coverage (share of sample-gene values), width (mean, over finite intervals), n (samples), own
    (the cell line has its own residuals). Values without a prediction are left out; None if there are no others.

    Parameters
    ----------
    source : judged rows with their truth.
    combine : gives the centre of the intervals.
    references : of the development rows.
    conformal : from ``collect_residuals``.
    level : 1 - alpha, nominal.
    memory : bytes that a tile may take.
    """
    sums: dict[str, Array] = {}
    for line, inside, width, defined in _judged(
        source, combine, references, conformal=conformal, level=level, memory=memory
    ):
        finite = np.isfinite(width) & defined
        add = [(inside & defined).sum(), defined.sum(), width[finite].sum(dtype=np.float64), finite.sum(), len(width)]
        sums[line] = sums.get(line, np.zeros(5)) + np.array(add, dtype=np.float64)
    lines = [
        {
            "cell_line": line,
            "coverage": s[0] / s[1] if s[1] else None,
            "width": s[2] / s[3] if s[3] else None,
            "n": int(s[4]),
            "own": conformal.knows(line),
        }
        for line, s in sorted(sums.items())
    ]
    return pd.DataFrame(lines, columns=["cell_line", "coverage", "width", "n", "own"])


def check_coverage(
    development: BlockSource,
    by_fold: Combine | Mapping[int, Combine],
    judged: BlockSource,
    *,
    final: Combine,
    references: References,
    level: float = 0.9,
    seed: int = 0,
    memory: int = 10**9,
    scratch: Path | None = None,
) -> dict[str, Any]:
    """Residuals from out-of-fold rows, coverage on judged rows: the facts of ``results/coverage.json``.

    Parameters
    ----------
    development : out-of-fold rows.
    by_fold : fold -> the combination learned without it, or one for all.
    judged : rows with their truth.
    final : the combination that ships: the centre of the intervals, since models of single folds do not predict judged
        rows.
    references : of the development rows.
    level : 1 - alpha, nominal.
    seed, memory, scratch : as in ``collect_residuals``.
    """
    conformal = collect_residuals(development, by_fold, references, seed=seed, memory=memory, scratch=scratch)
    table = measured_coverage(judged, final, references, conformal=conformal, level=level, memory=memory)
    return coverage_to_json(table, level)


def coverage_to_json(table: pd.DataFrame, level: float) -> dict[str, Any]:
    """``results/coverage.json``: format 1, what was promised, what was kept, by cell line and weighted by samples."""
    known = table[table["coverage"].notna()]
    share = float(np.average(known["coverage"].astype(float), weights=known["n"])) if len(known) else None
    rows = table.to_dict("records")
    facts: dict[str, Any] = plain_json({"format": 1, "nominal": level, "coverage": share, "by_cell_line": rows})
    return facts


def _judged(
    source: BlockSource, combine: Combine, references: References, conformal: CrossConformal, level: float, memory: int
) -> Iterator[tuple[str, Array, Array, Array]]:
    reach: dict[str, Array] = {}  # one centre for all: half the width is that of the cell line
    for tile, treated in iter_tiles(source, references, memory, extra_layers=8):
        line, prediction = tile.block.cell_line, _centre(combine, tile)
        if line not in reach:
            reach[line] = conformal.reach(line, level)
        lo, hi = around(prediction, reach[line])
        yield line, (treated >= lo) & (treated <= hi), hi - lo, np.isfinite(prediction)
