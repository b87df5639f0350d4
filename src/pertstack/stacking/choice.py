"""What was chosen and why, as facts and in words. How a choice is made is handled by ``choose.py``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pertstack.design.metric_labels import metric_label
from pertstack.stacking.panel import Gain

BEST_SINGLE = "best_single"


BEST_INFORMED = "best_informed"


Rule = Literal["safe_gain", "no_harm_ladder", "best"]


@dataclass(frozen=True)
class Rung:
    """One combiner that was considered for shipping."""

    name: str
    complexity: int
    score: float  # nested primary score, larger is better
    gain: Gain  # over the best single model, primary metric
    bound: float  # one-sided lower bound of the gain, corrected for everything that was tried
    passed: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "complexity": self.complexity,
            "score": self.score,
            "gain": self.gain.to_json(),
            "bound": self.bound,
            "passed": self.passed,
            "why": self.why,
        }


@dataclass(frozen=True)
class Choice:
    """What ships, how it was arrived at, and what was marked on the way."""

    chosen: str
    best_single: str  # the base model that the final best_single fit names
    primary: str
    ladder: tuple[Rung, ...]  # in the order tried
    panel: dict[str, tuple[Gain, ...]]  # every candidate's gains over the best single model
    marked: dict[str, str]  # shown, but not to be shipped: name -> why
    reasons: tuple[str, ...]
    critical: float  # standard errors that a gain must be above zero, for all that was tried together
    constant: bool = False  # what ships says the same for every perturbation
    no_vote: Mapping[str, str] = field(default_factory=dict)  # metric on which a loss bars nothing -> its calibration
    picked: tuple[str, ...] = ()  # the base model picked without each fold, which out-of-fold gains are over

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "chosen": self.chosen,
            "best_single": self.best_single,
            "primary": self.primary,
            "ladder": [r.to_json() for r in self.ladder],
            "panel": {name: [g.to_json() for g in gains] for name, gains in self.panel.items()},
            "marked": self.marked,
            "reasons": list(self.reasons),
            "critical": self.critical if np.isfinite(self.critical) else None,
            "constant": self.constant,
            "no_vote": dict(self.no_vote),
            "picked": list(self.picked),
        }


def choice_in_words(choice: Choice, *, accused: Collection[str] = (), accepted: Collection[str] = ()) -> str:
    """The choice in one sentence with its numbers.

    Parameters
    ----------
    choice : from ``choose``.
    accused : names of models left out for a leak; named first.
    accepted : names of models that take part despite an accusation; named before all else, in capitals.
    """
    said = f"Not stacked, because a probe accuses them: {', '.join(accused)}. " if accused else ""
    if accepted:
        said = f"ACCUSED MODELS TAKE PART, as accepted: {', '.join(accepted)}. {said}"
    chosen, single = choice.chosen, choice.best_single
    if chosen == BEST_SINGLE:
        return f"{said}No combination is shown to beat {single} out of fold, so {single} ships alone."
    rung = next(r for r in choice.ladder if r.name == chosen and r.passed)
    gain = f"{rung.gain.value:+.4f} over {_compared(choice)} on {metric_label(choice.primary)} out of fold"
    if rung.bound <= 0:
        return (
            f"{said}No gain is proven. {chosen} ships as a safe bet: {gain}, and shown not to be worse on any measure."
        )
    return f"{said}{chosen} is chosen: {gain}, lower bound {rung.bound:+.4f}."


def _compared(choice: Choice) -> str:
    """What out-of-fold gains are over: the model picked without each fold, not the best in hindsight."""
    if {*choice.picked} <= {choice.best_single}:
        return choice.best_single
    return (
        f"the best single model as picked without each fold ({', '.join(choice.picked)}; on all rows "
        f"{choice.best_single} is picked, and gains in the table are over the best in hindsight)"
    )
