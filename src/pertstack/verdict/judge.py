"""From scores per sample to the verdict: leaderboard, gain decomposition, views and one headline.

Everything is computed from a ``ScoreTable`` of the held-out test and one of the out-of-fold rows; both go through the
same code. Resampling is the business of ``inference.py``, reached by ``resampling.py``; checks are in ``checks.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack.reduce.score_table import ScoreTable
from pertstack.verdict.board import Comparison, Kind, Leaderboard, LeaderboardRow, ScoreCell, Split, plain_json
from pertstack.verdict.decomposition import Array, Decomposition, Difference, decompose, effect_quartiles
from pertstack.verdict.looks import looks_in_words
from pertstack.verdict.several import Scores, SeveralResampling, several
from pertstack.verdict.views import leave_cell_line_out, nan_mean, per_cell_line, scaled_scores
from pertstack.verdict.words import count_units, direction, find_metric, need_metric, split_metric

BEST_SINGLE = "best_single"
"""The reference that picks the best base model on the rows it may learn from (``stack/best_single.py``)."""
NO_DRUG = (
    "no_change", "mean_shift", "mean_shift_cell_line", "mean_treated", "mean_treated_cell_line", "per_gene_linear",
)  # fmt: skip
"""Base models that never see the perturbation; the best of them is the floor of the scaled score."""
FEW_GROUPS = 20
"""Below this many groups an interval is called a rough guide."""


class Resampling(SeveralResampling, Protocol):
    """How intervals are made: whole groups are drawn, never single samples."""

    @property
    def facts(self) -> dict[str, Any]:
        """level, resamples, method: printed under the table."""
        ...

    def intervals(self, values: Array, groups: Array) -> list[tuple[float, float] | None]:
        """One interval per row of ``values`` (n_names, n) for its mean over valid samples."""
        ...

    def compare(self, first: Array, second: Array, groups: Array) -> Difference:
        """Paired difference of two rows (n,)."""
        ...

    def differences(self, values: Array, second: Array, groups: Array) -> list[Difference]:
        """Paired differences of every row of ``values`` (n_names, n) to one row (n,)."""
        ...

    def versus_best(self, values: Array, candidates: Array, groups: Array, sign: int) -> list[Difference]:
        """Every row minus the best row among ``candidates`` (mask over rows), whichever of them that is."""
        ...


@dataclass(frozen=True)
class Setting:
    """What the study knows and the scores do not say.

    ``kinds`` maps every scored name to base / combiner / reference / ceiling. ``seen`` lists perturbations that also
    occur in the fit rows (None: not known). ``no_drug`` names baselines that never see the perturbation; ``replicate``
    names the replicate predictor where there is one.
    """

    kinds: Mapping[str, Kind]
    primary: str = "r2_top20@pooled"
    chosen: str | None = None
    unit: str = "perturbation"
    plan_digest: str = ""
    test_looks: int = 0
    exploratory: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    cautions: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by row name
    seen: frozenset[str] | None = None
    no_drug: tuple[str, ...] = NO_DRUG
    replicate: str | None = "replicate"
    alone: str | None = None  # the base model that ships when ``chosen`` is the reference best_single
    planned_looks: int = 1


@dataclass(frozen=True)
class Verdict:
    """What came out. Frames as in ``views.py``; ``decomposition`` is the chosen combiner's among ``decompositions``."""

    leaderboard: Leaderboard
    decomposition: Decomposition | None
    decompositions: Mapping[str, Decomposition]
    per_cell_line: pd.DataFrame
    leave_line_out: pd.DataFrame
    scaled: pd.DataFrame
    scaled_reason: str
    split: Split

    @property
    def headline(self) -> str:
        return self.leaderboard.headline

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values of everything but the leaderboard, which has a file of its own."""
        facts = {
            "format": 1, "split": self.split, "headline": self.headline,
            "decompositions": {k: d.to_json() for k, d in self.decompositions.items()},
            "per_cell_line": self.per_cell_line.to_dict("records"),
            "leave_cell_line_out": self.leave_line_out.to_dict("records"),
            "scaled": self.scaled.to_dict("records"), "scaled_reason": self.scaled_reason,
        }  # fmt: skip
        plain: dict[str, Any] = plain_json(facts)
        return plain


def judge(test: ScoreTable | None, oof: ScoreTable | None, setting: Setting, resampling: Resampling) -> Verdict:
    """The verdict on a study.

    Parameters
    ----------
    test, oof : ScoreTable or None
        Scores on the held-out test and on out-of-fold rows; the verdict is read on the test when there is one. Both
        need columns ``group`` (what is resampled), ``cell_line`` and ``perturbation`` in ``samples``.
    setting : Setting
        Kinds of the rows, the deciding metric, the chosen combiner, what the plan and the ledger say.
    resampling : Resampling
        Gives intervals; ``resampling.GroupResampling`` unless tests bring their own.

    The best single model is the base model with the best primary score on the split that is read: on the primary metric
    the interval holds against every base model, on all others the comparison is with the model that was named.

    Raises
    ------
    InputError
        Neither table given, a scored name without a kind, or no base model among them.
    UnknownNameError
        The primary metric was not computed.
    """
    tables: dict[Split, ScoreTable] = {}
    if test is not None:
        tables["test"] = test
    if oof is not None:
        tables["oof"] = oof
    if not tables:
        raise InputError("There are no scores to judge: neither out-of-fold rows nor a held-out test were scored.")
    split: Split = "test" if test is not None else "oof"
    rows: list[LeaderboardRow] = []
    n_units: dict[str, int] = {}
    for which, table in tables.items():
        rows += _rows(which, table, setting, resampling)
        n_units[which] = int(table.samples["group"].nunique())
    table = tables[split]
    best = _best_single(table, setting)
    decompositions = _decompositions(table, setting, resampling, best)
    chosen = None if _ships_alone(setting, best) else decompositions.get(setting.chosen or "")
    marked = tuple(_marked(r, split, decompositions) for r in rows)
    views = _views(table, setting, resampling, best)
    tried: Split = "oof" if oof is not None else "test"
    together = several(
        _scores(table, setting), _scores(tables[tried], setting), tried, best, views[1], resampling,
    )  # fmt: skip
    board = Leaderboard(
        marked, need_metric(table.metrics, setting.primary), setting.chosen, best, setting.test_looks,
        setting.plan_digest, dict(setting.versions),
        {**resampling.facts, "unit": setting.unit, "n_units": n_units}, setting.exploratory,
        _headline(setting, best, chosen, split),
        _board_cautions(setting, n_units[split], split, _error(marked, setting, best)), together,
    )  # fmt: skip
    return Verdict(board, chosen, decompositions, *views, split)


def _scores(table: ScoreTable, setting: Setting) -> Scores:
    """The deciding metric of a table."""
    groups = table.samples["group"].to_numpy()
    return Scores(table.names, setting.kinds, matrix(table, setting.primary), groups, direction(setting.primary))


def matrix(table: ScoreTable, metric: str) -> Array:
    """(n_names, n) float64 values of one metric under any spelling; NaN where undefined."""
    column = table.metrics.index(need_metric(table.metrics, metric))
    values: Array = table.values_by_name[:, column].astype(np.float64)
    return values


def _rows(split: Split, table: ScoreTable, setting: Setting, resampling: Resampling) -> list[LeaderboardRow]:
    """Every name of a table with its scores on every metric."""
    missing = [n for n in table.names if n not in setting.kinds]
    if missing:
        raise InputError(f"No kind is given for {missing}; every scored name is base, combiner, reference or ceiling.")
    primary = need_metric(table.metrics, setting.primary)
    groups, n = table.samples["group"].to_numpy(), len(table.samples)
    best = table.names.index(_best_single(table, setting))
    bases = np.array([setting.kinds[name] == "base" for name in table.names])
    scores: dict[str, dict[str, ScoreCell]] = {name: {} for name in table.names}
    versus: dict[str, dict[str, Comparison]] = {name: {} for name in table.names}
    for metric in table.metrics:
        values = matrix(table, metric)
        if metric == primary:
            differences = resampling.versus_best(values, bases, groups, direction(metric))
        else:
            differences = resampling.differences(values, values[best], groups)
        cis = resampling.intervals(values, groups)
        for i, name in enumerate(table.names):
            mean = table.mean(name, metric)
            value = mean.value if mean.n_valid or table.predicted[i].any() else None
            scores[name][metric] = ScoreCell(value, cis[i] if mean.n_valid else None, mean.n_valid, n)
            d = differences[i]
            if i != best and d.value is not None:
                versus[name][metric] = Comparison(d.value, d.ci, d.p)
    return [
        LeaderboardRow(
            name, setting.kinds[name], split, scores[name], versus[name],
            (*setting.cautions.get(name, ()), *_row_cautions(scores[name][primary], setting.kinds[name])),
        )
        for name in table.names
    ]  # fmt: skip


def _row_cautions(cell: ScoreCell, kind: Kind) -> list[str]:
    if cell.value is None:
        return [f"did not predict any of the {cell.n:,} samples"]
    if cell.n_valid == 0:
        return [f"undefined on all {cell.n:,} samples, which counts as 0"]
    if cell.n_valid < 0.95 * cell.n and kind != "ceiling":
        return [f"scored on {cell.n_valid:,} of {cell.n:,} samples: abstaining can raise a mean; see the strict metric"]
    return []


def _best_single(table: ScoreTable, setting: Setting) -> str:
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


def _decompositions(table: ScoreTable, setting: Setting, resampling: Resampling, best: str) -> dict[str, Decomposition]:
    """Every combiner and reference against the best single model; strata for the chosen one only."""
    where = {name: i for i, name in enumerate(table.names)}
    primary = need_metric(table.metrics, setting.primary)
    groups = table.samples["group"].to_numpy()
    stem = split_metric(primary)[0]
    wanted = (
        f"{stem}@own",
        f"{stem}@pooled",
        f"{stem}@matched",
        f"{stem}@centroid",
        primary,
        "pearson_all@centroid",
        "rmse_all",
        "rmse_top20",
    )
    used = [m for m in table.metrics if any(find_metric([m], w) for w in wanted)]
    values = {m: matrix(table, m) for m in used}
    bases = np.array([setting.kinds[n] == "base" for n in table.names])
    inside = resampling.versus_best(values[primary], bases, groups, direction(primary))
    found = {}
    for name in table.names:
        if name != setting.chosen and setting.kinds[name] not in ("combiner", "reference"):
            continue
        pairs = {m: (v[where[name]], v[where[best]]) for m, v in values.items()}
        found[name] = decompose(
            name, best, pairs, primary=primary, groups=groups, compare=resampling.compare,
            strata=_strata(table, setting) if name == setting.chosen else None, primary_difference=inside[where[name]],
        )  # fmt: skip
    return found


def _strata(table: ScoreTable, setting: Setting) -> dict[str, list[str | None]]:
    """Effect-size quartiles, cell lines, seen / unseen perturbations, where known and where there are several."""
    strata: dict[str, list[str | None]] = {}
    if "effect_rms" in table.samples:
        strata["effect quartile"] = effect_quartiles(table.samples["effect_rms"].to_numpy(dtype=np.float64))
    strata["cell line"] = [str(x) for x in table.samples["cell_line"]]
    if setting.seen is not None:
        strata["perturbation"] = ["seen" if str(p) in setting.seen else "unseen" for p in table.samples["perturbation"]]
    return {view: levels for view, levels in strata.items() if len({x for x in levels if x is not None}) > 1}


def _views(
    table: ScoreTable, setting: Setting, resampling: Resampling, best: str
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
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


def _marked(row: LeaderboardRow, split: Split, decompositions: Mapping[str, Decomposition]) -> LeaderboardRow:
    """The row with the caution of its decomposition, on the split that is read."""
    found = decompositions.get(row.name) if row.split == split else None
    if found is None or found.caution is None:
        return row
    return LeaderboardRow(
        row.name, row.kind, row.split, row.scores, row.versus_best_single, (*row.cautions, found.caution)
    )


def _error(rows: Sequence[LeaderboardRow], setting: Setting, best: str) -> float | None:
    """Standard error of the score of what ships on the test, as its interval says; None where there is none."""
    named = {r.name: r.score(setting.primary) for r in rows if r.split == "test"}
    cell = named.get(setting.chosen or best) or named.get(best)
    return None if cell is None or cell.ci is None else (cell.ci[1] - cell.ci[0]) / (2 * 1.96)


def _board_cautions(setting: Setting, n_groups: int, split: Split, error: float | None) -> tuple[str, ...]:
    cautions = []
    if n_groups < FEW_GROUPS:
        cautions.append(f"Only {count_units(n_groups, setting.unit)}: the intervals are a rough guide.")
    if split == "oof":
        cautions.append("Out-of-fold scores only: the held-out test has not been opened.")
    if setting.test_looks > 1 or (setting.test_looks and setting.planned_looks > 1):
        cautions.append(looks_in_words(setting.test_looks, setting.planned_looks, error))
    if setting.exploratory:
        cautions.append("Exploratory: the analysis plan was changed after the first look at the test.")
    return tuple(cautions)


def _ships_alone(setting: Setting, best: str) -> bool:
    """What ships is a single model: the best one, or the reference that picks it out of fold."""
    return setting.chosen in (best, BEST_SINGLE) or setting.kinds.get(setting.chosen or "") == "base"


def _headline(setting: Setting, best: str, chosen: Decomposition | None, split: Split) -> str:
    """One sentence a person can take home; says on which rows it was seen."""
    where = "Held-out test" if split == "test" else "Out-of-fold rows"
    if setting.chosen is None:
        return f"{where}: no combination is shipped, because none beat the best single model, {best}."
    if chosen is None:
        who = best if setting.chosen == best else setting.alone or "the best single model out of fold"
        return f"{where}: {who} ships alone; no combination was shown to beat the best single model."
    return f"{where}: {chosen.headline}"
