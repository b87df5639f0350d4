"""Streamed sums of a regression of profiles on row features: X'X and X'Y of each fold, never the rows.

Centred within the fold and merged tile by tile, in float64. What is regressed on what is handled by
``stacking/experimental/embedding_ridge.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pertstack.stacking.sums import Array


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """Sums over rows of features x (F) and targets y (G); memory F x (F + G), whatever the number of rows."""

    count: float
    mean_x: Array  # (F,)
    mean_y: Array  # (G,)
    xx: Array  # (F, F) centred
    xy: Array  # (F, G) centred
    yy: float  # centred, over all targets

    @classmethod
    def empty(cls, n_features: int, n_targets: int) -> FeatureSums:
        return cls(
            0.0,
            np.zeros(n_features),
            np.zeros(n_targets),
            xx=np.zeros((n_features, n_features)),
            xy=np.zeros((n_features, n_targets)),
            yy=0.0,
        )

    @classmethod
    def of(cls, x: Array, y: Array) -> FeatureSums:
        """Sums of rows (n, F) and (n, G)."""
        if not len(x):
            return cls.empty(x.shape[1], y.shape[1])
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
        dx, dy = x - mean_x, y - mean_y
        return cls(float(len(x)), mean_x, mean_y, xx=dx.T @ dx, xy=dx.T @ dy, yy=float(np.square(dy).sum()))

    def merge(self, other: FeatureSums) -> FeatureSums:
        """Sums of both row sets together; empty sums change nothing."""
        if other.count == 0 or self.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        weight, share = self.count * other.count / count, other.count / count
        step_x, step_y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        return FeatureSums(
            count,
            self.mean_x + share * step_x,
            self.mean_y + share * step_y,
            xx=self.xx + other.xx + weight * np.outer(step_x, step_x),
            xy=self.xy + other.xy + weight * np.outer(step_x, step_y),
            yy=self.yy + other.yy + weight * float(np.square(step_y).sum()),
        )

    def around(self, at_x: Array, at_y: Array) -> tuple[Array, Array, float]:
        """X'X, X'Y and Y'Y about other points than the means."""
        step_x, step_y = self.mean_x - at_x, self.mean_y - at_y
        return (
            self.xx + self.count * np.outer(step_x, step_x),
            self.xy + self.count * np.outer(step_x, step_y),
            self.yy + self.count * float(np.square(step_y).sum()),
        )


def merge_folds(parts: Sequence[FeatureSums]) -> FeatureSums:
    """Sums over folds, scatter within folds only: differences between fold means, which cross-fitting turns against the
    truth (``sums.merge_within``), stay out of the slopes. The means are those of all rows."""
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    xx, xy = np.sum([p.xx for p in parts], axis=0), np.sum([p.xy for p in parts], axis=0)
    return FeatureSums(total.count, total.mean_x, total.mean_y, xx=xx, xy=xy, yy=float(sum(p.yy for p in parts)))
