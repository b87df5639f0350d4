"""What predictions of a test say when nothing was held out by us: which model is best, by how much, and above what.

No combination is shipped and no test is opened, so the answer names the best model, its distance to the next, and its
distance to the best answer that knows no perturbation. ``decision.py`` answers for a study.
"""

from __future__ import annotations

from pertstack._stats.estimate import Difference
from pertstack.design.metric_labels import metric_label
from pertstack.verdict.decision import Decision, Light
from pertstack.verdict.reading import Reading
from pertstack.verdict.setting import FEW_GROUPS
from pertstack.verdict.views import nan_mean
from pertstack.verdict.words import count_units, few_words, interval, number

UNSEEN = "What the models were fitted on is not known here: a model that saw these samples would score too well."


def rank(reading: Reading) -> Decision:
    """The answer of an evaluation: the best base model against the next one and against the floor."""
    setting, sign, best, n_groups = reading.setting, reading.sign, reading.best, reading.n_groups
    at = reading.at
    means = {name: nan_mean(reading.values[i]) for name, i in at.items()}

    def behind(name: str) -> float:
        return -sign * (means[name] or 0.0)

    others = sorted((n for n in at if setting.kinds[n] == "base" and n != best and means[n] is not None), key=behind)
    floors = sorted((n for n in setting.no_drug if n in at and means[n] is not None), key=behind)
    lead = reading.between(best, others[0]) if others else None
    above = reading.between(best, floors[0]) if floors else None
    ci = reading.resampling.intervals(reading.values[[at[best]]], reading.groups)[0]
    score = f"{number(means[best])} {interval(ci)}".strip()
    sentence = f"{best} scores {'best: ' if others else ''}{score} on {metric_label(setting.primary)}"
    sentence += f", in {count_units(n_groups, setting.unit)}."
    if lead is not None:
        sentence += f" {_against(best, others[0], lead, sign)}"
    light: Light = "green" if lead is None or _shown(lead, sign) > 0 else "amber"
    reasons = []
    if above is not None:
        words = f"It is above {_floor(floors[0])} by {_size(above, sign)}."
        if _shown(above, sign) > 0:
            sentence += f" {words}"
        else:
            worse = _shown(above, sign) < 0
            light = "red" if worse else "amber"
            reasons.append(
                f"{best} is {'below' if worse else 'not shown to be above'} {_floor(floors[0])} "
                f"({_size(above, sign, signed=True)}): "
                + ("none of these models is" if others else "it is not")
                + " shown to know anything about single perturbations."
            )
    grave = sorted(setting.accused_gravely)
    for model, said in sorted(setting.accused.items()):
        reasons.append(f"A probe {'accuses' if model in grave else 'doubts'} {model}: {said[0].rstrip('.')}.")
    if best in setting.constants:
        light = "red"
        alike = ", ".join(n for n in others if n in setting.constants)
        reasons.append(
            f"{best} says the same for every perturbation"
            + (f", and so {'does' if ',' not in alike else 'do'} {alike}" if alike else "")
            + ": nothing about a single one can be read from it."
        )
    if setting.metric_doubt:
        reasons.append(setting.metric_doubt)
    if n_groups < FEW_GROUPS:
        reasons.append(
            f"Scored on {count_units(n_groups, setting.unit)} only: {few_words(n_groups, plural=True)}, and "
            f"others may say something else."
        )
    if light == "green" and reasons:
        light = "amber"
    if best in grave:
        light, sentence = "red", f"Do not trust this ranking: {best} may have seen the samples it predicts. {sentence}"
    notes = ("The data are simulated: this says how the tool works, nothing about biology.",) * setting.simulated
    return Decision(light, "rank", sentence, reasons=tuple(reasons), notes=(UNSEEN, *notes))


def _floor(name: str) -> str:
    return {"mean_of_others": "the mean of the other perturbations", "no_change": "the control itself"}.get(name, name)


def _shown(found: Difference, sign: int) -> int:
    """1 where the first is shown to be better, -1 where worse, 0 where neither."""
    if found.ci is None:
        return 0
    low, high = sorted(sign * b for b in found.ci)
    return 1 if low > 0 else -1 if high < 0 else 0


def _size(found: Difference, sign: int, *, signed: bool = False) -> str:
    value = None if found.value is None else sign * found.value
    ci = None
    if found.ci is not None:
        low, high = sorted(sign * b for b in found.ci)
        ci = (low, high)
    return f"{number(value, sign=signed)} {interval(ci, sign=signed)}".strip()


def _against(best: str, other: str, found: Difference, sign: int) -> str:
    if _shown(found, sign) > 0:
        return f"It leads {other}, the next, by {_size(found, sign)}."
    if found.ci is None:
        return f"{other} is next ({_size(found, sign, signed=True)}); one group gives no interval."
    return f"It cannot be told from {other}, the next ({_size(found, sign, signed=True)})."
