"""What to do, in words a biologist repeats: ship a combination, ship one model alone, or do not trust the study.

One reconciled answer. The reading of the gain, accusations of probes, the number of groups, looks and changed plans all
meet here and nowhere else, so that no line under the headline contradicts it. Facts come from ``judge.py``; the report,
the terminal and the notebook print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pertstack._base.shown import count_of
from pertstack.verdict.case import (
    Case,
    disagreement,
    main_part,
    metric_words,
    not_made_of,
    shows,
    size_words,
    where_scored,
)
from pertstack.verdict.gain.in_words import MEANINGS
from pertstack.verdict.gain.parts import Part
from pertstack.verdict.words import count_units, few_words

Light = Literal["green", "amber", "red"]
Action = Literal["ship", "alone", "distrust", "look", "rank"]
IN_WORDS: Mapping[Light, str] = {
    "green": "A gain is shown",
    "amber": "No gain is shown",
    "red": "Do not act on this",
}
"""What each light means, printed beside it: colour alone says nothing in print or to colour-blind eyes."""
DOUBTED = "A gain is shown, with a doubt: read on before you act"
"""An amber light over an answer that would be green without its reasons."""
CLOSED = "Not decided yet: the held-out test is closed"
"""An amber light over out-of-fold rows alone."""
DISAGREE = "The measures disagree: read on before you act"
"""An amber light over a gain that shows on one measure and not on another."""
DECIDE, ELSEWHERE = ", or decide what counts", ", or measure on other plates"
"""What else than shipping the best single model may be done if measures disagree."""
RANKED: Mapping[Light, str] = {
    "green": "A best model is shown",
    "amber": "Read on before you act",
    "red": "Do not act on this",
}
"""The same if models were only evaluated."""


@dataclass(frozen=True)
class Decision:
    """The answer of a study.

    ``sentence`` says what to do and why in one breath. ``reasons`` are what must be known before acting on it: if
    there are any the light is not green. ``notes`` explain and take nothing away. ``ships`` is the combination or base
    model that `predict` uses, the one the sentence names; None if nothing should be used.
    """

    light: Light
    action: Action
    sentence: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ships: str | None = None

    @property
    def light_words(self) -> str:
        """What the light means for this answer."""
        if self.light == "amber" and self.action == "look":
            return CLOSED
        if self.light == "amber" and self.action == "ship" and self.sentence.startswith("Ship "):
            return DOUBTED
        if self.light == "amber" and self.action == "alone" and any(x in self.sentence for x in (DECIDE, ELSEWHERE)):
            return DISAGREE
        return (RANKED if self.action == "rank" else IN_WORDS)[self.light]

    @property
    def text(self) -> str:
        """Sentence and reasons in one line: the ``headline`` of a leaderboard."""
        return " ".join([self.sentence, *self.reasons])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "light": self.light,
            "action": self.action,
            "sentence": self.sentence,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "ships": self.ships,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decision:
        return cls(
            value["light"],
            value["action"],
            value["sentence"],
            reasons=tuple(value["reasons"]),
            notes=tuple(value.get("notes", ())),
            ships=value.get("ships"),
        )


def decide(case: Case) -> Decision:
    """The decision of a case; see ``docs/reading-a-verdict.md`` for every sentence and its light."""
    light, action, sentence = _answer(case)
    reasons, notes = _reasons(case, action), _notes(case, action)
    if case.accused_gravely:
        who = ", ".join(sorted(case.accused_gravely))
        first = case.accused[sorted(case.accused_gravely)[0]][0].rstrip(".")
        taken = sorted(case.accused_gravely & set(case.accepted))
        held = "Do not trust this study" + (": " if case.split == "test" else " yet: ")
        sentence = (
            f"{held}{who} may have seen the rows it predicts ({first}). Ask how it was fitted, or withdraw it and "
            f"stack again." + (f" Taken in by --accept-accused: {', '.join(taken)}." if taken else "")
        )
        return Decision(
            "red",
            "distrust",
            sentence,
            reasons=reasons,
            notes=(f"Without that doubt it would read: {_answer(case)[2]}", *notes),
        )
    if light == "green" and reasons:
        light = "amber"
    ships = case.alone if action == "alone" or case.gain is None else case.chosen
    return Decision(light, action, sentence, reasons=reasons, notes=notes, ships=ships)


def _answer(case: Case) -> tuple[Light, Action, str]:
    """Light, action and sentence as if nothing cast doubt on the study."""
    if case.split == "oof":
        return "amber", "look", _out_of_fold(case)
    if case.gain is None:
        return "amber", "alone", f"Ship {case.alone} alone: no combination was shown to beat it{where_scored(case)}."
    gain, main = case.gain, main_part(case.gain)
    if main is None or main.gain is None:
        found = f"{gain.name} and {gain.best_single} are defined on no common sample"
        return "amber", "alone", f"Ship {case.alone} alone: {found}."
    alone = f"Ship {case.alone} alone"
    single, size, on = gain.best_single, size_words(main), f"on {metric_words(gain.primary)}{where_scored(case)}"
    if gain.reading == "win":
        return "green", "ship", f"Ship {gain.name}: it beats {single} by {size} {on}{not_made_of(gain)}."
    if gain.reading in _NEVER:
        size = size if gain.reading == "harm" else size_words(main, signed=True)
        why = _NEVER[gain.reading].format(single=single, size=size, on=on)
        return "red", "alone", f"Do not ship {gain.name}: {why}. {alone}{_not_the_best(case)}."
    if gain.reading == "mixed":
        found = f"the measures disagree about {gain.name} ({size} {on}{disagreement(gain)})"
        return "amber", "alone", f"{alone}{_not_the_best(case)}{DECIDE}: {found}."
    if gain.reading == "plate":
        found = f"{gain.name} gains {size} {on}, and its correlation within plates shows none: it may be the plate's"
        return "amber", "alone", f"{alone}{_not_the_best(case)}{ELSEWHERE}: {found}."
    if case.unproven:
        found = f"differs from {single} by {size} {on}: no gain is shown"
        return "amber", "ship", f"{gain.name} ships as a safe bet (not worse on any measure out of fold); it {found}."
    if single == case.alone:
        found = f"{gain.name}, chosen out of fold, differs from it by {size} {on}"
        return "amber", "alone", f"{alone}: no combination was shown to beat it. {found}."
    found = f"{gain.name}, chosen out of fold, differs from {single} by {size} {on}"
    if _between_named(case) and case.named is not None and (over := main_part(case.named)) is not None:
        beats = f"it beats {case.alone}, which would ship without it, by {size_words(over)} {on}"
        no_more = f"no gain is shown over {single}, the best single model there ({size}), which the test may not choose"
        return "amber", "ship", f"Ship {gain.name}: {beats}; {no_more}."
    shown = f"no combination was shown to beat the best single model ({case.alone} out of fold, {single} on the test)"
    return "amber", "alone", f"{alone}: {shown}. {found}."


def _between_named(case: Case) -> bool:
    """Whether the combination beats the single model that would ship, and only the best in hindsight is its match."""
    gain, named = case.gain, case.named
    return (
        not case.unproven  # a safe bet ships as such
        and gain is not None
        and gain.reading in ("within_noise", "no_gain")
        and named is not None
        and named.reading == "win"
    )


def _not_the_best(case: Case) -> str:
    """Which best single model ships, if the test and the out-of-fold rows name different ones."""
    same = case.gain is None or case.gain.best_single == case.alone
    return "" if same else " (the best single model out of fold)"


_NEVER = {
    "artefact": "its gain is an artefact of the shared control and is lost without it ({size} {on})",
    "control_noise": "what it gains on own control is noise of the shared control ({size} {on})",
    "harm": "it is worse than {single} by {size} {on}",
}
"""Readings of a gain that forbid to ship it, in words."""


def _out_of_fold(case: Case) -> str:
    if case.gain is None:
        found = f"no combination was shown to beat {case.alone}"
    else:
        main = main_part(case.gain)
        size = "an unknown amount" if main is None or main.gain is None else size_words(main)
        found = f"{case.gain.name} leads {case.gain.best_single} by {size} on {metric_words(case.gain.primary)}"
    return f"Not decided yet: out of fold {found}. Open the held-out test with `pertstack verdict`."


def _reasons(case: Case, action: Action) -> tuple[str, ...]:
    """What takes certainty away, gravest first."""
    said = [
        f"A probe doubts {model}: {words[0].rstrip('.')}."
        for model, words in sorted(case.accused.items())
        if model not in case.accused_gravely
    ]
    if case.metric_doubt:
        said.append(case.metric_doubt)
    if 0 < case.n_groups < case.few_groups:
        said.append(
            f"Scored on {count_units(case.n_groups, case.unit)} only: {few_words(case.n_groups)}, and a repeat with "
            f"others may say something else."
        )
    if case.exploratory:
        said.append("The analysis plan was changed after the test had been seen: this is exploration, not proof.")
    if case.looks > case.planned_looks:
        said.append(f"The test was opened {count_of(case.looks, 'time')}; {case.planned_looks} planned.")
    gain = case.named if _between_named(case) else case.gain
    if gain is not None and gain.one_control and gain.reading == "win" and not shows(gain, "centroid"):
        said.append("All samples of a cell line share one control, so nothing tells this gain from control noise.")
    shipped = case.alone if action == "alone" else None
    if shipped in case.constants:
        said.append(f"{shipped} never sees what was done: it says nothing about any perturbation.")
    return tuple(said)


def _notes(case: Case, action: Action) -> tuple[str, ...]:
    """What explains the answer."""
    said = []
    if case.simulated:
        said.append("The data are simulated: this says how the tool works, nothing about biology.")
    if case.refused:
        said.append(
            f"Not stacked, because a probe accuses {'it' if len(case.refused) == 1 else 'them'} of having seen rows: "
            f"{', '.join(case.refused)}."
        )
    if case.gain is not None:
        said += [
            f"{metric_words(p.metric)} says {'more' if p.shown > 0 else 'less'} ({size_words(p)}) "
            "and has no vote: a constant beats a replicate on it."
            for p in case.gain.parts
            if not p.level and not p.votes and p.shown
        ]
    both = case.gain is not None and case.gain.best_single != case.alone and not _between_named(case)  # else it is said
    if both and case.over_alone is not None and case.gain is not None and case.over_alone.value is not None:
        part = Part("alone", "", case.primary, difference=case.over_alone, better=case.better)
        said.append(
            f"Against {case.alone}, which would have shipped without a combination, {case.gain.name} differs by "
            f"{size_words(part) if part.sign <= 0 else '+' + size_words(part)}"
            + ("." if case.named is None else f": {MEANINGS[case.named.reading]}.")
        )
    if case.at_once is not None and case.split == "test" and action == "ship" and case.gain is not None:
        names, n = case.at_once
        if case.gain.name not in names and not _between_named(case):  # there no gain over all of them is claimed
            said.append(
                f"{case.gain.name} was named before the test was opened, so its own interval counts. Asked of all "
                f"{n} competitors at once, a harder question, its gain would not stand alone."
            )
    return tuple(said)
