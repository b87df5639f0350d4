"""Prediction intervals per gene from out-of-fold residuals: CV+ by cell line, with one residual per group.

Residuals are kept as one sorted list per cell line and fold, thinned so that intervals can only widen; a query merges
K lists and never forms residuals x test rows. Which predictions are used is the caller's choice.

References: Barber, Candes, Ramdas, Tibshirani (2021) Annals of Statistics 49:486 (CV+); Vovk (2015) Annals of
Mathematics and AI 74:9 (cross-conformal); Dunn, Wasserman, Ramdas (2022) JASA 118:2491 (one residual per group).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._base.machine.compiled import kernel
from pertstack._base.plain_json import plain_json
from pertstack.data.rows import Float32
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import iter_tiles, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.tile import Combine, Tile

KEEP = 512


@dataclass(frozen=True)
class SortedResiduals:
    """Absolute residuals of one cell line and fold, ascending per gene.

    Each kept value is the largest of the run it stands for, so that thinning can only widen an interval.
    """

    values: Float32  # (n_kept, n_genes)
    upto: np.ndarray[Any, np.dtype[np.int64]]  # (n_kept,) how many residuals are at or below each

    @property
    def n(self) -> int:
        """Residuals behind the list."""
        return int(self.upto[-1]) if len(self.upto) else 0

    @classmethod
    def of(cls, residuals: Float32, keep: int = KEEP) -> SortedResiduals:
        """From residuals (n, n_genes) of either sign; an undefined one counts as infinitely large."""
        size = np.abs(np.asarray(residuals, dtype=np.float32))
        size[np.isnan(size)] = np.inf
        size.sort(axis=0)
        n, m = len(size), min(len(size), keep)
        upto = np.array([math.ceil((j + 1) * n / m) for j in range(m)], dtype=np.int64)
        return cls(np.ascontiguousarray(size[upto - 1]), upto)


@dataclass(frozen=True)
class CrossConformal:
    """Residual lists by cell line and fold; see ``collect_residuals``."""

    lists: Mapping[str, Mapping[int, SortedResiduals]]

    def knows(self, cell_line: str) -> bool:
        """Whether intervals of this cell line rest on its own residuals."""
        return cell_line in self.lists

    def intervals(
        self, cell_line: str, prediction: Float32 | Mapping[int, Float32], level: float = 0.9
    ) -> tuple[Float32, Float32]:
        """Lower and upper ends (n, n_genes) each.

        Parameters
        ----------
        cell_line : str
            Of all rows.
        prediction : (n, n_genes), or one such array per fold
            Per fold (each by models that never saw the fold) gives CV+; a single one uses the same centre for all.
        level : float
            Coverage to expect for a new group, 1 - alpha. What is proven for CV+ is ``guaranteed_coverage``.

        A cell line without residuals borrows those of all others (``knows`` tells). Too few groups for the level
        (alpha * (n + 1) < 1) give infinite ends, which is honest. A NaN prediction gives NaN ends.
        """
        if not 0 < level < 1:
            raise InputError(f"The level of an interval is {level}; give a share between 0 and 1, such as 0.9.")
        mine = self.lists.get(cell_line)
        used = list(mine.items()) if mine is not None else [x for m in self.lists.values() for x in m.items()]
        values, upto = _stack([r for _, r in used])
        rank = math.ceil(level * (sum(r.n for _, r in used) + 1) - 1e-9)
        if not isinstance(prediction, Mapping):
            reach = _reach(values, upto, rank)  # the same on both sides
            middle = np.asarray(prediction, dtype=np.float64)
            return (middle - reach).astype(np.float32), (middle + reach).astype(np.float32)
        mu = np.stack([np.asarray(prediction[fold], dtype=np.float64) for fold, _ in used])
        hi, lo = np.empty(mu.shape[1:]), np.empty(mu.shape[1:])
        _upper(mu, values, upto, rank, hi)
        _upper(-mu, values, upto, rank, lo)
        return (-lo).astype(np.float32), hi.astype(np.float32)


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
) -> CrossConformal:
    """Residual lists of out-of-fold rows.

    One row is drawn per group, cell line and fold (samples of a group are alike, so more would count one thing twice).
    Memory: one tile, and the drawn rows of one block.

    Parameters
    ----------
    source : development rows, block by block.
    combine : one combination, or by fold, each learned without the fold.
    references : of the same rows.
    seed : of the draw of one row per group.
    keep : residuals kept per gene, cell line and fold, at most.
    memory : bytes that a tile may take.

    Raises
    ------
    InputError
        The source holds held-out test rows.
    """
    drawn = _one_per_group(samples_of(source), seed)
    kept: dict[tuple[str, int], list[Float32]] = {}
    done: dict[str, dict[int, SortedResiduals]] = {}
    current: tuple[str, int] | None = None
    for tile, treated in iter_tiles(source, references, memory):
        if tile.block.fold is None:
            raise InputError("Residuals come from out-of-fold rows; this source holds held-out test rows.")
        place = (tile.block.cell_line, tile.block.fold)
        if current not in (None, place):
            _finish(kept, done, current, keep)
        current = place
        rows = np.fromiter((s in drawn for s in tile.obs.index), dtype=bool, count=tile.n)
        if rows.any():
            kept.setdefault(place, []).append((treated - _centre(combine, tile))[rows])
    _finish(kept, done, current, keep)
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
    keep: int,
) -> None:
    """Sort and thin what was collected for a cell line and fold."""
    if place is not None and place in kept:
        line, fold = place
        done.setdefault(line, {})[fold] = SortedResiduals.of(np.concatenate(kept.pop(place)), keep)


def _one_per_group(samples: pd.DataFrame, seed: int) -> frozenset[str]:
    """Sample ids: one per cell line, fold and group, drawn with the seed."""
    order = np.random.default_rng(seed).permutation(len(samples))
    first = samples.iloc[order].drop_duplicates(["cell_line", "fold", "group"])
    return frozenset(first["sample_id"])


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
    (the cell line has its own residuals). Values without a prediction are left out; None where there are no others.

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
    seed, memory : as in ``collect_residuals``.
    """
    conformal = collect_residuals(development, by_fold, references, seed=seed, memory=memory)
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
    for tile, treated in iter_tiles(source, references, memory, extra_layers=8):
        prediction = _centre(combine, tile)
        lo, hi = conformal.intervals(tile.block.cell_line, prediction, level)
        yield tile.block.cell_line, (treated >= lo) & (treated <= hi), hi - lo, np.isfinite(prediction)


def _stack(lists: list[SortedResiduals]) -> tuple[Array, Array]:
    """Lists of unequal length as (K, longest, n_genes) and (K, longest); the ends are padded with infinity."""
    longest, n_genes = max(len(r.values) for r in lists), lists[0].values.shape[1]
    values = np.full((len(lists), longest, n_genes), np.inf)
    upto = np.empty((len(lists), longest), dtype=np.int64)
    for k, r in enumerate(lists):
        values[k, : len(r.values)] = r.values
        upto[k] = r.n
        upto[k, : len(r.values)] = r.upto
    return values, upto


def _reach(values: Array, upto: Array, rank: int) -> Array:
    """Half the width (1, n_genes) of intervals that have one centre: no row needs a search of its own."""
    reach = np.empty((1, values.shape[2]))
    _upper(np.zeros((len(values), 1, values.shape[2])), values, upto, rank, reach)
    return reach


@kernel
def _at_or_below(values, upto, k, g, x):  # type: ignore[no-untyped-def]
    """How many residuals of list k and gene g are <= x."""
    lo, hi = 0, values.shape[1]
    while lo < hi:
        mid = (lo + hi) // 2
        if values[k, mid, g] <= x:
            lo = mid + 1
        else:
            hi = mid
    return 0 if lo == 0 else upto[k, lo - 1]


@kernel
def _upper(mu, values, upto, rank, out):  # type: ignore[no-untyped-def]
    """``rank``-th smallest of all mu_k + residual, per row and gene: a binary search in each of the K lists."""
    n_lists, longest = values.shape[0], values.shape[1]
    for i in range(mu.shape[1]):
        for g in range(mu.shape[2]):
            best = np.inf
            for k in range(n_lists):
                lo, hi = 0, longest
                while lo < hi:
                    mid = (lo + hi) // 2
                    end = mu[k, i, g] + values[k, mid, g]
                    total = upto[k, mid]
                    for other in range(n_lists):
                        if other != k:
                            total += _at_or_below(values, upto, other, g, end - mu[other, i, g])
                    if total >= rank:
                        hi = mid
                    else:
                        lo = mid + 1
                if lo < longest:
                    best = min(best, mu[k, i, g] + values[k, lo, g])
            out[i, g] = best if best == best and mu[0, i, g] == mu[0, i, g] else np.nan
