"""The rows of a leaderboard, from the scores of one split."""

from __future__ import annotations

from pertstack._base.errors import InputError
from pertstack._stats.estimate import Difference
from pertstack.design.metric_names import direction
from pertstack.verdict.boards.rows import Kind, LeaderboardRow, ScoreCell
from pertstack.verdict.reading import Reading


def rows_of(reading: Reading) -> list[LeaderboardRow]:
    """Every name of a table with its scores on every metric; InputError for a name without a kind."""
    table, setting, resampling = reading.table, reading.setting, reading.resampling
    missing = [n for n in table.names if n not in setting.kinds]
    if missing:
        raise InputError(f"No kind is given for {missing}; every scored name is base, combiner, reference or ceiling.")
    groups, n, best = reading.groups, len(table.samples), reading.at[reading.best]
    scores: dict[str, dict[str, ScoreCell]] = {name: {} for name in table.names}
    versus: dict[str, dict[str, Difference]] = {name: {} for name in table.names}
    for metric in table.metrics:
        values = reading.matrix(metric)
        if metric == reading.primary:
            differences = resampling.versus_best(values, reading.bases, groups, sign=direction(metric))
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
            kind := setting.kinds[name],
            reading.split,
            scores=scores[name],
            versus_best_single=versus[name],
            cautions=(*setting.cautions.get(name, ()), *_row_cautions(scores[name][reading.primary], kind)),
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
