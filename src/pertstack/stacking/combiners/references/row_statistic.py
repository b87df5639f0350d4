"""Fitted combiners that take one number from the sorted predictions of each sample and gene: median, trimmed mean.

They learn nothing, and if some models are missing they use those that are there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertstack._base.machine.compiled import kernel
from pertstack.data.rows import Float32
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import FittedCombiner

_STRIP = 256  # genes that are sorted side by side, so that all their values stay in the cache
Places = np.ndarray[Any, np.dtype[np.int64]]


class Statistic(ABC):
    """A weighted mean of sorted values (an L-statistic), with whole weights by place."""

    @abstractmethod
    def places(self, count: int) -> Places:
        """Weights (count,) of the values from smallest to largest; their sum divides."""


@kernel
def over_sorted(predictions, rows, table, total, out):  # type: ignore[no-untyped-def]
    """``sum_p table[count, p] v_p / total[count]`` of the sorted values v of each sample and gene, NaN left out.

    Neighbouring layers of a strip are compared and exchanged M times over (odd-even transposition sort: Knuth, The Art
    of Computer Programming 3, section 5.3.4).

    Parameters
    ----------
    predictions : float32 (all models, n, n_genes); rows : int (M,), the models that count
    table : float64 (M + 1, M), by number of values that are there; total : float64 (M + 1,)
    out : float32 (n, n_genes), NaN where nothing is there
    """
    n_models, n_genes = rows.shape[0], predictions.shape[2]
    layers = np.empty((n_models, _STRIP), dtype=np.float32)
    sums = np.empty(_STRIP, dtype=np.float64)
    for i in range(predictions.shape[1]):
        for start in range(0, n_genes, _STRIP):
            size = min(_STRIP, n_genes - start)
            missing = 0
            for m in range(n_models):
                values, layer = predictions[rows[m], i, start : start + size], layers[m]
                for g in range(size):
                    lacks = values[g] != values[g]
                    missing += lacks
                    layer[g] = np.float32(np.inf) if lacks else values[g]
            for turn in range(n_models):
                for m in range(turn % 2, n_models - 1, 2):
                    low, high = layers[m], layers[m + 1]
                    for g in range(size):
                        a, b = low[g], high[g]
                        low[g] = b if b < a else a
                        high[g] = a if b < a else b
            if not missing:
                sums[:] = 0.0
                for m in range(n_models):
                    weight, layer = table[n_models, m], layers[m]
                    if weight != 0.0:
                        for g in range(size):
                            sums[g] += weight * layer[g]
                for g in range(size):
                    out[i, start + g] = sums[g] / total[n_models]
                continue
            for g in range(size):
                count, value = 0, 0.0
                for m in range(n_models):
                    p = predictions[rows[m], i, start + g]
                    count += p == p
                for m in range(count):
                    if table[count, m] != 0.0:
                        value += table[count, m] * layers[m, g]
                out[i, start + g] = value / total[count] if count else np.nan


def statistic_of(predictions: Float32, rows: Any, statistic: Statistic) -> Float32:
    """An L-statistic per sample and gene over some models, (n, n_genes) float32; taken over those that predict the
    cell, NaN where none does.

    Parameters
    ----------
    predictions : (all models, n, n_genes), treated scale.
    rows : positions, on the first axis, of the models that take part.
    statistic : gives the weight of each place of the sorted values.
    """
    n_models = len(rows)
    table, total = np.zeros((n_models + 1, n_models)), np.ones(n_models + 1)
    for count in range(1, n_models + 1):
        table[count, :count] = statistic.places(count)
        total[count] = table[count].sum()
    out = np.empty(predictions.shape[1:], dtype=np.float32)
    over_sorted(np.ascontiguousarray(predictions), np.asarray(rows, dtype=np.int64), table, total, out)
    return out


@dataclass(frozen=True)
class RowStatistic(FittedCombiner):
    """A statistic over the available models of each sample and gene; NaN where no model predicts."""

    name: str
    models: tuple[str, ...]
    statistic: Statistic = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction, (n, n_genes). The same with any order of models."""
        return statistic_of(tile.predictions, self.rows_of(tile), self.statistic)

    def weights(self) -> dict[str, Any]:
        """Nothing was learned; the setting is all there is to say."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "facts": self.facts,
            "cautions": list(self.cautions),
        }


def at_either_end(cut: float, count: int) -> int:
    """Values that a share ``cut`` of ``count`` stands for at either end, rounded down; at least one value is left."""
    return min(int(cut * count + 1e-9), (count - 1) // 2)


@dataclass(frozen=True)
class MiddleMean(Statistic):
    """Mean of what is left after dropping ``floor(cut * count)`` smallest and as many largest; keeps at least one.

    ``cut`` 0 is the mean, 0.5 the median (the middle one, or the mean of the middle two).
    """

    cut: float

    def places(self, count: int) -> Places:
        drop = at_either_end(self.cut, count)
        weights = np.ones(count, dtype=np.int64)
        weights[:drop] = weights[count - drop :] = 0
        return weights
