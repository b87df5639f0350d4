"""The competitors of one score table: their rows on the board, their gains taken apart, the views of the chosen one.

Out-of-fold rows and held-out test go through the same code. What is said of it all is decided in ``judge.py``; how a
gain is taken apart, in ``verdict/gain/decompose.py``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._stats.estimate import Difference
from pertstack.design.metric_names import direction, find_metric, need_metric, split_metric
from pertstack.design.plan.known import telling
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.verdict.boards.rows import Kind, LeaderboardRow, ScoreCell, Split
from pertstack.verdict.gain.decompose import decompose, effect_quartiles
from pertstack.verdict.gain.parts import Decomposition
from pertstack.verdict.setting import Resampling, Setting
from pertstack.verdict.views import leave_cell_line_out, nan_mean, per_cell_line, scaled_scores


def matrix(table: ScoreTable, metric: str) -> Array:
    """(n_names, n) float64 values of one metric under any spelling; NaN where undefined."""
    column = table.metrics.index(need_metric(table.metrics, metric))
    values: Array = table.values_by_name[:, column].astype(np.float64)
    return values


def best_single_of(table: ScoreTable, setting: Setting) -> str:
    """The base model with the best primary mean; ties go to the first by name, so that the answer is always one."""
    values = matrix(table, setting.primary)
    sign = direction(setting.primary)
    means = [(nan_mean(row), name) for row, name in zip(values, table.names, strict=True)]
    known = [(-sign * m, name) for m, name in means if m is not None and setting.kinds.get(name) == "base"]
    if not known:
        raise InputError(
            "No base model has a defined score on the primary metric, so there is no best single model to beat. "
            f"Scored names: {', '.join(table.names)}."
        )
    return min(known)[1]


def rows_of(split: Split, table: ScoreTable, setting: Setting, *, resampling: Resampling) -> list[LeaderboardRow]:
    """Every name of a table with its scores on every metric.

    Parameters
    ----------
    split : which rows were scored, "oof" or "test".
    table : the scores; its names are in ``setting.kinds``.
    setting : kinds, the deciding metric, cautions by name.
    resampling : makes the intervals.

    Raises
    ------
    InputError
        A name without a kind.
    """
    missing = [n for n in table.names if n not in setting.kinds]
    if missing:
        raise InputError(f"No kind is given for {missing}; every scored name is base, combiner, reference or ceiling.")
    primary = need_metric(table.metrics, setting.primary)
    groups, n = table.samples["group"].to_numpy(), len(table.samples)
    best = table.names.index(best_single_of(table, setting))
    bases = np.array([setting.kinds[name] == "base" for name in table.names])
    scores: dict[str, dict[str, ScoreCell]] = {name: {} for name in table.names}
    versus: dict[str, dict[str, Difference]] = {name: {} for name in table.names}
    for metric in table.metrics:
        values = matrix(table, metric)
        if metric == primary:
            differences = resampling.versus_best(values, bases, groups, sign=direction(metric))
        else:
            differences = resampling.differences(values, values[best], groups)
        cis = resampling.intervals(values, groups)
        for i, name in enumerate(table.names):
            mean = table.mean(name, metric)
            value = mean.value if mean.n_valid or table.predicted[i].any() else None
            scores[name][metric] = ScoreCell(value, cis[i] if mean.n_valid else None, mean.n_valid, n)
            d = differences[i]
            if i != best and d.value is not None:
                versus[name][metric] = Difference(d.value, d.ci, d.p)
    return [
        LeaderboardRow(
            name,
            setting.kinds[name],
            split,
            scores=scores[name],
            versus_best_single=versus[name],
            cautions=(*setting.cautions.get(name, ()), *_row_cautions(scores[name][primary], setting.kinds[name])),
        )
        for name in table.names
    ]


def _row_cautions(cell: ScoreCell, kind: Kind) -> list[str]:
    if cell.value is None:
        return [f"did not predict any of the {cell.n:,} samples"]
    if cell.n_valid == 0:
        return [f"undefined on all {cell.n:,} samples, which counts as 0"]
    if cell.n_valid < 0.95 * cell.n and kind != "ceiling":
        return [f"scored on {cell.n_valid:,} of {cell.n:,} samples: abstaining can raise a mean; see the strict metric"]
    return []


def decompositions_of(
    table: ScoreTable, setting: Setting, resampling: Resampling, *, best: str
) -> dict[str, Decomposition]:
    """Every combiner, reference and the chosen one against the best single model; strata for the chosen one only.

    Parameters
    ----------
    table : scores, one row per sample.
    setting : kinds, the deciding metric, what was chosen.
    resampling : makes the intervals.
    best : name of the best single model.
    """
    where = {name: i for i, name in enumerate(table.names)}
    primary = need_metric(table.metrics, setting.primary)
    groups = table.samples["group"].to_numpy()
    stem = split_metric(primary)[0]
    views = [f"{stem}@{reference}" for reference in ("own", "pooled", "matched", "centroid")]
    wanted = (*views, primary, "pearson_all@centroid", "pearson_all@plate", "rmse_all", "rmse_top20")
    used = [m for m in table.metrics if any(find_metric([m], w) for w in wanted)]
    values = {m: matrix(table, m) for m in used}
    bases = np.array([setting.kinds[n] == "base" for n in table.names])
    inside = resampling.versus_best(values[primary], bases, groups, sign=direction(primary))
    found = {}
    for name in table.names:
        if name != setting.chosen and setting.kinds[name] not in ("combiner", "reference"):
            continue
        pairs = {m: (v[where[name]], v[where[best]]) for m, v in values.items()}
        found[name] = decompose(
            name,
            best,
            pairs,
            primary=primary,
            groups=groups,
            compare=resampling.compare,
            strata=_strata(table, setting) if name == setting.chosen else None,
            primary_difference=inside[where[name]],
        )
    return found


def _strata(table: ScoreTable, setting: Setting) -> dict[str, list[str | None]]:
    """Effect-size quartiles, cell lines, what the fits knew of the perturbation; where known and where several."""
    strata: dict[str, list[str | None]] = {}
    if "effect_rms" in table.samples:
        strata["effect quartile"] = effect_quartiles(table.samples["effect_rms"].to_numpy(dtype=np.float64))
    strata["cell line"] = [str(x) for x in table.samples["cell_line"]]
    if setting.fitted is not None:
        known = setting.known_levels(table.samples)
        strata |= {view: list(known[view]) for view in telling(known)}
    return {view: levels for view, levels in strata.items() if len({x for x in levels if x is not None}) > 1}


def views_of(
    table: ScoreTable, setting: Setting, resampling: Resampling, *, best: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """By cell line, the gain with each cell line left out, scaled scores and why there are none; see ``views.py``.

    Parameters
    ----------
    table : scores, one row per sample.
    setting : the deciding metric, what was chosen, floor and ceiling.
    resampling : makes the intervals.
    best : name of the best single model; judged itself where nothing was chosen.
    """
    primary = need_metric(table.metrics, setting.primary)
    values = matrix(table, primary)
    where = {name: i for i, name in enumerate(table.names)}
    lines, groups = table.samples["cell_line"].to_numpy(), table.samples["group"].to_numpy()
    by_line = per_cell_line(table.names, values, lines)
    judged = where.get(setting.chosen or "", where[best])
    left_out = leave_cell_line_out(
        values[judged], values[where[best]], cell_lines=lines, groups=groups, compare=resampling.compare
    )
    scaled, reason = scaled_scores(table.names, values, primary, no_drug=setting.no_drug, replicate=setting.replicate)
    return by_line, left_out, scaled, reason
