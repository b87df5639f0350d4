"""The verdict's inference in the shape ``setting.py`` asks for: one seed, one level, whole groups drawn.

Every call starts from the same seed, so all rows and metrics meet the same resamples and nothing depends on the order
of calls. The statistics are in ``_stats/intervals.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.arrays import Array
from pertstack._stats.estimate import Difference
from pertstack._stats.intervals import RESAMPLES, Estimate, difference_to_best, intervals
from pertstack._stats.multiple import ConfidenceSet, bbc, max_t, model_confidence_set
from pertstack._stats.shared_parts import Parts, keys_of


@dataclass(frozen=True)
class GroupResampling:
    """Cluster bootstrap over groups, exact sign flips if there are few (``inference.FEW``)."""

    seed: int = 0
    level: float = 0.95
    resamples: int = RESAMPLES
    parts: Parts | None = None
    """Group -> parts of the combination it is, where some share a part and so vary together; None elsewhere."""

    @property
    def facts(self) -> dict[str, Any]:
        """Printed under the table and kept in ``leaderboard.json``."""
        return {
            "level": self.level,
            "resamples": self.resamples,
            "method": "whole groups, studentised; few: sign flips",
        }

    def intervals(self, values: Array, groups: Array) -> list[tuple[float, float] | None]:
        """One interval per row of ``values`` (n_names, n); None if it cannot be had."""
        return [e.ci for e in self._estimates(values, groups)]

    def compare(self, first: Array, second: Array, groups: Array) -> Difference:
        """Paired difference of two rows (n,) over the samples on which both are defined."""
        return self.differences(np.asarray(first)[None], second, groups)[0]

    def differences(self, values: Array, second: Array, groups: Array) -> list[Difference]:
        """Paired differences of every row of ``values`` (n_names, n) to one row (n,)."""
        paired = np.asarray(values, dtype=np.float64) - np.asarray(second, dtype=np.float64)
        return [_difference(e) for e in self._estimates(paired, groups)]

    def versus_best(self, values: Array, candidates: Array, groups: Array, *, sign: int) -> list[Difference]:
        """Every row minus the best of the ``candidates``, whichever that is; bounds hold against all of them."""
        found = difference_to_best(
            values,
            candidates,
            groups,
            rng=self._rng(),
            better=sign,
            level=self.level,
            resamples=self.resamples,
            parts=self.parts,
        )
        return [_difference(e) for e in found]

    def sharing(self, groups: Array) -> int:
        """How many of the groups share a part with another, which intervals count; 0 if none does, or if nearly
        all have one part, so that it cannot be told from the mean."""
        labels = np.unique(np.asarray(groups).astype(str)).tolist()
        shared = None if self.parts is None else keys_of(labels, self.parts)
        return 0 if shared is None or not shared.told(len(labels)) else shared.n_sharing

    def confidence_set(self, values: Array, groups: Array, sign: int) -> ConfidenceSet | None:
        """Rows that cannot be told from the best; None with fewer than two groups."""
        if len(np.unique(groups)) < 2:
            return None
        return model_confidence_set(values, groups, rng=self._rng(), better=sign, **self._how)

    def simultaneous(self, differences: Array, groups: Array) -> list[Estimate]:
        """Simultaneous intervals of several paired differences."""
        return max_t(differences, groups, rng=self._rng(), **self._how)

    def best_of(self, values: Array, groups: Array, sign: int) -> Estimate | None:
        """What the best row scores on groups that did not choose it; None with fewer than two groups."""
        if len(np.unique(groups)) < 2:
            return None
        return bbc(values, groups, self._rng(), better=sign, **self._how)

    def _estimates(self, values: Array, groups: Array) -> list[Estimate]:
        if values.shape[1] == 0:
            return [
                Estimate(np.nan, -np.inf, np.inf, p=None, n_clusters=0, n=0, method="none", level=self.level)
                for _ in values
            ]
        return intervals(values, groups, rng=self._rng(), **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        return {"level": self.level, "resamples": self.resamples, "parts": self.parts}

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def _difference(estimate: Estimate) -> Difference:
    if not np.isfinite(estimate.value):
        return Difference(None, None, None, n=estimate.n, n_groups=estimate.n_clusters)
    return Difference(estimate.value, estimate.ci, estimate.p, n=estimate.n, n_groups=estimate.n_clusters)
