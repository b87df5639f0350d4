"""A cluster bootstrap written as plain loops: the slow, obvious answer the verdict's tests compare with or run on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from pertstack._stats.estimate import Difference
from pertstack._stats.multiple import bbc, max_t, model_confidence_set


class PlainResampling:
    """Draws whole groups with replacement, one resample at a time, and takes percentiles."""

    def __init__(self, resamples: int = 200, seed: int = 0, level: float = 0.95) -> None:
        self.resamples, self.seed, self.level = resamples, seed, level

    @property
    def facts(self) -> dict[str, Any]:
        return {"level": self.level, "resamples": self.resamples, "method": "plain percentile"}

    def _draws(self, groups):
        return _draws(tuple(groups), self.resamples, self.seed)

    def _ci(self, values):
        values = [v for v in values if np.isfinite(v)]
        if not values:
            return None
        tail = 100 * (1 - self.level) / 2
        return float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail))

    def intervals(self, values, groups):
        means = [[_mean(row[take]) for take in self._draws(groups)] for row in values]
        return [self._ci(m) for m in means]

    def compare(self, first, second, groups):
        return self._difference(np.asarray(first) - np.asarray(second), groups)

    def differences(self, values, second, groups):
        return [self.compare(row, second, groups) for row in values]

    def _difference(self, d, groups):
        fine = np.isfinite(d)
        if not fine.any():
            return Difference(None)
        d, groups = d[fine], np.asarray(groups)[fine]
        n_groups = len(set(groups))
        ci = self._ci([d[take].mean() for take in self._draws(groups)]) if n_groups > 4 else None
        return Difference(float(d.mean()), ci, None, len(d), n_groups)

    def confidence_set(self, values, groups, sign):
        return model_confidence_set(values, groups, rng=np.random.default_rng(self.seed), better=sign, resamples=200)

    def simultaneous(self, differences, groups):
        return max_t(differences, groups, rng=np.random.default_rng(self.seed), resamples=200)

    def best_of(self, values, groups, sign):
        return bbc(values, groups, np.random.default_rng(self.seed), better=sign, resamples=200)

    def sharing(self, groups):
        return 0

    def versus_best(self, values, candidates, groups, sign):
        answers = []
        for row in values:
            best = max(sign * _mean(values[j]) for j in np.flatnonzero(candidates) if np.isfinite(_mean(values[j])))
            here = _mean(row)
            if not np.isfinite(here):
                answers.append(Difference(None))
                continue
            draws = [
                _mean(row[take]) - sign * max(sign * _mean(values[j][take]) for j in np.flatnonzero(candidates))
                for take in self._draws(groups)
            ]
            n = int(np.isfinite(row).sum())
            answers.append(Difference(here - sign * best, self._ci(draws), None, n, len(set(groups))))
        return answers


@lru_cache(64)
def _draws(groups, resamples, seed):
    """The rows of each resample."""
    rng = np.random.default_rng(seed)
    names = sorted(set(groups))
    rows = {g: np.flatnonzero(np.asarray(groups) == g) for g in names}
    picked = (rng.integers(0, len(names), len(names)) for _ in range(resamples))
    return [np.concatenate([rows[names[i]] for i in p]) for p in picked]


def _mean(x):
    x = x[np.isfinite(x)]
    return float(x.mean()) if len(x) else float("nan")
