"""The choice: which combiner ships, decided on nested out-of-fold scores, and why, in words with numbers.

First the ladder: within one standard error of the highest primary score the simplest is tried, then what is simpler
still; it ships when its gain over the best single model is above zero, corrected once for everything tried, and the
panel does not lose beyond noise. If nothing is proven the best single model ships, unless it is a constant and an
answer that is none is shown to be as good; by the rule "safe_gain", the best plain or global combination that is shown
not to be worse on any metric of the panel comes before it (docs/decisions/0011). The held-out test plays no
part.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import get_args

import numpy as np

from pertstack._base.errors import InputError, unknown_name
from pertstack._stats.shared_parts import Parts
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.scoring.panels import WITHIN_PLATE
from pertstack.reduce.scoring.score_table import ScoreTable, refuse_undefined
from pertstack.stacking.choice import BEST_INFORMED, BEST_SINGLE, Choice, Rule, Rung
from pertstack.stacking.combiner import FLEXIBLE, Family
from pertstack.stacking.constants import is_constant
from pertstack.stacking.nested import NestedFits
from pertstack.stacking.panel import NO_HARM, Panel

PLAIN: frozenset[Family] = frozenset({"reference", "global"})
"""Families whose score can be believed without nested fits: what may ship without a proven gain."""
FEW_GROUPS = 20


def choose(
    table: ScoreTable,
    nested: NestedFits,
    *,
    primary: str | None = None,
    no_harm: Sequence[str] = NO_HARM,
    level: float = 0.05,
    tolerance: float = 0.01,
    ranges: Mapping[str, float] | None = None,
    constants: Collection[str] = (),
    n_draws: int = 2000,
    seed: int = 0,
    trust_partial: bool = False,
    rule: Rule = "no_harm_ladder",
    parts: Parts | None = None,
    no_vote: Mapping[str, str] | None = None,
) -> Choice:
    """Choose a combiner from nested out-of-fold scores.

    Parameters
    ----------
    table : scores of out-of-fold rows, from ``score(source, nested.combines(), ...)``.
    nested : the fits behind these scores.
    primary : metric to choose by; default that of the nested fits.
    no_harm : metrics that must not lose beyond noise; those the table lacks are named in the reasons. Where the table
        holds correlations within plates, they belong to them.
    level : one-sided level of every bound.
    tolerance : share of a metric's range that counts as equal. Paired differences of similar answers are known so
        exactly that without it a loss of 0.001 on one metric would outweigh any gain on the primary one.
    ranges : metric -> distance from the mean of the other perturbations to a perfect score; see ``Panel.of``.
    constants : base models that say the same for every perturbation; a combination of them alone is one too.
    n_draws, seed : of the sign flips of groups.
    trust_partial : let flexible combiners ship although the nesting is partial (see ``untrusted``): only for
        predictions whose base models never met the other folds at all.
    rule : "no_harm_ladder" (the default): the ladder alone; "safe_gain": the ladder, else what is shown not to be worse
        and gains in expectation; "best": whatever scores highest, harm or not; what would not have shipped
        is still marked. Combiners whose score cannot be believed (partial nesting) stay out under any.
    parts : of groups that share some (``design.plan.groups.shared_parts``), which widens every error.
    no_vote : metric on which a loss bars nothing, because a constant beats a replicate there -> its numbers
        (``reduce.scoring.calibration.without_vote``). Never the primary.

    Raises
    ------
    InputError
        The best single model is missing, so that there is nothing to compare with; or no row has a primary score.
    """
    if BEST_SINGLE not in nested.final:
        why = "; ".join(str(f) for f in nested.failures if f.combiner == BEST_SINGLE) or "it was not among the fits"
        raise InputError(f"Nothing can be chosen without the best single model to compare with: {why}.")
    if rule not in get_args(Rule):
        raise unknown_name("choice rule", rule, get_args(Rule))
    primary = parse_metric(primary or str(nested.settings["primary"])).name
    refuse_undefined(table, primary, "Decide on another: `pertstack plan STUDY --primary r2_top20@pooled`.")
    there = [m for m in no_harm if parse_metric(m).name in table.metrics]
    there += [WITHIN_PLATE] if WITHIN_PLATE in table.metrics and WITHIN_PLATE not in there else []
    candidates = [c.name for c in nested.combiners if c.candidate and c.name in table.names]
    panel = Panel.of(
        table,
        candidates,
        BEST_SINGLE,
        metrics=[primary, *there],
        level=level,
        tolerance=tolerance,
        ranges=ranges,
        parts=parts,
        no_vote=no_vote or (),
    )
    barred = {} if trust_partial else untrusted(nested, candidates)
    marked = {**barred, **_harmful(panel, candidates, rule)}
    out = barred if rule == "best" else marked
    eligible = [n for n in candidates if n not in out and n not in (BEST_SINGLE, BEST_INFORMED)]
    critical = panel.critical(eligible, BEST_SINGLE, level, n_draws=n_draws, seed=seed)
    ladder = (_highest if rule == "best" else _climb_down)(panel, nested, eligible, critical)
    if rule == "safe_gain" and not any(r.passed for r in ladder):
        ladder += _safe_gain(panel, nested, eligible, critical)
    chosen = next((r.name for r in ladder if r.passed), BEST_SINGLE)
    constant = {n for n in candidates if is_constant(nested.final[n], constants)}
    if rule != "best" and chosen in constant:
        ladder += (
            instead := _not_constant(panel, nested, [n for n in candidates if n not in {*out, *constant}], critical)
        )
        chosen = instead[-1].name if instead else chosen
    single = str(nested.final[BEST_SINGLE].weights()["facts"]["chosen"])
    reasons = [
        *_reasons(panel, nested, ladder, chosen=chosen, single=single, marked=marked, critical=critical, level=level),
        *_limits(panel, chosen=chosen, single=single, constant=constant, no_vote=no_vote or {}),
    ]
    missing = [m for m in no_harm if m not in there]
    if missing:
        reasons.append(f"Not judged for harm, because the score table lacks them: {', '.join(missing)}.")
    return Choice(
        chosen,
        single,
        primary,
        ladder=tuple(ladder),
        panel=panel.gains,
        marked=marked,
        reasons=tuple(reasons),
        critical=critical,
        constant=chosen in constant,
        no_vote=dict(no_vote or {}),
        picked=tuple(str(fit.weights()["facts"]["chosen"]) for fit in nested.fits[BEST_SINGLE].values()),
    )


def _harmful(panel: Panel, candidates: Sequence[str], rule: Rule) -> dict[str, str]:
    """Candidates that lose beyond noise on a metric beside the primary, with the losses in words."""
    said = "marked" if rule == "best" else "not shipped"
    return {
        name: f"{said}: loses beyond noise against the best single model on {'; '.join(map(str, losses))}"
        for name in candidates
        if (losses := panel.losses(name))
    }


def untrusted(nested: NestedFits, candidates: Sequence[str]) -> dict[str, str]:
    """Flexible combiners whose score cannot be believed because the nesting is partial, with the reason.

    The base models behind the level-one rows of one fold were fitted on the fold that is scored; its means, gene by
    gene, can be read out of their predictions by slopes of either sign with an intercept for every gene
    (docs/decisions/0005-true-nesting.md). Weights that are not negative, or shared by many genes without such an
    intercept, cannot: if they were scored both ways the score without nested fits was not too hopeful
    (docs/lab/partial-nesting.md).
    """
    if nested.settings.get("nesting") == "full":
        return {}
    why = (
        "not shipped: its out-of-fold score is too hopeful, since the base models behind its training rows were fitted "
        "on the scored fold (partial nesting); nested fits of every model would settle it"
    )
    barred = [c.name for c in map(nested.combiner, candidates) if c.family in FLEXIBLE and c.needs_nested]
    return dict.fromkeys(barred, why)


def _climb_down(panel: Panel, nested: NestedFits, eligible: Sequence[str], critical: float) -> list[Rung]:
    """Rungs in the order tried, the last of which passed if any did.

    Each time those within one standard error of the best of what is left are tried, simplest first; when none passes,
    only simpler ones than all of them are left.
    """
    complexity = {n: nested.combiner(n).complexity for n in eligible}
    left, ladder = list(eligible), list[Rung]()
    while left:
        top = max(left, key=panel.score)
        near = [n for n in left if panel.score(top) - panel.score(n) <= panel.se_between(top, n)]
        for name in sorted(near, key=lambda n: (complexity[n], -panel.score(n))):
            why = f"best of {len(left)} left" if name == top else _closeness(panel, name, top)
            ladder.append(_rung(panel, nested, name, critical=critical, why=why))
            if ladder[-1].passed:
                return ladder
        left = [n for n in left if complexity[n] < min(complexity[m] for m in near)]
    return ladder


def _rung(panel: Panel, nested: NestedFits, name: str, critical: float, why: str, passed: bool | None = None) -> Rung:
    gain = panel.gains[name][0]
    bound = gain.value - critical * gain.se if gain.se > 0 else gain.value if np.isfinite(critical) else -critical
    passed = bound > _rounding(panel, name) if passed is None else passed
    return Rung(
        name,
        nested.combiner(name).complexity,
        panel.score(name),
        gain=gain,
        bound=float(bound),
        passed=bool(passed),
        why=why,
    )


def _rounding(panel: Panel, name: str) -> float:
    """A gain that is no more than this is rounding: scores are kept in float32."""
    return 1e-6 * abs(panel.score(name))


def _safe_gain(panel: Panel, nested: NestedFits, eligible: Sequence[str], critical: float) -> list[Rung]:
    """One rung: the simplest within one standard error of the best plain or global combination that gains in
    expectation and is shown not to be worse on any metric; none if there is none."""
    safe = [
        n
        for n in eligible
        if nested.combiner(n).family in PLAIN and panel.gains[n][0].value > 0 and not panel.inferior(n)
    ]
    if not safe:
        return []
    top = max(safe, key=panel.score)
    near = [n for n in safe if panel.score(top) - panel.score(n) <= panel.se_between(top, n)]
    name = min(near, key=lambda n: (nested.combiner(n).complexity, -panel.score(n)))
    why = "gains in expectation and is shown not to be worse on any metric of the panel"
    return [_rung(panel, nested, name, critical=critical, why=why, passed=True)]


def _not_constant(panel: Panel, nested: NestedFits, able: Sequence[str], critical: float) -> list[Rung]:
    """One rung: the best-scoring plain or global answer that is no constant and is shown not to be worse anywhere."""
    safe = [n for n in able if nested.combiner(n).family in PLAIN and n != BEST_SINGLE and not panel.inferior(n)]
    if not safe:
        return []
    name = max(safe, key=panel.score)
    why = "in place of a constant, than which it is shown not to be worse on any metric of the panel"
    return [_rung(panel, nested, name, critical=critical, why=why, passed=True)]


def _closeness(panel: Panel, name: str, top: str) -> str:
    """How the one-standard-error rule came to try something that does not score highest."""
    behind, noise = panel.score(top) - panel.score(name), panel.se_between(top, name)
    return f"within one s.e. of {top}, which scores {panel.score(top):+.4f}: {behind:.4f} behind, s.e. {noise:.4f}"


def _highest(panel: Panel, nested: NestedFits, eligible: Sequence[str], critical: float) -> list[Rung]:
    """The rule "best": one rung, the highest score, which ships if it is above the best single model's."""
    if not eligible:
        return []
    top = max(eligible, key=panel.score)
    why = f"best of {len(eligible)}; by the rule 'best', without the no-harm ladder"
    return [
        _rung(panel, nested, top, critical=critical, why=why, passed=panel.gains[top][0].value > _rounding(panel, top))
    ]


def _reasons(
    panel: Panel,
    nested: NestedFits,
    ladder: Sequence[Rung],
    chosen: str,
    single: str,
    marked: dict[str, str],
    critical: float,
    level: float,
) -> list[str]:
    share = f"{100 * (1 - level):.0f} %"
    said = [
        f"Primary metric {panel.metrics[0]}; best single model {single}, {panel.score(BEST_SINGLE):+.4f} out of fold "
        f"(chosen anew inside every fold); {panel.n_groups:,} groups resampled."
    ]
    for rung in ladder:
        verdict = "passes" if rung.passed else "not enough"
        said.append(
            f"{rung.name} ({rung.why}): {rung.score:+.4f}, gain {rung.gain.value:+.4f} (s.e. {rung.gain.se:.4f}), "
            f"one-sided {share} lower bound {rung.bound:+.4f} ({critical:.2f} s.e. for all tried): {verdict}."
        )
    if chosen == BEST_SINGLE:
        said.append(f"No combination is shown to beat {single}, so {single} ships alone.")
    said += [f"{name}: {why}." for name, why in marked.items()]
    said += [f"{failure}." for failure in nested.failures]
    if panel.n_groups < FEW_GROUPS:
        said.append(f"Only {panel.n_groups} groups: bounds are a rough guide.")
    return said


def _limits(
    panel: Panel, *, chosen: str, single: str, constant: Collection[str], no_vote: Mapping[str, str]
) -> list[str]:
    """What must be known of an answer beside how it was found: that it is a constant; metrics without a vote."""
    said = [
        f"{metric_label(m)} has no vote: a constant beats a replicate on it ({words})."
        for m, words in no_vote.items()
        if m in panel.metrics
    ]
    if chosen in constant:
        said.append(
            f"What ships is a constant: {single if chosen == BEST_SINGLE else chosen} says the same for every "
            "perturbation. No answer that tells them apart was shown to be as good on every metric of the panel."
        )
    return said
