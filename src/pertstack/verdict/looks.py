"""Repeated looks at one held-out test: what they cost, and two mechanisms for teams that must look often.

``Ladder`` publishes a new score only when it beats the last published one by more than its own noise. ``Thresholdout``
answers from out-of-fold rows while these agree with the test, and spends a budget when they do not. Both are values: a
look returns the answer and the next state, which goes to JSON. They guard against wishful choosing, not against
someone who reads the test truth or the state file. Counting looks is handled by the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError, PlanLockedError


@dataclass(frozen=True)
class Answer:
    """How much each look reveals: a number, whether it is news, and a sentence for the board."""

    value: float
    source: Literal["new", "unchanged", "out_of_fold", "test"]
    words: str


@dataclass(frozen=True)
class Ladder:
    """The parameter-free Ladder of Blum and Hardt (2015), ICML, algorithm 3, on losses per group (or per sample).

    Publishes the mean loss, rounded to 1/n, when it is below the last published one by more than the standard error of
    the paired difference to the last published submission; otherwise repeats what was published. The published minimum
    is within O((log(k n) / n)^(1/3)) of the truth after k looks, however the submissions were chosen.
    """

    published: float | None = None
    losses: tuple[float, ...] = ()  # of the submission published last
    looks: int = 0
    releases: int = 0

    def look(self, losses: Array) -> tuple[Answer, Ladder]:
        """Submit losses (n,), less is better, one for each group in a fixed order.

        Raises
        ------
        InputError
            Not finite, fewer than two, or not as many as before: then they are not of the same test.
        """
        given = np.asarray(losses, dtype=np.float64)
        if given.ndim != 1 or len(given) < 2 or not np.isfinite(given).all():
            raise InputError(f"The Ladder needs two or more finite losses; got shape {given.shape}.")
        if self.losses and len(given) != len(self.losses):
            raise InputError(f"The Ladder was started with {len(self.losses):,} losses and now gets {len(given):,}.")
        n, mean = len(given), float(given.mean())
        before = np.asarray(self.losses) if self.losses else np.zeros(n)
        step = float(np.std(given - before)) / math.sqrt(n)
        if self.published is None or mean < self.published - step:
            value = round(mean * n) / n
            words = f"Look {self.looks + 1}: an improvement beyond its noise ({step:.3g}), published as {value:.4g}."
            answer = Answer(value, "new", words)
            return answer, Ladder(value, tuple(float(x) for x in given), self.looks + 1, self.releases + 1)
        words = (
            f"Look {self.looks + 1}: no improvement beyond the noise of the comparison ({step:.3g}), so the last "
            f"published {self.published:.4g} stands. The new value itself is not shown: showing it would be what "
            "wears out the test."
        )
        return Answer(self.published, "unchanged", words), replace(self, looks=self.looks + 1)

    def to_json(self) -> dict[str, Any]:
        return {"format": 1, **asdict(self), "losses": list(self.losses)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ladder:
        return cls(value["published"], tuple(value["losses"]), value["looks"], value["releases"])


@dataclass(frozen=True)
class Thresholdout:
    """The reusable holdout of Dwork et al. (2015), Science 349:636.

    A question is a mean. While the out-of-fold mean is within a noisy ``threshold`` of the test mean, the out-of-fold
    mean is the answer, which costs nothing. Else the test mean with Laplace noise is given and one of ``budget`` is
    spent. ``margin`` is the noisy threshold in force, None before the first question.
    """

    threshold: float
    noise: float  # sigma of the paper: scale of the Laplace noise of an answer
    budget: int
    margin: float | None = None
    questions: int = 0
    answered_from_test: int = 0

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and self.noise > 0 and self.budget >= 0):
            raise InputError(
                f"Thresholdout needs a threshold and noise above 0 and a budget of at least 0; got {self.threshold}, "
                f"{self.noise}, {self.budget}."
            )

    def look(self, out_of_fold: float, test: float, rng: np.random.Generator) -> tuple[Answer, Thresholdout]:
        """Ask for one mean; the answer, and the state after it.

        Parameters
        ----------
        out_of_fold, test : the mean as measured on either, in the metric's unit.
        rng : Laplace noise on threshold and answer.

        Raises
        ------
        PlanLockedError
            The budget is spent: any further answer would come from a worn-out test.
        """
        if self.budget < 1:
            raise PlanLockedError(
                f"The budget of this held-out test is spent: {self.answered_from_test} answers came from it in "
                f"{self.questions} questions. Report what was published, or bring new held-out data."
            )
        margin = self.threshold + float(rng.laplace(0, 2 * self.noise)) if self.margin is None else self.margin
        asked = replace(self, margin=margin, questions=self.questions + 1)
        if abs(test - out_of_fold) > margin + float(rng.laplace(0, 4 * self.noise)):
            value = test + float(rng.laplace(0, self.noise))
            spent = replace(
                asked,
                budget=self.budget - 1,
                answered_from_test=self.answered_from_test + 1,
                margin=self.threshold + float(rng.laplace(0, 2 * self.noise)),
            )
            words = (
                f"Out-of-fold rows and test disagree; the test's answer with noise is {value:.4g}. {spent.budget} left."
            )
            return Answer(value, "test", words), spent
        words = f"The test agrees with the out-of-fold rows within its threshold: {out_of_fold:.4g}. Nothing was spent."
        return Answer(float(out_of_fold), "out_of_fold", words), asked

    def to_json(self) -> dict[str, Any]:
        return {"format": 1, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Thresholdout:
        names = ("threshold", "noise", "budget", "margin", "questions", "answered_from_test")
        return cls(**{name: value[name] for name in names})


def expected_maximum(k: int) -> float:
    """Mean of the largest of k independent standard normal numbers; 0 for one.

    >>> round(expected_maximum(2), 4)
    0.5642
    """
    if k < 1:
        raise InputError(f"There are {k} looks; the count starts at 1.")
    if k == 1:
        return 0.0
    from scipy import integrate, stats  # slow to import

    x = np.linspace(-10, 10, 20_001)
    density = k * stats.norm.pdf(x) * stats.norm.cdf(x) ** (k - 1)
    return float(integrate.trapezoid(x * density, x))


def price_of_looks(looks: int, error: float) -> float:
    """How much too hopeful the best of several looks is, at worst: for ``looks`` equally good, independent submissions.

    ``error`` is the standard error of one score on the test, in its units. Submissions that resemble each other cost
    less.
    """
    return expected_maximum(looks) * error


def looks_in_words(looks: int, planned: int, error: float | None = None) -> str:
    """One sentence under the table: how often the test was opened and what that costs.

    Parameters
    ----------
    looks : how often.
    planned : how often the plan allows for.
    error : standard error of a score, by which the price is counted; None to leave the price out.
    """
    times = {1: "once", 2: "twice"}.get(looks, f"{looks} times")
    said = f"The held-out test was opened {times}" + (f" ({planned} planned)." if looks != planned else ", as planned.")
    if looks <= 1 or error is None:
        return said
    return (
        f"{said} Had every look been used to keep the best of equally good answers, its score would be too hopeful by "
        f"about {price_of_looks(looks, error):.4f}."
    )
