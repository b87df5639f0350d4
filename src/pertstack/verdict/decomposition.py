"""What a gain is made of: how much of it survives when the shared control or the easy samples are taken away.

A sample's own control sits on both sides of the canonical metric, so a combiner can gain there by predicting control
noise. The same paired difference is therefore taken on every reference, on RMSE and on strata, and read into one plain
sentence. How an interval is made is the business of ``inference.py``: a ``Compare`` is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from pertstack.verdict.words import count_of, direction, find_metric, interval, metric_label, number, split_metric

Array = np.ndarray[Any, Any]
Reading = Literal["win", "control_noise", "artefact", "mixed", "within_noise", "no_gain", "harm", "none"]
MEANINGS: dict[Reading, str] = {
    "win": "a real gain",
    "control_noise": "mostly control noise",
    "artefact": "an artefact of the shared control",
    "mixed": "the measures disagree",
    "within_noise": "within noise",
    "no_gain": "no gain",
    "harm": "worse than the best single model",
    "none": "nothing to compare",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired mean difference in units of the metric; ``ci`` None where there are too few groups to say."""

    value: float | None
    ci: tuple[float, float] | None = None
    p: float | None = None
    n: int = 0  # samples on which both are defined
    n_groups: int = 0


Compare = Callable[[Array, Array, Array], Difference]
"""From per-sample scores of two competitors (n,) with NaN and the groups (n,) to their paired difference."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the decomposition. ``sign`` is +1 / -1 when the interval shows a gain / a loss, else 0."""

    view: str  # "own", "pooled", "matched", "centroid", "rmse", or a stratum such as "effect quartile"
    level: str  # "" for the whole, else "Q1", "A375", "seen"
    metric: str
    difference: Difference
    better: int = 1  # +1: more is better
    hollow: bool = False  # a correlation that is still not above 0: to be less wrong is no gain

    @property
    def sign(self) -> int:
        ci = self.difference.ci
        if ci is None:
            return 0
        lo, hi = sorted(self.better * bound for bound in ci)
        return (0 if self.hollow else 1) if lo > 0 else -1 if hi < 0 else 0

    @property
    def gain(self) -> float | None:
        """The difference with its sign turned so that more is better."""
        return None if self.difference.value is None else self.better * self.difference.value


@dataclass(frozen=True)
class Decomposition:
    """The gain of one combiner over the best single model, taken apart."""

    name: str
    best_single: str
    primary: str
    parts: tuple[Part, ...]
    reading: Reading
    headline: str
    one_control: bool = False  # own and pooled control are the same here: nothing can be taken apart by them

    def part(self, view: str, level: str = "") -> Part | None:
        """One line, or None when it could not be computed."""
        return next((p for p in self.parts if (p.view, p.level) == (view, level)), None)

    @property
    def caution(self) -> str | None:
        """The mark a leaderboard row carries, if any."""
        marks: Mapping[str, str] = {
            "artefact": "artefact: gains on own control, loses without the shared control",
            "control_noise": "most of the gain on own control is control noise",
            "mixed": "the measures disagree: some gain, others lose",
        }
        return marks.get(self.reading)

    def to_frame(self) -> pd.DataFrame:
        """One line per part."""
        return pd.DataFrame([
            {"view": p.view, "level": p.level, "metric": p.metric, "difference": p.difference.value,
             "ci_lo": p.difference.ci[0] if p.difference.ci else None,
             "ci_hi": p.difference.ci[1] if p.difference.ci else None,
             "p": p.difference.p, "n": p.difference.n, "n_groups": p.difference.n_groups, "sign": p.sign}
            for p in self.parts
        ])  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        parts = [asdict(p) | {"sign": p.sign, "gain": p.gain} for p in self.parts]
        return {
            "name": self.name, "best_single": self.best_single, "primary": self.primary, "reading": self.reading,
            "headline": self.headline, "one_control": self.one_control, "parts": parts,
        }  # fmt: skip


def decompose(
    name: str,
    best_single: str,
    scores: Mapping[str, tuple[Array, Array]],
    *,
    primary: str,
    groups: Array,
    compare: Compare,
    strata: Mapping[str, Sequence[str | None]] | None = None,
    primary_difference: Difference | None = None,
) -> Decomposition:
    """Take the gain of ``name`` over ``best_single`` apart.

    Parameters
    ----------
    scores : mapping of metric to (scores of name, scores of best_single), each (n,) with NaN where undefined
        Looked through for the primary metric under own / pooled / centroid, ``pearson_all@centroid`` and RMSE.
    primary : str
        The deciding metric, such as ``r2_top20@pooled``; must be among ``scores``.
    groups : (n,)
        Group (usually perturbation) of every sample; whole groups are resampled by ``compare``.
    strata : mapping of view to a level per sample, or None per sample where it does not apply
        Such as effect quartiles, cell lines, seen / unseen perturbations; compared on the primary metric.
    primary_difference : Difference, optional
        Used for the primary metric as a whole in place of ``compare``: there the interval holds against every base
        model that may be the best, which a pair of rows cannot say.

    Limit cases: a combiner that is the best single model, or scores the same everywhere, reads ``none``; a stratum with
    no sample valid for both has a difference of None; where all samples share one control, own and pooled are one view
    and the sentence says so.
    """
    parts = []
    for view, metric in panel_metrics(scores, primary).items():
        given = primary_difference if metric == primary else None
        difference = compare(*scores[metric], groups) if given is None else given
        parts.append(Part(view, "", metric, difference, direction(metric), _hollow(metric, scores[metric][0])))
    first, second = scores[primary]
    for view, levels in (strata or {}).items():
        labels = np.asarray(levels, dtype=object)
        for level in _ordered(x for x in labels if x is not None):
            here = labels == level
            difference = compare(first[here], second[here], groups[here])
            parts.append(Part(view, level, primary, difference, direction(primary)))
    whole = Decomposition(name, best_single, primary, tuple(parts), "none", "", _one_control(scores, primary))
    if name == best_single:
        return replace(whole, headline=f"{name} is the best single model itself: there is no combination to judge.")
    if all(np.array_equal(*pair, equal_nan=True) and np.isfinite(pair[0]).any() for pair in scores.values()):
        return replace(whole, headline=f"{name} scores as {best_single} on every sample: it is that model alone.")
    reading = read(whole)
    return replace(whole, reading=reading, headline=headline(whole, reading))


def _hollow(metric: str, values: Array) -> bool:
    """Whether a signed correlation agrees with the truth no better than chance would: its mean is not above 0."""
    defined = values[~np.isnan(values)]
    return metric.startswith("pearson") and len(defined) > 0 and float(defined.mean()) <= 0


def _one_control(scores: Mapping[str, tuple[Array, Array]], primary: str) -> bool:
    """Whether own and pooled control give the same scores, as when all samples share the mean of all vehicle wells."""
    stem = split_metric(primary)[0]
    found = [find_metric(scores, f"{stem}@{reference}") for reference in ("own", "pooled")]
    if None in found:
        return False
    own, pooled = (scores[m] for m in found if m is not None)
    return all(np.allclose(a, b, rtol=0, atol=1e-5, equal_nan=True) for a, b in zip(own, pooled, strict=True))


def panel_metrics(known: Iterable[str], primary: str) -> dict[str, str]:
    """Which metric stands for own, pooled, matched, centroid, rmse; views that were not computed are left out."""
    listed, (metric, reference) = list(known), split_metric(primary)
    wanted = {
        "own": [f"{metric}@own"],
        "pooled": [f"{metric}@pooled"],
        "matched": [f"{metric}@matched"],
        "centroid": ["pearson_all@centroid", f"{metric}@centroid"],
        "rmse": ["rmse_all", "rmse_all@pooled", "rmse_top20"],
    }
    if reference not in wanted:
        wanted = {reference: [primary], **wanted}
    found = {view: [m for w in names if (m := find_metric(listed, w))] for view, names in wanted.items()}
    return {view: names[0] for view, names in found.items() if names}


def read(parts: Decomposition) -> Reading:
    """The one-word reading of the panel; see ``MEANINGS``.

    Own control is the coupled view: a gain there alone is worth nothing. An artefact gains on own control, loses on
    some uncoupled view and gains on none of the others; where uncoupled views point both ways, the measures disagree
    and the reading says so rather than taking sides.
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
        return "win"
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
        begin = [f"{_said(main)} on own control, which all samples share, so that pooled is the same"]
    elif pooled is not None and pooled.difference.value is not None:
        begin.append(_remaining(own, pooled))
    if reference not in ("own", "pooled"):
        begin.append(f"{_said(main)} against the {reference}")
    joined = ", ".join(begin)
    return f"{who}: {joined}: {_meaning(parts, reading, main)}."


def _remaining(own: Part | None, pooled: Part) -> str:
    """The pooled part, worded as a remainder only where it is one."""
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


def _ordered(levels: Iterable[str]) -> list[str]:
    return sorted({str(x) for x in levels if not (isinstance(x, float) and math.isnan(x))})


def effect_quartiles(effect_size: Array) -> list[str | None]:
    """Q1 (weakest) to Q4 (strongest) by effect size (n,); None where it is NaN or where fewer than 8 samples are known.

    Cut at the quartiles of the known values; equal values stay together.
    """
    known = np.isfinite(effect_size)
    if known.sum() < 8:
        return [None] * len(effect_size)
    cuts = np.quantile(effect_size[known], [0.25, 0.5, 0.75])
    which = np.searchsorted(cuts, effect_size, side="left")
    return [f"Q{w + 1}" if k else None for w, k in zip(which, known, strict=True)]
