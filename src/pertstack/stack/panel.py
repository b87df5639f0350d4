"""The no-harm panel: a combiner's paired gains over the best single model on several metrics, with their noise.

The primary metric must gain; the others must not lose beyond noise. Which combiner is then chosen is the business of
``choose.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, unknown_name
from pertstack.reduce.metrics.names import parse_metric
from pertstack.reduce.score_table import ScoreTable
from pertstack.stack.group_bootstrap import GroupSums
from pertstack.stack.sums import Array

NO_HARM: tuple[str, ...] = ("r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own")
"""Metrics on which a shipped combiner must not lose beyond noise (design section 8)."""


@dataclass(frozen=True)
class Gain:
    """A paired gain over the best single model; positive is better on every metric, also on errors."""

    metric: str
    value: float
    se: float
    lower: float  # one-sided bound at the panel's level
    upper: float  # one-sided bound at the panel's level
    slack: float = 0.0  # a loss up to this counts as equal, however surely it is one

    @property
    def lost(self) -> bool:
        """Worse beyond noise, and by more than what counts as equal."""
        return self.upper < -self.slack

    @property
    def gained(self) -> bool:
        """Better beyond noise."""
        return self.lower > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric, "value": self.value, "se": self.se, "lower": self.lower, "upper": self.upper,
            "slack": self.slack,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.metric} {self.value:+.4f} (s.e. {self.se:.4f}, bounds {self.lower:+.4f} to {self.upper:+.4f})"


@dataclass(frozen=True)
class Panel:
    """Gains of every candidate on the primary metric and the no-harm metrics, from one set of group resamples."""

    names: tuple[str, ...]
    metrics: tuple[str, ...]  # primary first
    gains: dict[str, tuple[Gain, ...]]  # name -> gain per metric
    primary: Array  # (n_names,) signed so that larger is better
    draws: Array  # (n_draws, n_names) of the primary, same sign
    outside: Array  # (n_draws, n_names) over the groups a draw left out
    n_groups: int

    @classmethod
    def of(
        cls,
        table: ScoreTable,
        names: Sequence[str],
        against: str,
        metrics: Sequence[str],
        *,
        level: float,
        n_draws: int,
        seed: int,
        tolerance: float = 0.0,
    ) -> Panel:
        """Resample groups of the score table; ``metrics`` has the primary first and must be in the table.

        ``tolerance`` is the share of the best single model's score by which the metrics beside the primary may fall.
        """
        for name in (*names, against):
            if name not in table.names:
                raise unknown_name("model or combiner", name, table.names)
        if len(table.samples) == 0:
            raise InputError("The score table holds no samples, so nothing can be compared.")
        spelled = tuple(dict.fromkeys(parse_metric(m).name for m in metrics))
        rows = [table.names.index(n) for n in names]
        columns = [table.column(m) for m in spelled]
        sign = np.array([1.0 if parse_metric(m).higher_is_better else -1.0 for m in spelled])
        sums = GroupSums.of(table.values_by_name[np.ix_(rows, columns)], table.samples["group"])
        draws, outside = sums.resampled(n_draws, seed, outside=True)
        assert outside is not None
        at = list(names).index(against)
        means, draws, outside = sums.means() * sign, draws * sign, outside[:, :, 0] * sign[0]
        gain, spread = means - means[at], draws - draws[:, at : at + 1]
        bounds = np.quantile(spread, [level, 1 - level], axis=0)
        se = spread.std(axis=0, ddof=1)
        slack = tolerance * np.abs(means[at]) * (np.arange(len(spelled)) > 0)
        facts = np.stack([gain, se, bounds[0], bounds[1], np.broadcast_to(slack, gain.shape)], axis=2)
        gains = {
            name: tuple(Gain(m, *facts[i, j].tolist()) for j, m in enumerate(spelled)) for i, name in enumerate(names)
        }
        return cls(tuple(names), spelled, gains, means[:, 0], draws[:, :, 0], outside, sums.n_groups)

    def score(self, name: str) -> float:
        """Primary score, larger is better."""
        return float(self.primary[self.names.index(name)])

    def se_between(self, first: str, second: str) -> float:
        """Standard error of the paired difference of two primary scores."""
        a, b = self.names.index(first), self.names.index(second)
        return float((self.draws[:, a] - self.draws[:, b]).std(ddof=1))

    def losses(self, name: str) -> list[Gain]:
        """Metrics beside the primary on which this name loses beyond noise."""
        return [g for g in self.gains[name][1:] if g.lost]

    def optimism(self, names: Sequence[str]) -> float:
        """By how much "the best of these" looks better than it is on new groups, at least 0 (BBC-CV; methods F10).

        In every resample the best is chosen inside and judged on the groups left out; what it is ahead of the average
        candidate there, on average over resamples, is the honest advantage, and the optimism is what the best shows
        beyond it on all groups. Tsamardinos, Greasidou, Borboudakis (2018), Machine Learning 107:1895.
        """
        if len(names) < 2 or self.n_groups < 3:
            return 0.0
        at = np.array([self.names.index(n) for n in names])
        inside, beyond, rows = self.draws[:, at], self.outside[:, at], np.arange(len(self.draws))
        honest = (beyond[rows, inside.argmax(axis=1)] - beyond.mean(axis=1)).mean()
        shown = self.primary[at].max() - self.primary[at].mean()
        return float(max(shown - honest, 0.0))
