"""Can a metric tell the same condition measured again from a constant? Two numbers per metric, and which one decides.

The positive control is the condition measured again (other replicates, the other half of the cells), the negative one
the mean of the other perturbations. DRF says how far along from the negative control to a perfect score the positive
one comes; BDS, in which share of the conditions it wins. A metric on which the truth measured twice does not beat a
constant cannot decide between models. How the controls are made and scored is in ``controls.py``.

References: Miller et al. 2025 (dynamic range fraction, interpolated duplicate); Vollenweider and Buehlmann 2026 (bound
discrimination score); Mejia et al. 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack._stats.group_means import GroupMeans
from pertstack._stats.shared_parts import Parts
from pertstack.design.metric_names import Metric, parse_metric

AUTO_ORDER: tuple[str, ...] = (
    "r2_top20@pooled",
    "pearson_all@pooled",
    "pearson_all@centroid",
    "pearson_exp2@others",
    "centroid_accuracy@pooled",
)
"""Declared order in which a primary metric is looked for: the founding number without the shared control, correlation
of all changes, agreement beyond the mean response, the weighted correlation of Vollenweider and Buehlmann, retrieval.
"""
CHANCE = 0.5
"""Share of conditions in which a metric that tells nothing lets the positive control win."""
_EPSILON = 1e-6  # in the denominator, as in the tools that people compare with
Interval = tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """One metric on the positive and the negative control.

    ``n`` conditions have a positive control, in ``n_groups`` groups. Intervals are None below two groups; every value
    is None if no condition has a positive control.
    """

    metric: str
    n: int
    n_groups: int
    positive: float | None
    negative: float | None
    drf: float | None
    drf_ci: Interval | None
    bds: float | None
    bds_ci: Interval | None

    @property
    def passes(self) -> bool:
        """Whether this metric may decide: BDS beyond chance by its interval, and a DRF above zero."""
        return self.bds_ci is not None and self.drf is not None and self.bds_ci[0] > CHANCE and self.drf > 0

    @property
    def fails(self) -> bool:
        """Whether a constant is shown to beat the replicate: BDS below chance by its interval, and a DRF below zero."""
        return self.bds_ci is not None and self.drf is not None and self.bds_ci[1] < CHANCE and self.drf < 0

    @property
    def range(self) -> float | None:
        """Distance from the negative control to a perfect score; None if the negative control is undefined."""
        return None if self.negative is None else abs(parse_metric(self.metric).perfect - self.negative)

    @property
    def known(self) -> bool:
        """Whether there was anything to calibrate with."""
        return self.bds is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        facts = asdict(self) | {"passes": self.passes}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """What ``to_json`` wrote."""
        facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k != "passes"}
        return cls(**facts)


def dynamic_range_fraction(positive: Float64, negative: Float64, perfect: float, *, higher: bool) -> Float64:
    """Per condition, (positive - negative) / (perfect - negative), clipped to [-1, 1].

    NaN where a control is undefined or the negative one is beyond perfect.

    Parameters
    ----------
    positive, negative : (n,), the metric on the positive and negative control of each condition.
    perfect : value of a perfect prediction.
    higher : whether more is better.

    Examples
    --------
    >>> dynamic_range_fraction(np.array([0.75, 0.0]), np.array([0.5, 0.5]), 1.0, higher=True).round(3).tolist()
    [0.5, -1.0]
    """
    step, room = (positive - negative, perfect - negative) if higher else (negative - positive, negative - perfect)
    fraction = np.clip(step / np.where(room < 0, np.nan, room + _EPSILON), -1.0, 1.0)
    return np.asarray(fraction, dtype=np.float64)


def bound_discrimination(positive: Float64, negative: Float64, *, higher: bool) -> Float64:
    """Per condition 1.0 where the positive control is strictly better, else 0.0; a tie or a NaN is no win.

    Parameters
    ----------
    positive, negative : (n,), the metric on either control of each condition.
    higher : whether more is better.
    """
    won = positive > negative if higher else positive < negative
    return np.asarray(won, dtype=np.float64)


def calibrate(
    metric: str, positive: Float64, negative: Float64, *, conditions: Any, groups: Any, parts: Parts | None = None
) -> Calibration:
    """Calibrate one metric.

    Parameters
    ----------
    metric : name; says which way is better and what is perfect.
    positive, negative : arrays, shape (n,)
        Value of every sample for both controls, NaN where undefined.
    conditions, groups : arrays, shape (n,)
        Samples of a condition are averaged first; whole groups are resampled.
    parts : of groups that share some, which widens the intervals (``_stats/shared_parts.py``).
    """
    parsed = parse_metric(metric)
    frame = pd.DataFrame({"p": positive, "n": negative, "c": np.asarray(conditions), "g": np.asarray(groups)})
    each = frame.dropna(subset=["n"]).groupby("c", sort=True).agg({"p": "mean", "n": "mean", "g": "first"})
    each = each.dropna(subset=["p"])
    n_groups = int(each["g"].nunique())
    if len(each) == 0:
        known = frame["n"].mean()
        return Calibration(parsed.name, 0, 0, None, float(known) if np.isfinite(known) else None, *[None] * 4)
    pos, neg = each["p"].to_numpy(np.float64), each["n"].to_numpy(np.float64)
    drf = dynamic_range_fraction(pos, neg, parsed.perfect, higher=parsed.higher_is_better)
    won = bound_discrimination(pos, neg, higher=parsed.higher_is_better)
    value, drf_ci = mean_interval(drf, each["g"].to_numpy(), parts=parts)
    share, bds_ci = share_interval(won, each["g"].to_numpy(), parts=parts)
    return Calibration(
        parsed.name,
        len(each),
        n_groups,
        positive=float(pos.mean()),
        negative=float(neg.mean()),
        drf=value,
        drf_ci=drf_ci,
        bds=share,
        bds_ci=bds_ci,
    )


def mean_interval(
    values: Float64, groups: Any, level: float = 0.95, *, parts: Parts | None = None
) -> tuple[float | None, Interval | None]:
    """Mean of defined values and its t interval, from the spread between groups; None below one value, two groups.

    Parameters
    ----------
    values : (n,), NaN where undefined.
    groups : (n,) labels.
    level : of the interval.
    parts : of groups that share some.
    """
    found = GroupMeans.of(values, groups)
    n_groups = int(found.n_groups[0])
    if n_groups == 0:
        return None, None
    mean = float(found.means[0])
    if n_groups < 2:
        return mean, None
    reach = _quantile(level, n_groups) * float(found.errors(parts)[0])
    return mean, (mean - reach, mean + reach)


def _quantile(level: float, n_groups: int) -> float:
    """Half the width of a two-sided t interval in standard errors."""
    from scipy import stats  # slow to import

    return float(stats.t.ppf(0.5 + level / 2, n_groups - 1))


def share_interval(
    won: Float64, groups: Any, level: float = 0.95, *, parts: Parts | None = None
) -> tuple[float, Interval | None]:
    """Share of ones and its interval, at the number of independent conditions that the groups are worth.

    That number is p (1 - p) over the squared standard error between groups, at most the number of conditions; the
    interval is Wilson's with the quantile of t, one degree of freedom less than groups. Where all groups agree no
    spread is seen: then it is the exact one for as many conditions as groups. Wilson (1927) JASA 22:209; Clopper and
    Pearson (1934) Biometrika 26:404.

    Parameters
    ----------
    won : (n,), 0 or 1 per condition.
    groups : (n,) labels; one group gives no interval.
    level : of the interval.
    parts : of groups that share some.
    """
    found = GroupMeans.of(won, groups)
    share, n_groups, error = float(found.means[0]), int(found.n_groups[0]), float(found.errors(parts)[0])
    if n_groups < 2:
        return share, None
    if error <= 1e-12:
        least = float(((1 - level) / 2) ** (1 / n_groups))
        return share, (least, 1.0) if share > CHANCE else (0.0, 1 - least)
    n = min(share * (1 - share) / error**2, float(len(won)))
    z2 = _quantile(level, n_groups) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    return share, (max(0.0, float(centre - reach)), min(1.0, float(centre + reach)))


def interpolated_duplicate(again: Float64, p_adjusted: Float64, others: Float64) -> Float64:
    """A positive control for noisy duplicates: (1 - p) * again + p * others, per gene the duplicate as far as it is
    significant, else the mean (Miller et al. 2025).

    Parameters
    ----------
    again : (n, n_genes), the conditions measured again.
    p_adjusted : (n, n_genes), that measurement tested against all other perturbations.
    others : (n_genes,) or (n, n_genes), the mean of these.
    """
    return np.asarray((1.0 - p_adjusted) * again + p_adjusted * others)


def without_vote(found: Mapping[str, Calibration], primary: str) -> dict[str, Calibration]:
    """Metrics on which a gain or a loss says nothing, because a constant is shown to beat a replicate on them.

    None if the primary does not pass itself: then no metric has earned the say over the others. Errors over all
    genes keep their vote: measurement noise adds the same to the expected squared error of either prediction, so their
    difference needs no replicate to be read. So does correlation within plates, which guards against the plate.

    Parameters
    ----------
    found : calibrations by metric.
    primary : the deciding metric.
    """
    main = found.get(parse_metric(primary).name)
    if main is None or not main.passes:
        return {}
    return {m: c for m, c in found.items() if c.fails and not _always_votes(parse_metric(m))}


def _always_votes(metric: Metric) -> bool:
    over_all = metric.top is None and metric.weighting in (None, "all")
    return metric.reference == "plate" or (metric.kind in ("rmse", "mae", "mse") and over_all)


def first_that_passes(order: Sequence[str], found: Mapping[str, Calibration]) -> str | None:
    """The first metric of a declared order that may decide, or None."""
    return next((m for m in order if (c := found.get(parse_metric(m).name)) is not None and c.passes), None)


def in_numbers(found: Calibration) -> str:
    """BDS, DRF and how many conditions, for people."""
    ci = "" if found.bds_ci is None else f" [{found.bds_ci[0]:.2f}, {found.bds_ci[1]:.2f}]"
    return f"BDS {found.bds:.2f}{ci}, DRF {found.drf:+.2f}, {found.n:,} conditions"
