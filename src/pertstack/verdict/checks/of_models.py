"""Checks of the base models and the weights they got: near-copies, shared errors, scale, reach, what probes found.

Each takes ``Facts`` and gives an ``Answer``; whether the combination gains is asked in ``verdict/checks/of_gains.py``.
"""

from __future__ import annotations

from itertools import combinations

from pertstack._base.errors import first_few
from pertstack._base.shown import count_of
from pertstack.design.metric_labels import metric_label
from pertstack.verdict.checks.facts import Answer, Facts, not_applicable, ships_alone
from pertstack.verdict.words import number


def dominant_model(facts: Facts) -> Answer:
    """One base model far above the rest leaves little to combine."""
    bases = [r.name for r in facts.board.ranked() if r.kind == "base"]
    values = [v for n in bases if (v := facts.value(n)) is not None]
    if len(values) < 2:
        return not_applicable("Fewer than two base models have a score.")
    gap = values[0] - values[1]
    share = _share(facts, bases[0])
    numbers = {"best": bases[0], "gap_to_second": gap, "weight_share": share}
    said = f"{bases[0]} leads {bases[1]} by {number(gap)} on {metric_label(facts.board.primary)}"
    said += f" and holds {share:.0%} of the weight" if share is not None else ""
    if gap > 0.02 or (share or 0) > 0.8:
        return (
            "note",
            f"{said}: expect small gains; a model that errs differently helps more than a near-copy.",
            numbers,
        )
    return "passed", f"{said}: no model dominates.", numbers


def _share(facts: Facts, model: str) -> float | None:
    if ships_alone(facts):  # one model has all of the weight, which says nothing
        return None
    weights = (facts.weights or {}).get(facts.board.chosen or "")
    total = sum(abs(w) for w in weights.values()) if weights else 0.0
    return abs(weights.get(model, 0.0)) / total if weights and total > 0 else None


def redundancy(facts: Facts) -> Answer:
    """Base models whose predictions correlate above 0.95 count as one."""
    table = facts.prediction_correlation
    if table is None or len(table) < 2:
        return not_applicable("No correlation between predictions was computed.")
    pairs = {f"{a} / {b}": float(table.loc[a, b]) for a, b in combinations(table.index, 2)}
    near = {k: v for k, v in pairs.items() if v > 0.95}
    numbers = {"pairs": near, "highest": max(pairs.values())}
    if near:
        named = first_few(near, 5)
        said = (
            f"{count_of(len(near), 'pair')} of models correlate above 0.95 ({named}): near-copies add no information."
        )
        return "note", said + " Keep one of each, or use a combiner that prunes.", numbers
    return "passed", f"No two models correlate above 0.95 (highest {max(pairs.values()):.3f}).", numbers


def correlated_errors(facts: Facts) -> Answer:
    """Averaging removes only the part of the error that models do not share."""
    table = facts.error_correlation
    if table is None or len(table) < 2:
        return not_applicable("No correlation between errors was computed.")
    values = [float(table.loc[a, b]) for a, b in combinations(table.index, 2)]
    mean = sum(values) / len(values)
    said = f"Errors of two models correlate {mean:.2f} on average"
    if mean > 0.9:
        return "note", f"{said}: they fail on the same samples, so no weighting can repair much.", {"mean": mean}
    return "passed", f"{said}: there is something to average out.", {"mean": mean}


def unstable_weights(facts: Facts) -> Answer:
    """Weights far above one or a condition number above 1e10 mean that the solution is made of noise."""
    if not facts.weights and not facts.condition:
        return not_applicable("No combiner with linear weights was fitted.")
    large = {
        name: top for name, w in (facts.weights or {}).items() if w and (top := max(abs(x) for x in w.values())) > 5
    }
    ill = {name: c for name, c in (facts.condition or {}).items() if c > 1e10}
    numbers = {"largest_weight": large, "condition_number": ill}
    if large or ill:
        named = first_few(sorted({*large, *ill}), 5)
        if facts.board.chosen not in {*large, *ill}:
            said = f"Unstable weights: {named}, none of which ships. Near-copies among the models are the usual cause"
            return "note", f"{said}.", numbers
        return "warning", f"Unstable weights: {named}. Drop near-copies or raise the penalty.", numbers
    return "passed", "Weights are below 5 in size and condition numbers below 1e10.", numbers


def calibration(facts: Facts) -> Answer:
    """Slope of truth on prediction: 1 is calibrated; far from it the model is on another scale."""
    if not facts.slopes:
        return not_applicable("No calibration slopes were computed.")
    off = {m: s for m, s in sorted(facts.slopes.items()) if not 0.5 <= s <= 2}
    if off:
        named = ", ".join(f"{m} {number(s, 2)}" for m, s in off.items())
        said = f"Slope of truth on prediction outside [0.5, 2]: {named}. Check the scale each was declared with."
        return "warning", said + " Stackers with weights correct it; means do not.", {"slopes": off}
    return "passed", "All slopes of truth on prediction lie within [0.5, 2].", {"slopes": dict(facts.slopes)}


def unseen_cell_line(facts: Facts) -> Answer:
    """A judged cell line without fit rows asks another question than new perturbations do."""
    if facts.fit_cell_lines is None or facts.judged_cell_lines is None:
        return not_applicable("The cell lines of fit rows and judged rows are not known.")
    unseen = sorted(facts.judged_cell_lines - facts.fit_cell_lines)
    if unseen:
        named = first_few(unseen)
        said = f"{count_of(len(unseen), 'judged cell line')} without any fit row: {named}. Read the table by cell line."
        return "warning", said, {"unseen": unseen}
    return "passed", "Every judged cell line has fit rows.", {"unseen": []}


def suspicious_models(facts: Facts) -> Answer:
    """Probes of the stack step that accuse a model of knowing rows it says it did not see."""
    if facts.accused is None:
        return not_applicable("The probes did not run; they run with the stack step.")
    numbers = {"accused": {model: list(words) for model, words in sorted(facts.accused.items())}}
    if facts.accused:
        first = next(iter(numbers["accused"].values()))[0]
        said = f"{count_of(len(facts.accused), 'model')} accused by a probe: {', '.join(numbers['accused'])}. {first}"
        return "warning", said, numbers
    return "passed", "No probe accuses a model, which is no proof of innocence.", numbers
