"""What the parts of a gain say together: one reading, and one plain sentence.

The parts are found in ``verdict/gain/decompose.py``.
"""

from __future__ import annotations

from pertstack._base.shown import count_of
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import split_metric
from pertstack.verdict.gain.parts import Decomposition, Part, Reading
from pertstack.verdict.words import interval, number

MEANINGS: dict[Reading, str] = {
    "win": "a real gain",
    "plate": "a gain that is not seen within plates, so it may be the plate's and not the perturbation's",
    "control_noise": "mostly control noise",
    "artefact": "an artefact of the shared control",
    "mixed": "the measures disagree",
    "within_noise": "within noise",
    "no_gain": "no gain",
    "harm": "worse than the best single model",
    "none": "nothing to compare",
}


def read(parts: Decomposition) -> Reading:
    """The one-word reading of the panel; see ``MEANINGS``.

    Own control is the coupled view: a gain there alone is worth nothing. An artefact gains on own control, loses on
    some uncoupled view and gains on none of the others; if uncoupled views point both ways, the measures disagree
    and the reading says so rather than taking sides. If plates are known, a win has to be seen within them too: what
    is read off a plate gains on every other view.
    """
    signs = {p.view: p.sign for p in parts.parts if not p.level}
    reference = split_metric(parts.primary)[1]
    main = parts.part(reference)
    if main is None or main.gain is None:
        return "none"
    own, pooled = signs.get("own"), signs.get("pooled")
    if parts.one_control and reference != "own":  # the same evidence twice, and no sign of coupling
        own = None
    uncoupled = [signs[v] for v in ("pooled", "matched", "centroid", "rmse") if v in signs]
    others = [sign for view, sign in signs.items() if view not in ("own", reference)]
    if own == 1 and pooled != 1 and -1 in uncoupled and 1 not in uncoupled:
        return "artefact"
    if main.sign == -1:
        return "mixed" if 1 in others else "harm"
    if main.sign == 1 and -1 in [*others, own]:
        return "mixed"
    supported = 1 in [sign for view, sign in signs.items() if view in ("centroid", "rmse")]
    kept = kept_share(parts)
    little_kept = pooled == 0 or (reference == "own" and kept is not None and kept < 0.5)
    if own == 1 and little_kept and not supported:
        return "control_noise"
    if main.sign == 1:
        return "win" if signs.get("plate", 1) == 1 else "plate"
    if -1 in [*others, own] and 1 in others:
        return "mixed"
    return "within_noise" if main.gain > 0 and number(main.gain) != number(0.0) else "no_gain"


def kept_share(parts: Decomposition) -> float | None:
    """Gain against the pooled control over gain on own control; None unless both are known and the latter > 0."""
    own, pooled = parts.part("own"), parts.part("pooled")
    if own is None or pooled is None or own.gain is None or pooled.gain is None or own.gain <= 0:
        return None
    return pooled.gain / own.gain


def headline(parts: Decomposition, reading: Reading) -> str:
    """One plain sentence, such as "+0.016 on own control, of which +0.005 remains without the shared control: ..."."""
    reference = split_metric(parts.primary)[1]
    main = parts.part(reference)
    label = metric_label(parts.primary, reference=False)
    who = f"{parts.name} against {parts.best_single} on {label}"
    if main is None or main.difference.value is None:
        return f"{who}: no sample is defined for both, so nothing can be said."
    own = parts.part("own")
    begin = [f"{_said(own)} on own control"] if own is not None and own.difference.value is not None else []
    pooled = parts.part("pooled")
    if parts.one_control:
        begin = [f"{_said(main)} on own control, which the samples of a cell line share, so that pooled is the same"]
    elif pooled is not None and pooled.difference.value is not None:
        begin.append(_remaining(own, pooled))
    if reference not in ("own", "pooled"):
        begin.append(f"{_said(main)} against the {reference}")
    joined = ", ".join(begin)
    return f"{who}: {joined}: {_meaning(parts, reading, main)}."


def _remaining(own: Part | None, pooled: Part) -> str:
    """The pooled part, worded as a remainder only if it is one."""
    gain_own, gain_pooled = (own.gain if own else None), pooled.gain
    if own is not None and own.sign == 1 and gain_own and gain_pooled is not None and 0 <= gain_pooled < gain_own:
        within = "" if pooled.sign == 1 else ", within noise"
        return f"of which {_said(pooled)} remains without the shared control{within}"
    return f"{_said(pooled)} without the shared control"


def _meaning(parts: Decomposition, reading: Reading, main: Part) -> str:
    """The reading in words, with what the views not yet named in the sentence say."""
    other = [p for p in parts.parts if not p.level and p.view not in ("own", "pooled") and p is not main]
    shown = [p for p in other if p.sign != 0]
    also = "; ".join(f"{_view_words(p)} {_said(p)}, {'better' if p.sign == 1 else 'worse'}" for p in shown)
    if reading == "plate" and (plate := parts.part("plate")) is not None:
        return f"{MEANINGS[reading]} ({_view_words(plate)} {_said(plate)})"
    if reading in ("artefact", "mixed", "harm"):
        return MEANINGS[reading] + (f" ({also})" if also else "")
    kept = kept_share(parts)
    own = parts.part("own")
    if reading == "win" and parts.one_control and 1 not in [p.sign for p in other]:
        return "a gain, but with one control for all samples nothing tells it from control noise"
    if reading == "win" and own is not None and own.sign == 1 and kept is not None and kept < 0.5:
        return "a real gain, though most of the number on own control is control noise"
    if reading in ("within_noise", "no_gain"):
        groups = count_of(main.difference.n_groups, "group")
        if main.difference.ci is None:
            return f"too few groups ({groups})"
        said = f"within noise, so no gain is shown ({groups})" if reading == "within_noise" else MEANINGS[reading]
        return said + (f", though other measures move ({also})" if also else "")
    return MEANINGS[reading]


def _view_words(part: Part) -> str:
    return metric_label(part.metric)


def _said(part: Part) -> str:
    text = number(part.difference.value, sign=True)
    return f"{text} {interval(part.difference.ci, sign=True)}".strip()
