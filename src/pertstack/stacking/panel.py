"""The no-harm panel: a combiner's gains over the best single model on several metrics, with their noise.

The primary metric must gain; the others must not lose beyond noise, or must be shown not to be worse. Which combiner is
then chosen is decided in ``stacking/choose.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, unknown_name
from pertstack._stats.group_means import GroupMeans, standard_errors
from pertstack._stats.shared_parts import Parts, Shared
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.sums import Array

NO_HARM: tuple[str, ...] = ("r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own")
"""Metrics on which a shipped combiner must not lose beyond noise."""
ALL_SIGNS = 12  # up to this many groups, every pattern of signs is taken


@dataclass(frozen=True)
class Gain:
    """A gain over the best single model; positive is better on every metric, also on errors."""

    metric: str
    value: float
    se: float
    lower: float  # one-sided bound at the panel's level
    upper: float  # one-sided bound at the panel's level
    slack: float = 0.0  # a loss up to this counts as equal, however surely it is one
    votes: bool = True  # False where a constant beats a replicate on this metric: a loss says nothing

    @property
    def lost(self) -> bool:
        """Worse beyond noise, and by more than what counts as equal."""
        return self.votes and self.upper < -self.slack

    @property
    def not_inferior(self) -> bool:
        """Shown to lose no more than what counts as equal, or without a vote."""
        return not self.votes or self.lower > -self.slack

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "value": self.value,
            "se": self.se,
            "lower": self.lower,
            "upper": self.upper,
            "slack": self.slack,
            "votes": self.votes,
        }

    def __str__(self) -> str:
        return f"{self.metric} {self.value:+.4f} (s.e. {self.se:.4f}, bounds {self.lower:+.4f} to {self.upper:+.4f})"


@dataclass(frozen=True)
class Panel:
    """Gains of every candidate on the primary metric and the no-harm metrics, whole groups being the unit.

    ``pull`` holds what every group adds to a gain on the primary metric, beyond its mean (linearised): a standard error
    is the square root of the sum of its squares, times n / (n - 1).
    """

    names: tuple[str, ...]
    metrics: tuple[str, ...]  # primary first
    gains: dict[str, tuple[Gain, ...]]  # name -> gain per metric
    primary: Array  # (n_names,) signed so that larger is better
    pull: Array  # (n_names, n_groups) of the primary, same sign
    share: Array  # (n_names, n_groups) of the values
    n_groups: int
    shared: Shared | None = None  # groups that are combinations with a part in common vary together

    @classmethod
    def of(
        cls,
        table: ScoreTable,
        names: Sequence[str],
        against: str,
        *,
        metrics: Sequence[str],
        level: float,
        tolerance: float = 0.0,
        ranges: Mapping[str, float] | None = None,
        parts: Parts | None = None,
        no_vote: Collection[str] = (),
    ) -> Panel:
        """Gains from a score table.

        Bounds are of t with one degree of freedom less than there are groups; none for one.

        Parameters
        ----------
        table : scores of out-of-fold rows.
        names : models and combiners to compare, ``against`` among them.
        against : the best single model.
        metrics : the primary first; all in the table.
        level : one-sided level of every bound.
        tolerance : share of a metric's range that counts as equal.
        ranges : metric -> distance from the mean of the other perturbations to a perfect score; without it, the
            distance of ``against`` to a perfect score.
        parts : of groups that share some, which widens every error (``_stats/shared_parts.py``).
        no_vote : metrics on which a loss says nothing (``reduce.scoring.calibration.without_vote``).

        Raises
        ------
        InputError
            The table holds no samples.
        UnknownNameError
            The table lacks a name or metric.
        """
        for name in (*names, against):
            if name not in table.names:
                raise unknown_name("model or combiner", name, table.names)
        if len(table.samples) == 0:
            raise InputError("The score table holds no samples, so nothing can be compared.")
        spelled = tuple(dict.fromkeys(parse_metric(m).name for m in metrics))
        rows, groups = [table.names.index(n) for n in names], table.samples["group"].to_numpy()
        at = list(names).index(against)
        gains: dict[str, list[Gain]] = {name: [] for name in names}
        primary, kept, share, shared = np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0)), None
        n_groups = len(set(map(str, groups)))
        for j, metric in enumerate(spelled):
            parsed = parse_metric(metric)
            sign = 1.0 if parsed.higher_is_better else -1.0
            found = GroupMeans.of(table.values_by_name[rows, table.column(metric)], groups)
            means, pull = sign * np.nan_to_num(found.means), sign * found.pull
            width = (ranges or {}).get(metric, abs(parsed.perfect - sign * means[at]))
            slack = tolerance * width
            shared = found.sharing(parts)
            error = standard_errors(pull - pull[at], n_groups, found.share, shared)
            reach = _quantile(level, n_groups) * error
            for i, name in enumerate(names):
                gain = means[i] - means[at]
                gains[name].append(
                    Gain(
                        metric,
                        float(gain),
                        float(error[i]),
                        lower=float(gain - reach[i]),
                        upper=float(gain + reach[i]),
                        slack=slack,
                        votes=metric not in no_vote,
                    )
                )
            if j == 0:
                primary, kept, share = means, pull, found.share
        return cls(
            tuple(names),
            spelled,
            {k: tuple(v) for k, v in gains.items()},
            primary=primary,
            pull=kept,
            share=share,
            n_groups=n_groups,
            shared=shared,
        )

    def score(self, name: str) -> float:
        """Primary score, larger is better."""
        return float(self.primary[self.names.index(name)])

    def se_between(self, first: str, second: str) -> float:
        """Standard error of the difference of two primary scores."""
        a, b = self.names.index(first), self.names.index(second)
        pull = self.pull[[a]] - self.pull[[b]]
        return float(standard_errors(pull, self.n_groups, self.share[[a]], self.shared)[0])

    def losses(self, name: str) -> list[Gain]:
        """Metrics beside the primary on which this name loses beyond noise."""
        return [g for g in self.gains[name][1:] if g.lost]

    def inferior(self, name: str) -> list[Gain]:
        """Metrics, the primary included, on which this name is not shown to be as good as the best single model."""
        return [g for g in self.gains[name] if not g.not_inferior]

    def critical(self, names: Sequence[str], against: str, level: float, *, n_draws: int, seed: int) -> float:
        """How many standard errors a gain must be above zero, when several are tried and the best may be taken.

        The ``1 - level`` quantile of the largest studentised gain among them when the signs of whole groups are flipped
        (Westfall and Young 1993). At least the quantile of t for one candidate; infinite with one group.

        Parameters
        ----------
        names : the candidates, all in the panel.
        against : what they are compared with.
        level : one-sided, of all candidates together.
        n_draws : of signs; all patterns are taken up to ``ALL_SIGNS`` groups.
        seed : of the draws.
        """
        alone = _quantile(level, self.n_groups)
        if not names or not np.isfinite(alone):
            return alone
        at = [self.names.index(n) for n in names]
        pull = self.pull[at] - self.pull[self.names.index(against)]
        signs = _signs(self.n_groups, n_draws, np.random.default_rng([seed, 11]))
        total, square = signs @ pull.T, (pull**2).sum(axis=1)
        n = self.n_groups
        error = np.sqrt(np.maximum(square - total**2 / n, 0.0) * n / (n - 1))
        t = np.divide(total, error, out=np.zeros_like(total), where=error > 1e-12 * np.sqrt(square + 1e-300))
        return float(max(alone, np.quantile(t.max(axis=1), 1 - level)))


def _quantile(level: float, n_groups: int) -> float:
    from scipy import stats  # slow to import

    return float(stats.t.ppf(1 - level, n_groups - 1)) if n_groups > 1 else float("inf")


def _signs(n_groups: int, n_draws: int, rng: np.random.Generator) -> Array:
    """(draws, n_groups) of -1 and 1."""
    if n_groups <= ALL_SIGNS:
        return np.asarray(1.0 - 2.0 * ((np.arange(2**n_groups)[:, None] >> np.arange(n_groups)) & 1))
    return np.asarray(rng.choice(np.array([-1.0, 1.0]), size=(n_draws, n_groups)))
