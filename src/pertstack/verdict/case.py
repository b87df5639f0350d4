"""What a decision hangs on: the facts of a study that ``decision.decide`` reads, and how gains are put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pertstack._stats.estimate import Difference
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import split_metric
from pertstack.verdict.gain.parts import Decomposition, Part
from pertstack.verdict.words import count_units, interval, number


@dataclass(frozen=True)
class Case:
    """What a decision hangs on.

    Parameters
    ----------
    chosen : what the plan's rule chose out of fold; None or a base model when a model ships alone.
    alone : the base model that ships when no combination does: the best out of fold, whatever the test says of others.
    gain : the gain of the chosen combination over the best single model; None when a model ships alone.
    split : "test", or "oof" while the held-out test is closed.
    primary, unit, n_groups : deciding metric; what is resampled and how many of them were scored.
    accused : model -> what a probe says of it, for models that take part.
    metric_doubt : why the deciding metric may not be able to decide; see ``reduce.calibration``.
    unproven : the chosen combination ships without a proven gain out of fold, by the rule ``safe_gain``.
    over_alone : the chosen combination less ``alone``, what would have shipped without it; ``better`` is the metric's
    sign. named : the same taken apart, where the best single model on the test is another; None elsewhere.
    at_once : names whose gain stands when all competitors are tested at once, and how many those are.
    refused : models that were not stacked, because a probe accuses them. accepted : accused ones that were stacked all
    the same, because somebody said so by name.
    """

    chosen: str | None
    alone: str
    gain: Decomposition | None
    split: Literal["test", "oof"]
    primary: str
    unit: str = "perturbation"
    n_groups: int = 0
    few_groups: int = 20
    exploratory: bool = False
    looks: int = 1
    planned_looks: int = 1
    accused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    accused_gravely: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()  # models that never see the perturbation
    at_once: tuple[Sequence[str], int] | None = None
    simulated: bool = False
    metric_doubt: str = ""
    unproven: bool = False
    over_alone: Difference | None = None
    named: Decomposition | None = None
    better: int = 1
    refused: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


def main_part(gain: Decomposition) -> Part | None:
    """The part of a gain that the deciding metric shows."""
    return gain.part(split_metric(gain.primary)[1])


def size_words(part: Part, *, signed: bool = False) -> str:
    """The gain with its interval, more being better whatever the metric; of a loss its size, unless ``signed``."""
    if signed and part.sign < 0:
        low_high = part.difference.ci and tuple(sorted(part.better * b for b in part.difference.ci))
        bounds = interval((low_high[0], low_high[1]), sign=True) if low_high else ""
        return f"{number(part.gain, sign=True)} {bounds}".strip()
    ci = None if part.difference.ci is None else tuple(sorted(part.better * b for b in part.difference.ci))
    signed = part.sign <= 0
    value = number(part.gain, sign=signed) if part.sign >= 0 else number(-(part.gain or 0.0))
    if ci is None:
        return value
    low, high = (ci[0], ci[1]) if part.sign >= 0 else (-ci[1], -ci[0])
    return f"{value} {interval((low, high), sign=signed and part.sign == 0)}".strip()


def metric_words(name: str) -> str:
    """A metric in words, its reference in brackets: ``R² Top-20 (pooled control)``."""
    bare, full = metric_label(name, reference=False), metric_label(name)
    return bare if bare == full else f"{bare} ({full.removeprefix(bare).lstrip(', ')})"


def where_scored(case: Case) -> str:
    """``, in 12 held-out perturbations``."""
    return f", in {count_units(case.n_groups, 'held-out ' + case.unit)}" if case.n_groups else ""


_MADE_OF = {"pooled": "the control's", "plate": "the plate's", "centroid": "the constant's"}
"""What a gain could be made of, by the view that would show it: only views that were measured are named."""


def not_made_of(gain: Decomposition) -> str:
    """``, and the gain is not the control's or the constant's``: for the views in which the gain was shown."""
    shown = [words for view, words in _MADE_OF.items() if shows(gain, view)]
    if not shown:
        return ""
    return f", and the gain is not {', '.join(shown[:-1])}{' or ' if len(shown) > 1 else ''}{shown[-1]}"


def shows(gain: Decomposition, view: str) -> bool:
    """Whether a view shows the gain; with one control per cell line the pooled one shows nothing of its own."""
    part = gain.part(view)
    return part is not None and part.sign == 1 and not (view == "pooled" and gain.one_control)


def disagreement(gain: Decomposition) -> str:
    """On which metrics a gain is shown, and on which a loss."""
    lost = [metric_label(p.metric) for p in gain.parts if not p.level and p.sign == -1]
    won = [metric_label(p.metric) for p in gain.parts if not p.level and p.sign == 1]
    return (f"; better on {'; '.join(won)}" if won else "") + (f"; worse on {'; '.join(lost)}" if lost else "")
