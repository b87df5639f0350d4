"""Checks of the gain: is it real, does it last on rows the weights never saw, and how firmly is it known.

Each takes ``Facts`` and gives an ``Answer``; what is asked of the base models alone is in ``of_models.py``.
"""

from __future__ import annotations

from pertstack._base.findings import Severity
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import direction
from pertstack.verdict.checks.facts import Answer, Facts, not_applicable, ships_alone
from pertstack.verdict.setting import FEW_GROUPS
from pertstack.verdict.words import count_units, number


def overfitting_gap(facts: Facts) -> Answer:
    """Score where the weights were learned, against the score on rows they did not see."""
    chosen = facts.board.chosen
    if ships_alone(facts):
        return not_applicable("A single model ships: no weights were learned for it.")
    seen = (facts.in_sample or {}).get(chosen or "")
    seen = None if seen is None else direction(facts.board.primary) * seen
    fresh = facts.value(chosen, "oof") if seen is not None else facts.value(chosen, "test")
    first = seen if seen is not None else facts.value(chosen, "oof")
    if chosen is None or first is None or fresh is None:
        return not_applicable("Needs the chosen combiner's score both where its weights were learned and elsewhere.")
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
        return "note", f"{said}: the weights are overfitted, {kept}", numbers
    if excess > 0.02:
        return "warning", f"{said}: the weights are overfitted. Prefer a simpler combiner or more shrinkage.", numbers
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
        return not_applicable("Needs the plain mean and a learned combiner on the board.")
    best = max(values, key=lambda n: (values[n], n))
    numbers = {"mean": mean, "best_combiner": best, "difference": values[best] - mean}
    if values[best] < mean - 0.01:
        said = f"The best learned combiner, {best}, is {number(mean - values[best])} below the plain mean"
        return (
            "warning",
            f"{said}: suspect misaligned samples or genes, or a scale mismatch; run `pertstack audit`.",
            numbers,
        )
    return "passed", f"The best learned combiner, {best}, is not below the plain mean.", numbers


def too_good(facts: Facts) -> Answer:
    """Honest stacking of perturbation models gains a few per cent; more is a leak until shown otherwise."""
    chosen, best = facts.value(facts.board.chosen), facts.value(facts.board.best_single)
    if ships_alone(facts):
        return not_applicable("A single model ships: there is no gain.")
    if chosen is None or best is None or best <= 0:
        return not_applicable("Needs a chosen combiner and a positive score of the best single model.")
    relative = (chosen - best) / abs(best)
    said = f"{facts.board.chosen} is {relative:+.1%} against {facts.board.best_single}".replace("-", "−")
    if relative > 0.2:
        return (
            "warning",
            f"{said}: above 20 % suspect a leak. Check what each model was fitted on.",
            {"relative": relative},
        )
    return "passed", f"{said}.", {"relative": relative}


def hardly_above_mean(facts: Facts) -> Answer:
    """Below one per cent over the plain mean, the mean is the better bargain: nothing to fit, nothing to break."""
    chosen, mean = facts.value(facts.board.chosen), facts.value(facts.mean_name)
    if chosen is None or mean is None or mean <= 0 or facts.board.chosen == facts.mean_name:
        return not_applicable("Needs a chosen combiner other than the plain mean, and a positive score of the mean.")
    relative = (chosen - mean) / mean
    said = f"{facts.board.chosen} is {relative:+.1%} against the plain mean".replace("-", "−")
    if relative < 0.01:
        return "note", f"{said}: below 1 %, prefer the mean.", {"relative": relative}
    return "passed", f"{said}.", {"relative": relative}


def coupled_gain(facts: Facts) -> Answer:
    """Does the gain survive without the sample's own control on both sides?"""
    found = facts.verdict.decomposition
    if found is None or found.reading == "none":
        return not_applicable("No chosen combiner was compared with the best single model.")
    if not any(p.sign == 1 for view in ("own", facts.board.reference) if (p := found.part(view)) is not None):
        return not_applicable(
            f"Neither own control nor the deciding metric shows a gain of {found.name}: none to take apart."
        )
    severity: Severity = "warning" if found.reading in ("artefact", "mixed") else "note"
    if found.reading not in ("artefact", "mixed", "control_noise"):
        severity = "passed"
    others = sorted(n for n, d in facts.verdict.decompositions.items() if d.reading == "artefact" and n != found.name)
    also = f" Also on the board and marked as artefact: {', '.join(others)}." if others else ""
    return severity, found.headline + also, {"reading": found.reading, "artefacts": others}


def hangs_on_one_line(facts: Facts) -> Answer:
    """A gain that vanishes without one cell line is a finding about that line."""
    table = facts.verdict.leave_line_out
    whole = facts.verdict.decomposition
    sign = direction(facts.board.primary)
    gain = facts.value(facts.board.chosen)
    best = facts.value(facts.board.best_single)
    if table.empty or whole is None or gain is None or best is None or gain <= best:
        return not_applicable("Needs a gain over the best single model and at least two cell lines.")
    worst = table.assign(turned=sign * table["difference"].astype(float)).sort_values("turned").iloc[0]
    numbers = {"left_out": str(worst["left_out"]), "gain_without_it": float(worst["turned"])}
    said = f"Without {worst['left_out']} the gain is {number(float(worst['turned']), sign=True)}"
    if worst["turned"] <= 0:
        return "warning", f"{said}: it hangs on that cell line alone.", numbers
    return "passed", f"{said}, the least over all cell lines left out in turn.", numbers


def shipped_loses(facts: Facts) -> Answer:
    """What was chosen out of fold may lose on the judged rows: the reader should not have to find that out alone."""
    found, verdict = facts.verdict.decomposition, facts.verdict
    part = found.part(facts.board.reference) if found is not None else None
    if found is None or part is None or part.gain is None or verdict.split != "test":
        return not_applicable("Needs a combiner that was chosen out of fold and a held-out test it is judged on.")
    lost = [p for p in found.parts if not p.level and p.sign == -1]
    said = f"{found.name} against {found.best_single} on the test: {number(part.gain, sign=True)}"
    said += f" on {metric_label(facts.board.primary)}"
    numbers = {"gain": part.gain, "lost_on": [p.metric for p in lost]}
    if lost:
        named = ", ".join(metric_label(p.metric) for p in lost)
        doubted = found.best_single in (facts.accused or {})
        said += f"; beyond noise it loses on {named}" + ("" if doubted else f". Consider {found.best_single} alone")
        return "warning", f"{said}.", numbers
    if part.gain < 0:
        return "note", f"{said}, a loss within noise: the choice made out of fold is not confirmed.", numbers
    return "passed", f"{said}; it loses on no view beyond noise.", numbers


def few_groups(facts: Facts) -> Answer:
    """Intervals resample whole groups; with few of them they are a rough guide."""
    n = int(facts.board.interval.get("n_units", {}).get(facts.verdict.split, 0))
    unit = str(facts.board.interval.get("unit", "group"))
    said = f"Intervals rest on {count_units(n, unit)}"
    if n < FEW_GROUPS:
        return "note", f"{said}, below {FEW_GROUPS}: a rough guide.", {"n_groups": n}
    return "passed", f"{said}.", {"n_groups": n}


def interval_coverage(facts: Facts) -> Answer:
    """Prediction intervals should hold the truth as often as they promise."""
    if facts.coverage is None:
        return not_applicable("No prediction intervals were computed.")
    said = f"{facts.nominal_coverage:.0%} prediction intervals hold {facts.coverage:.1%} of the measured values"
    numbers = {"coverage": facts.coverage, "nominal": facts.nominal_coverage}
    if facts.coverage < facts.nominal_coverage - 0.03:
        return "warning", f"{said}: too narrow; the judged rows differ from the development rows.", numbers
    return "passed", f"{said}.", numbers
