"""Numbered checks: why an ensemble may fail to improve, or improve too much to be believed.

Each looks at facts already computed and answers issue, tip, passed or not applicable, with its numbers. A check that
could not run says so: that is not the same as passed. What to do about each is told in ``docs/checks.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pertstack._base.errors import first_few
from pertstack._base.files import write_json
from pertstack.verdict.board import Leaderboard, Split, plain_json
from pertstack.verdict.judge import BEST_SINGLE, FEW_GROUPS, Verdict
from pertstack.verdict.words import count_of, count_units, direction, metric_label, number

Status = Literal["issue", "tip", "passed", "not applicable"]
STATUSES: tuple[Status, ...] = ("issue", "tip", "passed", "not applicable")


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of one check. ``code`` is stable, for scripts and for the section in docs/checks.md."""

    number: int
    code: str
    title: str
    status: Status
    message: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "number": self.number, "code": self.code, "title": self.title, "status": self.status,
            "message": self.message, "numbers": dict(self.numbers),
        }  # fmt: skip


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


Answer = tuple[Status, str, dict[str, Any]]


def _na(why: str) -> Answer:
    return "not applicable", why, {}


def dominant_model(facts: Facts) -> Answer:
    """One base model far above the rest leaves little to combine."""
    bases = [r.name for r in facts.board.ranked() if r.kind == "base"]
    values = [v for n in bases if (v := facts.value(n)) is not None]
    if len(values) < 2:
        return _na("Fewer than two base models have a score.")
    gap = values[0] - values[1]
    share = _share(facts, bases[0])
    numbers = {"best": bases[0], "gap_to_second": gap, "weight_share": share}
    said = f"{bases[0]} leads {bases[1]} by {number(gap)} on {metric_label(facts.board.primary)}"
    said += f" and holds {share:.0%} of the weight" if share is not None else ""
    if gap > 0.02 or (share or 0) > 0.8:
        return "tip", f"{said}: expect small gains; a model that errs differently helps more than a near-copy.", numbers
    return "passed", f"{said}: no model dominates.", numbers


def _ships_alone(facts: Facts) -> bool:
    """What ships is one base model, by its own name or through the reference that picks it."""
    chosen = facts.board.chosen
    return chosen in (None, BEST_SINGLE) or any(r.name == chosen and r.kind == "base" for r in facts.board.rows)


def _share(facts: Facts, model: str) -> float | None:
    if _ships_alone(facts):  # one model has all of the weight, which says nothing
        return None
    weights = (facts.weights or {}).get(facts.board.chosen or "")
    total = sum(abs(w) for w in weights.values()) if weights else 0.0
    return abs(weights.get(model, 0.0)) / total if weights and total > 0 else None


def redundancy(facts: Facts) -> Answer:
    """Base models whose predictions correlate above 0.95 count as one."""
    table = facts.prediction_correlation
    if table is None or len(table) < 2:
        return _na("No correlation between predictions was computed.")
    pairs = {f"{a} / {b}": float(table.loc[a, b]) for a, b in combinations(table.index, 2)}
    near = {k: v for k, v in pairs.items() if v > 0.95}
    numbers = {"pairs": near, "highest": max(pairs.values())}
    if near:
        named = first_few(near, 5)
        said = (
            f"{count_of(len(near), 'pair')} of models correlate above 0.95 ({named}): near-copies add no information."
        )
        return "tip", said + " Keep one of each, or use a combiner that prunes.", numbers
    return "passed", f"No two models correlate above 0.95 (highest {max(pairs.values()):.3f}).", numbers


def correlated_errors(facts: Facts) -> Answer:
    """Averaging removes only the part of the error that models do not share."""
    table = facts.error_correlation
    if table is None or len(table) < 2:
        return _na("No correlation between errors was computed.")
    values = [float(table.loc[a, b]) for a, b in combinations(table.index, 2)]
    mean = sum(values) / len(values)
    said = f"Errors of two models correlate {mean:.2f} on average"
    if mean > 0.9:
        return "tip", f"{said}: they fail on the same samples, so no weighting can repair much.", {"mean": mean}
    return "passed", f"{said}: there is something to average out.", {"mean": mean}


def overfitting_gap(facts: Facts) -> Answer:
    """Score where the weights were learned, against the score on rows they did not see."""
    chosen = facts.board.chosen
    if _ships_alone(facts):
        return _na("A single model ships: no weights were learned for it.")
    seen = (facts.in_sample or {}).get(chosen or "")
    seen = None if seen is None else direction(facts.board.primary) * seen
    fresh = facts.value(chosen, "oof") if seen is not None else facts.value(chosen, "test")
    first = seen if seen is not None else facts.value(chosen, "oof")
    if chosen is None or first is None or fresh is None:
        return _na("Needs the chosen combiner's score both where its weights were learned and elsewhere.")
    gap, best = first - fresh, facts.board.best_single
    spread = 0.0
    if seen is None:  # oof against test: part of the gap is that the test is harder or easier for everyone
        oof, test = facts.value(best, "oof"), facts.value(best, "test")
        spread = 0.0 if oof is None or test is None else oof - test
    excess = gap - spread
    numbers = {"gap": gap, "gap_of_best_single": spread, "excess": excess}
    said = f"{chosen} scores {number(gap)} higher on the rows its weights were learned from than out of fold"
    if seen is None:
        said = f"{chosen} loses {number(gap)} from out-of-fold rows to the test, the best single model {number(spread)}"
    if excess > 0.02 and seen is not None and _gain_shown(facts):
        kept = "though the gain holds on rows the weights never saw. Believe those scores, not the fit."
        return "tip", f"{said}: the weights are overfitted, {kept}", numbers
    if excess > 0.02:
        return "issue", f"{said}: the weights are overfitted. Prefer a simpler combiner or more shrinkage.", numbers
    return "passed", f"{said}.", numbers


def _gain_shown(facts: Facts) -> bool:
    """Whether the judged rows show a gain on the deciding metric beyond noise."""
    found = facts.verdict.decomposition
    part = found.part(facts.board.reference) if found is not None else None
    return part is not None and part.sign == 1


def below_mean(facts: Facts) -> Answer:
    """A learned combination worse than the plain mean is usually a defect, most often misaligned rows or genes."""
    mean, known = facts.value(facts.mean_name), [r.name for r in facts.board.ranked() if r.kind == "combiner"]
    values = {n: v for n in known if (v := facts.value(n)) is not None}
    if mean is None or not values:
        return _na("Needs the plain mean and a learned combiner on the board.")
    best = max(values, key=lambda n: (values[n], n))
    numbers = {"mean": mean, "best_combiner": best, "difference": values[best] - mean}
    if values[best] < mean - 0.01:
        said = f"The best learned combiner, {best}, is {number(mean - values[best])} below the plain mean"
        return (
            "issue",
            f"{said}: suspect misaligned samples or genes, or a scale mismatch; run `pertstack audit`.",
            numbers,
        )
    return "passed", f"The best learned combiner, {best}, is not below the plain mean.", numbers


def too_good(facts: Facts) -> Answer:
    """Honest stacking of perturbation models gains a few per cent; more is a leak until shown otherwise."""
    chosen, best = facts.value(facts.board.chosen), facts.value(facts.board.best_single)
    if _ships_alone(facts):
        return _na("A single model ships: there is no gain.")
    if chosen is None or best is None or best <= 0:
        return _na("Needs a chosen combiner and a positive score of the best single model.")
    relative = (chosen - best) / abs(best)
    said = f"{facts.board.chosen} is {relative:+.1%} against {facts.board.best_single}".replace("-", "−")
    if relative > 0.2:
        return (
            "issue",
            f"{said}: above 20 % suspect a leak. Check what each model was fitted on.",
            {"relative": relative},
        )
    return "passed", f"{said}.", {"relative": relative}


def unstable_weights(facts: Facts) -> Answer:
    """Weights far above one or a condition number above 1e10 mean that the solution is made of noise."""
    if not facts.weights and not facts.condition:
        return _na("No combiner with linear weights was fitted.")
    large = {
        name: top for name, w in (facts.weights or {}).items() if w and (top := max(abs(x) for x in w.values())) > 5
    }  # fmt: skip
    ill = {name: c for name, c in (facts.condition or {}).items() if c > 1e10}
    numbers = {"largest_weight": large, "condition_number": ill}
    if large or ill:
        named = first_few(sorted({*large, *ill}), 5)
        if facts.board.chosen not in {*large, *ill}:
            said = f"Unstable weights: {named}, none of which ships. Near-copies among the models are the usual cause"
            return "tip", f"{said}.", numbers
        return "issue", f"Unstable weights: {named}. Drop near-copies or raise the penalty.", numbers
    return "passed", "Weights are below 5 in size and condition numbers below 1e10.", numbers


def calibration(facts: Facts) -> Answer:
    """Slope of truth on prediction: 1 is calibrated; far from it the model is on another scale."""
    if not facts.slopes:
        return _na("No calibration slopes were computed.")
    off = {m: s for m, s in sorted(facts.slopes.items()) if not 0.5 <= s <= 2}
    if off:
        named = ", ".join(f"{m} {number(s, 2)}" for m, s in off.items())
        said = f"Slope of truth on prediction outside [0.5, 2]: {named}. Check the scale each was declared with."
        return "issue", said + " Stackers with weights correct it; means do not.", {"slopes": off}
    return "passed", "All slopes of truth on prediction lie within [0.5, 2].", {"slopes": dict(facts.slopes)}


def unseen_cell_line(facts: Facts) -> Answer:
    """A judged cell line without fit rows asks another question than new perturbations do."""
    if facts.fit_cell_lines is None or facts.judged_cell_lines is None:
        return _na("The cell lines of fit rows and judged rows are not known.")
    unseen = sorted(facts.judged_cell_lines - facts.fit_cell_lines)
    if unseen:
        named = first_few(unseen)
        said = f"{count_of(len(unseen), 'judged cell line')} without any fit row: {named}. Read the table by cell line."
        return "issue", said, {"unseen": unseen}
    return "passed", "Every judged cell line has fit rows.", {"unseen": []}


def hardly_above_mean(facts: Facts) -> Answer:
    """Below one per cent over the plain mean, the mean is the better bargain: nothing to fit, nothing to break."""
    chosen, mean = facts.value(facts.board.chosen), facts.value(facts.mean_name)
    if chosen is None or mean is None or mean <= 0 or facts.board.chosen == facts.mean_name:
        return _na("Needs a chosen combiner other than the plain mean, and a positive score of the mean.")
    relative = (chosen - mean) / mean
    said = f"{facts.board.chosen} is {relative:+.1%} against the plain mean".replace("-", "−")
    if relative < 0.01:
        return "tip", f"{said}: below 1 %, prefer the mean.", {"relative": relative}
    return "passed", f"{said}.", {"relative": relative}


def coupled_gain(facts: Facts) -> Answer:
    """Does the gain survive without the sample's own control on both sides?"""
    found = facts.verdict.decomposition
    if found is None or found.reading == "none":
        return _na("No chosen combiner was compared with the best single model.")
    if not any(p.sign == 1 for view in ("own", facts.board.reference) if (p := found.part(view)) is not None):
        return _na(f"Neither own control nor the deciding metric shows a gain of {found.name}: none to take apart.")
    status: Status = "issue" if found.reading in ("artefact", "mixed") else "tip"
    if found.reading not in ("artefact", "mixed", "control_noise"):
        status = "passed"
    others = sorted(n for n, d in facts.verdict.decompositions.items() if d.reading == "artefact" and n != found.name)
    also = f" Also on the board and marked as artefact: {', '.join(others)}." if others else ""
    return status, found.headline + also, {"reading": found.reading, "artefacts": others}


def hangs_on_one_line(facts: Facts) -> Answer:
    """A gain that vanishes without one cell line is a finding about that line."""
    table = facts.verdict.leave_line_out
    whole = facts.verdict.decomposition
    sign = direction(facts.board.primary)
    gain = facts.value(facts.board.chosen)
    best = facts.value(facts.board.best_single)
    if table.empty or whole is None or gain is None or best is None or gain <= best:
        return _na("Needs a gain over the best single model and at least two cell lines.")
    worst = table.assign(turned=sign * table["difference"].astype(float)).sort_values("turned").iloc[0]
    numbers = {"left_out": str(worst["left_out"]), "gain_without_it": float(worst["turned"])}
    said = f"Without {worst['left_out']} the gain is {number(float(worst['turned']), sign=True)}"
    if worst["turned"] <= 0:
        return "issue", f"{said}: it hangs on that cell line alone.", numbers
    return "passed", f"{said}, the least over all cell lines left out in turn.", numbers


def few_groups(facts: Facts) -> Answer:
    """Intervals resample whole groups; with few of them they are a rough guide."""
    n = int(facts.board.interval.get("n_units", {}).get(facts.verdict.split, 0))
    unit = str(facts.board.interval.get("unit", "group"))
    said = f"Intervals rest on {count_units(n, unit)}"
    if n < FEW_GROUPS:
        return "tip", f"{said}, below {FEW_GROUPS}: a rough guide.", {"n_groups": n}
    return "passed", f"{said}.", {"n_groups": n}


def interval_coverage(facts: Facts) -> Answer:
    """Prediction intervals should hold the truth as often as they promise."""
    if facts.coverage is None:
        return _na("No prediction intervals were computed.")
    said = f"{facts.nominal_coverage:.0%} prediction intervals hold {facts.coverage:.1%} of the measured values"
    numbers = {"coverage": facts.coverage, "nominal": facts.nominal_coverage}
    if facts.coverage < facts.nominal_coverage - 0.03:
        return "issue", f"{said}: too narrow; the judged rows differ from the development rows.", numbers
    return "passed", f"{said}.", numbers


def shipped_loses(facts: Facts) -> Answer:
    """What was chosen out of fold may lose on the judged rows: the reader should not have to find that out alone."""
    found, verdict = facts.verdict.decomposition, facts.verdict
    part = found.part(facts.board.reference) if found is not None else None
    if found is None or part is None or part.gain is None or verdict.split != "test":
        return _na("Needs a combiner that was chosen out of fold and a held-out test it is judged on.")
    lost = [p for p in found.parts if not p.level and p.sign == -1]
    said = f"{found.name} against {found.best_single} on the test: {number(part.gain, sign=True)}"
    said += f" on {metric_label(facts.board.primary)}"
    numbers = {"gain": part.gain, "lost_on": [p.metric for p in lost]}
    if lost:
        named = ", ".join(metric_label(p.metric) for p in lost)
        said += f"; beyond noise it loses on {named}. Consider {found.best_single} alone"
        return "issue", f"{said}.", numbers
    if part.gain < 0:
        return "tip", f"{said}, a loss within noise: the choice made out of fold is not confirmed.", numbers
    return "passed", f"{said}; it loses on no view beyond noise.", numbers


def suspicious_models(facts: Facts) -> Answer:
    """Probes of the stack step that accuse a model of knowing rows it says it did not see."""
    if facts.accused is None:
        return _na("The probes did not run; they run with the stack step.")
    numbers = {"accused": {model: list(words) for model, words in sorted(facts.accused.items())}}
    if facts.accused:
        first = next(iter(numbers["accused"].values()))[0]
        said = f"{count_of(len(facts.accused), 'model')} accused by a probe: {', '.join(numbers['accused'])}. {first}"
        return "issue", said, numbers
    return "passed", "No probe accuses a model, which is no proof of innocence.", numbers


CHECKS: tuple[tuple[str, str, Callable[[Facts], Answer]], ...] = (
    ("dominant_model", "One model dominates", dominant_model),
    ("redundancy", "Near-copies among the models", redundancy),
    ("correlated_errors", "Models err on the same samples", correlated_errors),
    ("overfitting_gap", "Weights fit rows they saw better", overfitting_gap),
    ("below_mean", "Learned weights below the plain mean", below_mean),
    ("too_good", "Gain too good to be true", too_good),
    ("unstable_weights", "Weights or sums are unstable", unstable_weights),
    ("calibration", "Predictions on another scale", calibration),
    ("unseen_cell_line", "Judged cell line never fitted", unseen_cell_line),
    ("hardly_above_mean", "Hardly above the plain mean", hardly_above_mean),
    ("coupled_gain", "Gain made of shared control noise", coupled_gain),
    ("one_cell_line", "Gain hangs on one cell line", hangs_on_one_line),
    ("few_groups", "Few groups behind the intervals", few_groups),
    ("interval_coverage", "Prediction intervals keep their promise", interval_coverage),
    ("shipped_loses", "What ships loses on the test", shipped_loses),
    ("suspicious_models", "A model knows what it should not", suspicious_models),
)
"""Numbered from 1 in this order; new checks go to the end, so that numbers stay."""


def run_checks(facts: Facts) -> tuple[Check, ...]:
    """All checks, in their fixed order."""
    return tuple(Check(i, code, title, *check(facts)) for i, (code, title, check) in enumerate(CHECKS, start=1))


def write_checks(path: Path, checks: tuple[Check, ...]) -> None:
    """``results/checks.json``: format 1, the counts by status and every check."""
    counts = {status: sum(c.status == status for c in checks) for status in STATUSES}
    write_json(Path(path), plain_json({"format": 1, "counts": counts, "checks": [c.to_json() for c in checks]}))
