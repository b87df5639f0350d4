"""What a name should score on rows to come: its out-of-fold scores, weighed to what is known of those rows.

The mean over scored rows answers for rows like them. Where the rows asked for differ in what the fits knew of them or
in how strong their parts act alone, scored rows like them count for more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack._base.shown import count_of
from pertstack._stats.shared_parts import Parts, Shared, keys_of, quantile_of_few, spread_of_mean
from pertstack.data.labels import perturbation_keys
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import need_metric, parse_metric
from pertstack.design.plan.asked import NEVER, SPEAK, Known
from pertstack.design.plan.groups import shared_parts
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.choice import BEST_SINGLE
from pertstack.study.folder import StudyFolder
from pertstack.study.new_rows.asked import both_sides
from pertstack.verdict.words import interval, number

Bounds = tuple[float, float]
RIDGE = 1e-3
"""Pull of the weights to equal ones, in units of a standard deviation squared: balance is then within a few hundredths
of one, and weights exist if the rows asked for lie outside of what was scored."""


@dataclass(frozen=True)
class Expected:
    """``value`` with its 95 % interval over groups, the plain mean, and how many rows speak in effect (Kish 1965).

    ``seen`` is where the mean over the samples asked for should lie once they are measured, 19 times of 20: beside the
    error of ``value`` it counts that they are a draw of ``n_asked`` groups. Both are None if the scored rows are of
    one group, whose spread says nothing about others.
    """

    name: str
    metric: str
    value: float
    ci: Bounds | None
    seen: Bounds | None
    n_asked: int
    plain: float
    n: int
    effective: float
    never: tuple[str, ...]  # kinds of row asked for that were never scored

    def in_words(self) -> str:
        """One sentence for the terminal."""
        said = (
            f"Expected of {self.name} on these samples: {metric_label(self.metric)} {number(self.value)} "
            f"{interval(self.ci) or '(no interval: all scored samples are of one group)'}, from out-of-fold scores "
            f"weighed to what is known of them (unweighed {number(self.plain)}; {self.effective:.0f} of {self.n:,} "
            f"scored samples speak in effect)."
        )
        if self.seen is not None:
            said += f" Measured on {count_of(self.n_asked, 'such group')} the mean should lie in {interval(self.seen)}."
        if self.never:
            said += f" It does not answer for {', '.join(self.never)}: never scored."
        elif self.effective < SPEAK * self.n:
            said += " Few scored samples are like these: a rough guide."
        return said


def expected_on(folder: StudyFolder, obs: pd.DataFrame, name: str) -> Expected | None:
    """What ``name`` should score on rows ``obs`` (as in a data file) on the deciding metric; None without scores.

    Both intervals take the weights as given.

    Parameters
    ----------
    folder : of a study that was stacked.
    obs : rows to be predicted, as in a data file; with ``training_distance`` if it is known.
    name : a combination or base model of the stack.
    """
    path = folder.results / "oof_scores.npz"
    if not path.exists():
        return None
    table, metric = ScoreTable.load(path), parse_metric(folder.analysis_plan.choice_metric).name
    known = name if name in table.names else BEST_SINGLE
    if metric not in table.metrics or known not in table.names or not len(obs):
        return None
    scored, asked = both_sides(folder, obs)
    order = folder.samples.index[folder.samples["role"] == "development"]
    weights = pd.Series(weights_toward(scored, asked), index=order.astype(str))
    values = np.asarray(table.values(known, need_metric(table.metrics, metric)), dtype=np.float64)
    mine = weights.reindex(table.samples["sample_id"].astype(str)).to_numpy()
    there = np.isfinite(values) & np.isfinite(mine)
    if not there.any():
        return None
    w = np.asarray(mine[there], dtype=np.float64)
    n_asked = len(set(asked.units))
    names = obs["perturbation"].astype(str).unique()
    among = [*folder.samples["perturbation"], *names]
    parts, keys = shared_parts(table.samples, among), perturbation_keys(among)
    groups = table.samples["group"].to_numpy()[there]
    mean, ci, seen = _weighed(values[there], w, groups, n_asked=n_asked, parts=parts, asked=[keys[n] for n in names])
    return Expected(
        name,
        metric,
        mean,
        ci=ci,
        seen=seen,
        n_asked=n_asked,
        plain=float(values[there].mean()),
        n=int(there.sum()),
        effective=float(w.sum() ** 2 / (w**2).sum()),
        never=never_scored(scored, asked),
    )


def weights_toward(scored: Known, asked: Known) -> Float64:
    """Positive weights (n,) of scored rows under which shares of levels and means of numbers are those asked for.

    The weights nearest to equal ones in entropy (Hainmueller 2012, Political Analysis 20:25), with a slight pull to
    equal. Numbers that are unknown for a row count as the mean; levels never scored are left out.
    """
    from scipy.optimize import minimize  # slow to import
    from scipy.special import logsumexp

    mine, theirs = [], []
    for view, levels in scored.levels.items():
        here, there = np.asarray(levels), np.asarray(asked.levels[view])
        for level in sorted({*here})[1:]:
            mine.append((here == level).astype(float))
            theirs.append(float(np.mean(there[np.isin(there, here)] == level)) if np.isin(there, here).any() else 0.0)
    for view, numbers in scored.numbers.items():
        here, there = (np.asarray(k.numbers.get(view, []), dtype=np.float64) for k in (scored, asked))
        if np.isfinite(here).any() and np.isfinite(there).any():
            mine.append(np.where(np.isfinite(here), here, np.nanmean(here)))
            theirs.append(float(np.nanmean(there)))
        del numbers
    x = np.stack(mine, axis=1) if mine else np.zeros((len(scored.units), 0))
    spread = x.std(axis=0)
    varies = spread > 1e-9
    x = (x - x.mean(axis=0))[:, varies] / spread[varies]
    goal = (np.asarray(theirs) - (np.stack(mine, axis=1).mean(axis=0) if mine else 0.0))[varies] / spread[varies]

    def dual(pull: Any) -> tuple[float, Any]:
        level = x @ pull
        share = np.exp(level - logsumexp(level))
        return float(logsumexp(level) - goal @ pull + RIDGE / 2 * pull @ pull), share @ x - goal + RIDGE * pull

    found = minimize(dual, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x if x.shape[1] else np.zeros(0)
    level = x @ found
    return np.asarray(len(x) * np.exp(level - logsumexp(level)), dtype=np.float64)


def never_scored(scored: Known, asked: Known) -> tuple[str, ...]:
    """Levels of the rows asked for that no scored row has, as ``view: level``."""
    found = []
    for view, levels in asked.levels.items():
        there = np.asarray(levels)
        for level in sorted({*levels} - {*scored.levels[view]}):
            if np.mean(there == level) >= NEVER:
                found.append(f"{view}: {level}")
    return tuple(found)


def _weighed(
    values: Float64,
    weights: Float64,
    groups: Any,
    *,
    n_asked: int,
    parts: Parts | None = None,
    asked: Sequence[Sequence[str]] = (),
) -> tuple[float, Bounds | None, Bounds | None]:
    """Weighed mean, its 95 % interval with groups as the unit, and that of the mean of ``n_asked`` new groups.

    Groups that share a part vary together (``_stats/shared_parts.py``). The mean of new groups has the variance of one
    over ``n_asked`` and its own pairs in addition. t with one degree of freedom less than groups that speak in effect:
    few are few. None twice for a single group.

    Parameters
    ----------
    values, weights, groups : (n,).
    n_asked : new groups.
    parts : of every scored group; None if groups are no combinations.
    asked : parts of every new group.
    """
    counted = weights > 0  # those of rows far from what is asked for may be too small for a number
    values, weights = values[counted], weights[counted]
    mean = float(np.average(values, weights=weights))
    names, codes = np.unique(np.asarray(groups)[counted].astype(str), return_inverse=True)
    total = np.bincount(codes, weights)
    share, pull = total / total.sum(), np.bincount(codes, weights * (values - mean)) / total.sum()
    if len(names) < 2 or share @ share >= 1:
        return mean, None, None
    found = spread_of_mean(pull, share, None if parts is None else keys_of(names.tolist(), parts))
    new = found.group / max(1, n_asked)
    if found.alike > 0 and asked:
        new += found.alike * Shared.of(asked).over_pairs(np.full(len(asked), 1 / len(asked)))
    reach = quantile_of_few(found.n)
    half, further = (reach * float(np.sqrt(v)) for v in (found.mean, found.mean + new))
    return mean, (mean - half, mean + half), (mean - further, mean + further)
