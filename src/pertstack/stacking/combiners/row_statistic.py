"""Fitted combiners that take one number from the sorted predictions of each sample and gene: median, trimmed mean.

They learn nothing, and where some models are missing they use those that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertstack.data.rows import Float32
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import FittedCombiner, availability

Statistic = Callable[[Float32, Any], Float32]
"""(predictions sorted along models with missing ones last, number of available models) -> combined."""


_FEW = 8  # models up to which comparing whole layers beats sorting each gene of each sample


def sorted_over_models(values: Float32) -> Float32:
    """Values (M, n, n_genes) sorted along models, NaN last: ``np.sort(values, axis=0)``, for few models much faster.

    Neighbouring layers are compared and exchanged M times over (odd-even transposition sort: Knuth, The Art of Computer
    Programming 3, section 5.3.4), each time for all samples and genes at once.
    """
    if len(values) > _FEW or np.isnan(values).any():
        return np.sort(values, axis=0)
    layers = list(values)
    for turn in range(len(layers)):
        for i in range(turn % 2, len(layers) - 1, 2):
            low, high = layers[i], layers[i + 1]
            layers[i], layers[i + 1] = np.minimum(low, high), np.maximum(low, high)
    return np.stack(layers)


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
        rows = self.rows_of(tile)
        there = availability(tile, rows)
        predictions = tile.predictions[rows]
        if there is None:
            count: Any = len(rows)
        else:
            predictions = np.where(there, predictions, np.inf)
            count = there.sum(axis=0)
        combined = self.statistic(sorted_over_models(predictions), np.maximum(count, 1))
        return np.asarray(np.where(np.asarray(count) > 0, combined, np.nan), dtype=np.float32)

    def weights(self) -> dict[str, Any]:
        """Nothing was learned; the setting is all there is to say."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "facts": self.facts,
            "cautions": list(self.cautions),
        }


@dataclass(frozen=True)
class MiddleMean:
    """Mean of what is left after dropping ``floor(cut * count)`` smallest and as many largest; keeps at least one.

    ``cut`` 0 is the mean, 0.5 the median (the middle one, or the mean of the middle two).
    """

    cut: float

    def __call__(self, ordered: Float32, count: Any) -> Float32:
        wanted = np.floor(self.cut * np.asarray(count) + 1e-9).astype(np.int64)
        drop = np.minimum(wanted, (np.asarray(count) - 1) // 2)
        place = np.arange(ordered.shape[0]).reshape(-1, *([1] * (ordered.ndim - 1)))
        keep = (place >= drop) & (place < count - drop)
        total = np.where(keep, ordered, np.float32(0)).sum(axis=0, dtype=np.float64)
        return np.asarray(total / (np.asarray(count) - 2 * drop), dtype=np.float32)
