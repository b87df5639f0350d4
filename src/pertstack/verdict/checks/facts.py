"""What the checks look at and what one of them answers.

Facts are gathered by the callers; the checks themselves are in ``of_models.py`` and ``of_gains.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pertstack._base.findings import Finding, Severity
from pertstack.design.metric_names import direction
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.rows import Split
from pertstack.verdict.judge import Verdict
from pertstack.verdict.setting import BEST_SINGLE

Answer = tuple[Severity, str, dict[str, Any]]
"""Severity, message and the numbers behind it."""
_KEYS = ("code", "severity", "message", "numbers")


@dataclass(frozen=True, slots=True)
class Check(Finding):
    """The finding of a numbered check; number, code and title are those of its section in docs/checks.md."""

    number: int = 0
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        said = super(Check, self).to_json()
        return {"number": self.number, "title": self.title} | {k: said[k] for k in _KEYS}


@dataclass(frozen=True)
class Facts:
    """What the checks look at; anything left None makes the checks that need it not applicable.

    ``prediction_correlation`` and ``error_correlation`` are square frames by base model. ``weights`` maps a combiner to
    its weight per base model; ``condition`` maps it to the worst condition number met; ``slopes`` maps a base model to
    the slope of truth on its prediction over out-of-fold rows. ``coverage`` is the share of values inside intervals
    that promise ``nominal_coverage``.
    """

    verdict: Verdict
    prediction_correlation: pd.DataFrame | None = None
    error_correlation: pd.DataFrame | None = None
    weights: Mapping[str, Mapping[str, float]] | None = None
    condition: Mapping[str, float] | None = None
    slopes: Mapping[str, float] | None = None
    fit_cell_lines: frozenset[str] | None = None
    judged_cell_lines: frozenset[str] | None = None
    mean_name: str = "mean"
    in_sample: Mapping[str, float] | None = None  # primary score of combiners on rows their weights saw
    coverage: float | None = None
    nominal_coverage: float = 0.9
    accused: Mapping[str, Sequence[str]] | None = None  # base model -> what probes accuse it of; None before they ran

    @property
    def board(self) -> Leaderboard:
        return self.verdict.leaderboard

    def value(self, name: str | None, split: Split | None = None) -> float | None:
        """Primary score of a row, turned so that more is better; None when there is none."""
        here = {r.name: r for r in self.board.ranked(split)}
        cell = here[name].score(self.board.primary) if name in here else None
        return None if cell is None or cell.value is None else direction(self.board.primary) * cell.value


def not_applicable(why: str) -> Answer:
    """The answer of a check that could not run, and why; that is not the same as passed."""
    return "not applicable", why, {}


def ships_alone(facts: Facts) -> bool:
    """What ships is one base model, by its own name or through the reference that picks it."""
    chosen = facts.board.chosen
    return chosen in (None, BEST_SINGLE) or any(r.name == chosen and r.kind == "base" for r in facts.board.rows)
