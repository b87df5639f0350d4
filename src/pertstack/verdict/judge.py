"""From scores per sample to the verdict: leaderboard, gain decomposition, views and one headline.

Everything is computed from a ``ScoreTable`` of the held-out test and one of the out-of-fold rows; both go through the
same code, that of ``competitors.py``. Resampling is handled by ``intervals.py``, reached by ``resampling.py``;
checks are in ``verdict/checks/checks.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.plain_json import plain_json
from pertstack._stats.estimate import Difference
from pertstack.design.metric_names import direction, need_metric
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.in_notebook import ShowsBoard
from pertstack.verdict.boards.rows import LeaderboardRow, Split
from pertstack.verdict.case import Case
from pertstack.verdict.competitors import best_single_of, decompositions_of, matrix, rows_of, views_of
from pertstack.verdict.decision import Decision, decide
from pertstack.verdict.gain.parts import Decomposition
from pertstack.verdict.known import known_at_fit
from pertstack.verdict.looks import looks_in_words
from pertstack.verdict.ranking import rank
from pertstack.verdict.setting import BEST_SINGLE, FEW_GROUPS, Resampling, Setting
from pertstack.verdict.several import Scores, gains_shown, several
from pertstack.verdict.words import count_units, few_words


@dataclass(frozen=True, repr=False)
class Verdict(ShowsBoard):
    """What came out. Frames as in ``views.py``; ``decomposition`` is the chosen combiner's among ``decompositions``."""

    leaderboard: Leaderboard
    decomposition: Decomposition | None
    decompositions: Mapping[str, Decomposition]
    per_cell_line: pd.DataFrame
    leave_line_out: pd.DataFrame
    scaled: pd.DataFrame
    scaled_reason: str
    split: Split
    over_alone: Difference | None = None  # what ships less what would have shipped: the best single model out of fold

    def _board(self) -> Leaderboard:
        return self.leaderboard

    @property
    def headline(self) -> str:
        return self.leaderboard.headline

    @property
    def decision(self) -> Decision:
        """What to do, and what must be known before doing it."""
        return self.leaderboard.decision or Decision("amber", "look", self.leaderboard.headline)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values of everything but the leaderboard, which has its own file."""
        facts = {
            "format": 1,
            "split": self.split,
            "headline": self.headline,
            "decompositions": {k: d.to_json() for k, d in self.decompositions.items()},
            "per_cell_line": self.per_cell_line.to_dict("records"),
            "leave_cell_line_out": self.leave_line_out.to_dict("records"),
            "scaled": self.scaled.to_dict("records"),
            "scaled_reason": self.scaled_reason,
            "over_best_out_of_fold": None if self.over_alone is None else asdict(self.over_alone),
        }
        plain: dict[str, Any] = plain_json(facts)
        return plain


def judge(test: ScoreTable | None, oof: ScoreTable | None, setting: Setting, *, resampling: Resampling) -> Verdict:
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
        rows += rows_of(which, table, setting, resampling=resampling)
        n_units[which] = _scored_groups(table, setting)
    table = tables[split]
    best = best_single_of(table, setting)
    decompositions = decompositions_of(table, setting, resampling, best=best)
    chosen = None if _ships_alone(setting, best) else decompositions.get(setting.chosen or "")
    marked = tuple(_marked(r, split, decompositions) for r in rows)
    views = views_of(table, setting, resampling, best=best)
    tried: Split = "oof" if oof is not None else "test"
    together = several(
        _scores(table, setting),
        _scores(tables[tried], setting),
        tried,
        best_single=best,
        left_out=views[1],
        resampling=resampling,
    )
    if found := known_at_fit(tables, setting, _shipping(setting, best), resampling=resampling):
        together["known_at_fit"] = found
    over_alone = None if chosen is None else _over_alone(setting, table, resampling)
    if setting.evaluated:
        together = {k: v for k, v in together.items() if k in ("confidence_set", "leave_cell_line_out")}
        decision = rank(table, setting, resampling, best=best, n_groups=n_units[split])
    else:
        decision = decide(
            _case(setting, best, chosen, split=split, table=table, together=together, over_alone=over_alone)
        )
    board = Leaderboard(
        marked,
        need_metric(table.metrics, setting.primary),
        setting.chosen,
        best_single=best,
        test_looks=setting.test_looks,
        plan_digest=setting.plan_digest,
        versions=dict(setting.versions),
        interval={**resampling.facts, "unit": setting.unit, "n_units": n_units},
        exploratory=setting.exploratory,
        headline=decision.text,
        cautions=_board_cautions(setting, n_units[split], split, _error(marked, setting, best)),
        several=together,
        decision=decision,
    )
    return Verdict(board, chosen, decompositions, *views, split, over_alone)


def _shipping(setting: Setting, best: str) -> str:
    """The row whose scores out of fold and on the test are those of what ships."""
    if setting.chosen in (None, BEST_SINGLE):
        return setting.alone or best
    return str(setting.chosen)


def _over_alone(setting: Setting, table: ScoreTable, resampling: Resampling) -> Difference | None:
    """The chosen combination less the best single model out of fold: what would have shipped without it."""
    names = table.names
    if setting.chosen not in names or setting.alone not in names:
        return None
    values = matrix(table, setting.primary)
    chosen, alone = (values[names.index(str(n))] for n in (setting.chosen, setting.alone))
    return resampling.compare(chosen, alone, table.samples["group"].to_numpy())


def _scores(table: ScoreTable, setting: Setting) -> Scores:
    """The deciding metric of a table."""
    groups = table.samples["group"].to_numpy()
    return Scores(
        table.names, setting.kinds, matrix(table, setting.primary), groups=groups, sign=direction(setting.primary)
    )


def _marked(row: LeaderboardRow, split: Split, decompositions: Mapping[str, Decomposition]) -> LeaderboardRow:
    """The row with the caution of its decomposition, on the split that is read."""
    found = decompositions.get(row.name) if row.split == split else None
    if found is None or found.caution is None:
        return row
    return LeaderboardRow(
        row.name,
        row.kind,
        row.split,
        scores=row.scores,
        versus_best_single=row.versus_best_single,
        cautions=(*row.cautions, found.caution),
    )


def _error(rows: Sequence[LeaderboardRow], setting: Setting, best: str) -> float | None:
    """Standard error of the score of what ships on the test, as its interval says; None where there is none."""
    named = {r.name: r.score(setting.primary) for r in rows if r.split == "test"}
    cell = named.get(setting.chosen or best) or named.get(best)
    return None if cell is None or cell.ci is None else (cell.ci[1] - cell.ci[0]) / (2 * 1.96)


def _board_cautions(setting: Setting, n_groups: int, split: Split, error: float | None) -> tuple[str, ...]:
    cautions = []
    if n_groups < FEW_GROUPS:
        cautions.append(f"Only {count_units(n_groups, setting.unit)}: {few_words(n_groups, plural=True)}.")
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


def _scored_groups(table: ScoreTable, setting: Setting) -> int:
    """Groups with a sample on which anyone has a score on the deciding metric: what is resampled."""
    scored = np.flatnonzero(np.isfinite(matrix(table, setting.primary)).any(axis=0))
    return int(table.samples["group"].iloc[scored].nunique())


def _case(
    setting: Setting,
    best: str,
    chosen: Decomposition | None,
    split: Split,
    table: ScoreTable,
    together: Mapping[str, Any],
    over_alone: Difference | None,
) -> Case:
    """What the decision hangs on, of everything that was computed."""
    at_once = together.get("simultaneous")
    shown = gains_shown(at_once) if at_once else []
    alone = setting.chosen if setting.kinds.get(setting.chosen or "") == "base" else setting.alone
    return Case(
        setting.chosen,
        alone or best,
        chosen,
        split=split,
        primary=need_metric(table.metrics, setting.primary),
        unit=setting.unit,
        n_groups=_scored_groups(table, setting),
        few_groups=FEW_GROUPS,
        exploratory=setting.exploratory,
        looks=setting.test_looks,
        planned_looks=setting.planned_looks,
        accused=setting.accused,
        accused_gravely=setting.accused_gravely,
        constants=frozenset(setting.no_drug),
        at_once=(shown, len(at_once["rows"])) if at_once else None,
        simulated=setting.simulated,
        metric_doubt=setting.metric_doubt,
        unproven=setting.unproven,
        over_alone=over_alone,
        better=direction(setting.primary),
        refused=setting.refused,
        accepted=setting.accepted,
    )
