"""Repeated looks under a rule: one number and its gain leave the held-out test, through Ladder or Thresholdout.

For teams that plan several looks and set ``looks_rule`` in the analysis plan. No other score of the test is written
then: the board shows out-of-fold rows, and the one published row. The state of the mechanism is kept in the ledger, so
that deleting results does not make it forget. The mechanisms are in ``verdict/looks.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pertstack._base.arrays import Array
from pertstack._stats.estimate import Difference
from pertstack.design.ledger import Ledger
from pertstack.design.ledger_lines import Entry
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.folder import StudyFolder
from pertstack.verdict.boards.rows import LeaderboardRow, ScoreCell
from pertstack.verdict.judge import Verdict
from pertstack.verdict.looks import Ladder, Thresholdout
from pertstack.verdict.setting import Setting

PUBLISHED = "look_published"


def publish_look(
    folder: StudyFolder, look: Entry, chosen: str, *, single: str, oof: ScoreTable, test: ScoreTable
) -> None:
    """Ask the rule of the plan what this look may give away, and write that into the ledger, once per look.

    Parameters
    ----------
    folder : of the study.
    look : its line of the ledger, whose digest seeds the noise.
    chosen : what ships.
    single : the best single model as chosen out of fold; the gain is against it.
    oof, test : scores of development and test rows.

    Raises
    ------
    PlanLockedError
        The budget of Thresholdout is spent.
    """
    plan = folder.analysis_plan
    published = folder.ledger.of_kind(PUBLISHED)
    if any(e.index > look.index for e in published):
        return  # by this look, before it was interrupted
    before = last_published(folder.ledger, plan.looks_rule)
    if plan.looks_rule == "ladder":
        facts = _ladder(before, chosen, single, test=test, metric=plan.choice_metric)
    else:
        noise = np.random.default_rng(int(look.digest[:16], 16))  # unknown before the look is written
        facts = _thresholdout(
            before, chosen, single, oof=oof, test=test, metric=plan.choice_metric, budget=2 * plan.looks, rng=noise
        )
    folder.ledger.append(PUBLISHED, rule=plan.looks_rule, metric=plan.choice_metric, n=test.n, **facts)


def last_published(ledger: Ledger, rule: str) -> Mapping[str, Any]:
    """Facts of the last answer under a rule; empty before the first."""
    entries = [e.facts for e in ledger.of_kind(PUBLISHED) if e.facts["rule"] == rule]
    return entries[-1] if entries else {}


def with_published(verdict: Verdict, facts: Mapping[str, Any], setting: Setting) -> Verdict:
    """An out-of-fold verdict with the one row that a look gave away.

    Parameters
    ----------
    verdict : out of fold.
    facts : of the ledger's line; empty leaves the verdict as it is.
    setting : kinds and cautions by name.
    """
    if not facts:
        return verdict
    board, metric, n = verdict.leaderboard, str(facts["metric"]), int(facts["n"])
    words = tuple(map(str, facts["words"]))
    row = LeaderboardRow(
        facts["name"],
        setting.kinds.get(facts["name"], "combiner"),
        "test",
        scores={metric: ScoreCell(facts["value"], None, n, n)},
        versus_best_single={metric: Difference(facts["gain"], None, None)},
        cautions=(*setting.cautions.get(facts["name"], ()), *words),
    )
    said = (
        f"Held-out test under the {facts['rule']} rule: {facts['name']} scores {facts['value']:.4f} on {metric}, "
        f"{facts['gain']:+.4f} against {facts['single']}. Only this was given away by the test."
    )
    cautions = tuple(c for c in board.cautions if "has not been opened" not in c)
    decision = replace(verdict.decision, sentence=said)
    board = replace(board, rows=(*board.rows, row), headline=decision.text, cautions=(*cautions, *words))
    return replace(verdict, leaderboard=replace(board, decision=decision))


def _group_values(table: ScoreTable, name: str, metric: str) -> Array:
    """(n_groups,) shares of each group in the mean, times the number of groups; in sorted order. Their mean is the
    mean of the table, undefined samples left out as there."""
    values = table.values(name, metric)
    groups, code = np.unique(table.samples["group"].to_numpy().astype(str), return_inverse=True)
    defined = ~np.isnan(values)
    sums = np.bincount(code[defined], weights=values[defined], minlength=len(groups))
    shares: Array = sums * len(groups) / max(1, int(defined.sum()))
    return shares


def _ladder(before: Mapping[str, Any], chosen: str, single: str, test: ScoreTable, metric: str) -> dict[str, Any]:
    more = parse_metric(metric).higher_is_better
    state = Ladder.from_json(before["state"]) if before else Ladder()
    shares = _group_values(test, chosen, metric)
    answer, after = state.look(1.0 - shares if more else shares)
    words = [f"As losses{' (1 - score)' if more else ''}: {answer.words}"]
    if answer.source == "unchanged":
        return {**_kept(before), "words": words, "state": after.to_json()}
    value = 1.0 - answer.value if more else answer.value
    step = len(shares)  # rounded like the score itself
    gain = round((value - test.mean(single, metric).value) * step) / step
    return {
        "name": chosen,
        "single": single,
        "value": value,
        "gain": gain,
        "words": words,
        "state": after.to_json(),
    }


def _kept(before: Mapping[str, Any]) -> dict[str, Any]:
    return {key: before[key] for key in ("name", "single", "value", "gain")}


def _thresholdout(
    before: Mapping[str, Any],
    chosen: str,
    single: str,
    *,
    oof: ScoreTable,
    test: ScoreTable,
    metric: str,
    budget: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Two questions a look: the score, and the gain. Threshold and noise come from out-of-fold rows alone."""
    if before:
        state = Thresholdout.from_json(before["state"])
    else:
        shares = _group_values(oof, chosen, metric)
        n_test = test.samples["group"].nunique()
        error = max(float(shares.std(ddof=1)) / math.sqrt(n_test), 1e-6)
        state = Thresholdout(threshold=2 * error, noise=error / 2, budget=budget)
    here, there = (t.mean(chosen, metric).value for t in (oof, test))
    score, state = state.look(here, there, rng)
    here, there = (here - oof.mean(single, metric).value, there - test.mean(single, metric).value)
    gain, state = state.look(here, there, rng)
    return {
        "name": chosen,
        "single": single,
        "value": score.value,
        "gain": gain.value,
        "words": [f"Score: {score.words}", f"Gain: {gain.words}"],
        "state": state.to_json(),
    }
