"""Bootstrap over whole groups from per-group sums: every name, every metric, the same draws.

Used for choosing among combiners on out-of-fold rows. Intervals on the held-out test are the business of ``verdict/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack.stacking.sums import Array

_CELLS = 4_000_000  # draws x groups held at once


@dataclass(frozen=True)
class GroupSums:
    """Sum and count of defined values per group for each name and metric.

    Means over samples of any resample of groups are ratios of resampled sums, exactly the reported mean.
    """

    total: Array  # (n_groups, n_names, n_metrics)
    count: Array  # (n_groups, n_names, n_metrics)

    @property
    def n_groups(self) -> int:
        return int(self.total.shape[0])

    @classmethod
    def of(cls, values: np.ndarray[Any, Any], groups: Any) -> GroupSums:
        """From values (n_names, n_metrics, n_samples), NaN where undefined, and the samples' group labels."""
        codes, labels = pd.factorize(np.asarray(groups, dtype=object), sort=True)
        defined = ~np.isnan(values)
        shape = (len(labels), *values.shape[:2])
        total, count = np.zeros(shape), np.zeros(shape)
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                good = defined[i, j]
                total[:, i, j] = np.bincount(codes[good], values[i, j][good].astype(np.float64), len(labels))
                count[:, i, j] = np.bincount(codes[good], minlength=len(labels))
        return cls(total, count)

    def means(self) -> Array:
        """Means over the samples themselves, (n_names, n_metrics); 0.0 where nothing is defined."""
        return _ratio(self.total.sum(axis=0), self.count.sum(axis=0))

    def resampled(self, n_draws: int, seed: int, *, outside: bool = False) -> tuple[Array, Array | None]:
        """Means under resampling of groups with replacement, (n_draws, n_names, n_metrics).

        With ``outside``, also the means over the groups that a draw left out. Multinomial counts on per-group sums;
        equal seeds give equal bits, however many draws are held at once.
        """
        rng = np.random.default_rng(seed)
        n, shape = self.n_groups, self.total.shape[1:]
        flat_total, flat_count = self.total.reshape(n, -1), self.count.reshape(n, -1)
        inside, beyond = [], []
        share = np.full(n, 1.0 / n)
        step = max(1, _CELLS // max(n, 1))
        for start in range(0, n_draws, step):
            times = rng.multinomial(n, share, size=min(step, n_draws - start)).astype(np.float64)
            inside.append(_ratio(times @ flat_total, times @ flat_count))
            if outside:
                left = (times == 0).astype(np.float64)
                beyond.append(_ratio(left @ flat_total, left @ flat_count))
        means = np.concatenate(inside).reshape(n_draws, *shape)
        return means, np.concatenate(beyond).reshape(n_draws, *shape) if outside else None


def _ratio(total: Array, count: Array) -> Array:
    return np.asarray(np.divide(total, count, out=np.zeros_like(total), where=count > 0))
