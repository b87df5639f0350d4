"""From scores per sample to the verdict: leaderboard, gain decomposition, views and one headline.

Everything is computed from a ``ScoreTable`` of the held-out test and one of the out-of-fold rows; both are a
``Reading`` and go through the same code. Intervals are made in ``resampling.py``, checks in ``verdict/checks``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.plain_json import plain_json
from pertstack._stats.estimate import Difference
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.in_notebook import ShowsBoard
from pertstack.verdict.boards.read_rows import rows_of
from pertstack.verdict.boards.rows import LeaderboardRow, Split
from pertstack.verdict.case import Case
from pertstack.verdict.decision import Decision, decide
from pertstack.verdict.gain.of_all import against_alone, decompositions_of
from pertstack.verdict.gain.parts import Decomposition
from pertstack.verdict.known import known_at_fit
from pertstack.verdict.looks import looks_in_words
from pertstack.verdict.ranking import rank
from pertstack.verdict.reading import Reading
from pertstack.verdict.setting import BEST_SINGLE, FEW_GROUPS, Resampling, Setting
from pertstack.verdict.several import gains_shown, several
from pertstack.verdict.views import leave_cell_line_out, per_cell_line, scaled_scores
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
    tables: dict[Split, ScoreTable | None] = {"test": test, "oof": oof}
    readings = {which: Reading(which, t, setting, resampling) for which, t in tables.items() if t is not None}
    if not readings:
        raise InputError("There are no scores to judge: neither out-of-fold rows nor a held-out test were scored.")
    split: Split = "test" if test is not None else "oof"
    read, tried = readings[split], readings["oof" if oof is not None else "test"]
    rows = [row for reading in readings.values() for row in rows_of(reading)]
    n_units = {which: reading.n_groups for which, reading in readings.items()}
    sharing = {which: n for which, reading in readings.items() if (n := reading.n_sharing)}
    decompositions = decompositions_of(read)
    chosen = None if _ships_alone(read) else decompositions.get(setting.chosen or "")
    marked = tuple(_marked(r, split, decompositions) for r in rows)
    views = views_of(read)
    together = several(
        read.scores,
        tried.scores,
        tried.split,
        best_single=read.best,
        left_out=views[1],
        resampling=resampling,
    )
    if found := known_at_fit(readings, setting, _shipping(read)):
        together["known_at_fit"] = found
    over_alone = None if chosen is None else _over_alone(read)
    if setting.evaluated:
        together = {k: v for k, v in together.items() if k in ("confidence_set", "leave_cell_line_out")}
        decision = rank(read)
    else:
        named = against_alone(read) if setting.between_named and chosen is not None else None
        decision = decide(_case(read, chosen, together, over_alone=over_alone, named=named))
    board = Leaderboard(
        marked,
        read.primary,
        setting.chosen,
        best_single=read.best,
        test_looks=setting.test_looks,
        plan_digest=setting.plan_digest,
        versions=dict(setting.versions),
        interval={**resampling.facts, "unit": setting.unit, "n_units": n_units}
        | ({"n_sharing_parts": sharing} if sharing else {}),
        exploratory=setting.exploratory,
        headline=decision.text,
        cautions=_board_cautions(read, _error(marked, read)),
        several=together,
        decision=decision,
    )
    return Verdict(board, chosen, decompositions, *views, split, over_alone)


def views_of(reading: Reading) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, str]:
    """By cell line, the gain of what ships with each cell line left out, scaled scores and why there are none; see
    ``views.py``. If nothing was chosen, the best single model is judged itself."""
    table, setting, values = reading.table, reading.setting, reading.values
    lines, best = table.samples["cell_line"].to_numpy(), reading.at[reading.best]
    judged = reading.at.get(setting.chosen or "", best)
    left_out = leave_cell_line_out(
        values[judged], values[best], cell_lines=lines, groups=reading.groups, compare=reading.resampling.compare
    )
    scaled, reason = scaled_scores(
        table.names, values, reading.primary, no_drug=setting.no_drug, replicate=setting.replicate
    )
    return per_cell_line(table.names, values, lines), left_out, scaled, reason


def _shipping(read: Reading) -> str:
    """The row whose scores out of fold and on the test are those of what ships."""
    setting = read.setting
    if setting.chosen in (None, BEST_SINGLE):
        return setting.alone or read.best
    return str(setting.chosen)


def _over_alone(read: Reading) -> Difference | None:
    """The chosen combination less the best single model out of fold: what would have shipped without it."""
    chosen, alone = read.setting.chosen, read.setting.alone
    if chosen not in read.at or alone not in read.at:
        return None
    return read.between(str(chosen), str(alone))


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


def _error(rows: Sequence[LeaderboardRow], read: Reading) -> float | None:
    """Standard error of the score of what ships on the test, as its interval says; None if there is none."""
    named = {r.name: r.score(read.primary) for r in rows if r.split == "test"}
    cell = named.get(read.setting.chosen or read.best) or named.get(read.best)
    return None if cell is None or cell.ci is None else (cell.ci[1] - cell.ci[0]) / (2 * 1.96)


def _board_cautions(read: Reading, error: float | None) -> tuple[str, ...]:
    setting, cautions = read.setting, []
    if read.n_groups < FEW_GROUPS:
        cautions.append(f"Only {count_units(read.n_groups, setting.unit)}: {few_words(read.n_groups, plural=True)}.")
    if read.split == "oof":
        cautions.append("Out-of-fold scores only: the held-out test has not been opened.")
    if setting.test_looks > 1 or (setting.test_looks and setting.planned_looks > 1):
        cautions.append(looks_in_words(setting.test_looks, setting.planned_looks, error))
    if setting.exploratory:
        cautions.append("Exploratory: the analysis plan was changed after the first look at the test.")
    return tuple(cautions)


def _ships_alone(read: Reading) -> bool:
    """What ships is a single model: the best one, or the reference that picks it out of fold."""
    chosen = read.setting.chosen
    return chosen in (read.best, BEST_SINGLE) or read.setting.kinds.get(chosen or "") == "base"


def _case(
    read: Reading,
    chosen: Decomposition | None,
    together: Mapping[str, Any],
    *,
    over_alone: Difference | None,
    named: Decomposition | None,
) -> Case:
    """What the decision hangs on, of everything that was computed."""
    setting = read.setting
    at_once = together.get("simultaneous")
    shown = gains_shown(at_once) if at_once else []
    alone = setting.chosen if setting.kinds.get(setting.chosen or "") == "base" else setting.alone
    return Case(
        setting.chosen,
        alone or read.best,
        chosen,
        split=read.split,
        primary=read.primary,
        unit=setting.unit,
        n_groups=read.n_groups,
        few_groups=FEW_GROUPS,
        exploratory=setting.exploratory,
        looks=setting.test_looks,
        planned_looks=setting.planned_looks,
        accused=setting.accused,
        accused_gravely=setting.accused_gravely,
        constants=frozenset((*setting.no_drug, *setting.constants)),
        at_once=(shown, len(at_once["rows"])) if at_once else None,
        simulated=setting.simulated,
        metric_doubt=setting.metric_doubt,
        unproven=setting.unproven,
        over_alone=over_alone,
        named=named,
        better=read.sign,
        refused=setting.refused,
        accepted=setting.accepted,
    )
