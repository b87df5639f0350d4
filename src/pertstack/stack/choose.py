"""The choice: which combiner ships, decided on nested out-of-fold scores, and why, in words with numbers.

Highest nested primary score; one-standard-error rule towards the simpler; no-harm: the gain over the best single model
must have a one-sided lower bound above zero, and the panel must not lose beyond noise. Those within one standard error
of the best are tried from the simplest on, then what is simpler still, and in the end the best single model ships.
The held-out test plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pertstack._base.errors import InputError, unknown_name
from pertstack.reduce.metrics.names import parse_metric
from pertstack.reduce.score_table import ScoreTable
from pertstack.stack.combiner import FLEXIBLE
from pertstack.stack.nested import NestedFits
from pertstack.stack.panel import NO_HARM, Gain, Panel

BEST_SINGLE = "best_single"
Rule = Literal["no_harm_ladder", "best"]
FEW_GROUPS = 20


@dataclass(frozen=True)
class Rung:
    """One combiner that was considered for shipping."""

    name: str
    complexity: int
    score: float  # nested primary score, larger is better
    gain: Gain  # over the best single model, primary metric
    bound: float  # one-sided lower bound of the gain, less the optimism of having picked the best
    passed: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "complexity": self.complexity, "score": self.score, "gain": self.gain.to_json(),
            "bound": self.bound, "passed": self.passed, "why": self.why,
        }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What ships, how it was arrived at, and what was marked on the way."""

    chosen: str
    best_single: str  # the base model that the final best_single fit names
    primary: str
    ladder: tuple[Rung, ...]  # in the order tried
    panel: dict[str, tuple[Gain, ...]]  # every candidate's gains over the best single model
    marked: dict[str, str]  # shown, but not to be shipped: name -> why
    reasons: tuple[str, ...]
    optimism: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "chosen": self.chosen,
            "best_single": self.best_single,
            "primary": self.primary,
            "ladder": [r.to_json() for r in self.ladder],
            "panel": {name: [g.to_json() for g in gains] for name, gains in self.panel.items()},
            "marked": self.marked,
            "reasons": list(self.reasons),
            "optimism": self.optimism,
        }


def choose(
    table: ScoreTable,
    nested: NestedFits,
    *,
    primary: str | None = None,
    no_harm: Sequence[str] = NO_HARM,
    level: float = 0.05,
    tolerance: float = 0.01,
    n_draws: int = 2000,
    seed: int = 0,
    trust_partial: bool = False,
    rule: Rule = "no_harm_ladder",
) -> Choice:
    """Choose a combiner from nested out-of-fold scores.

    Parameters
    ----------
    table : scores of out-of-fold rows, from ``score(source, nested.combines(), ...)``.
    primary : metric to choose by; default that of the nested fits.
    no_harm : metrics that must not lose beyond noise; those the table lacks are named in the reasons.
    tolerance : relative fall of a no-harm metric that counts as equal. Paired differences of similar answers are known
        so exactly that without it a loss of 0.001 on one metric would outweigh any gain on the primary one.
    level : one-sided level of every bound. n_draws, seed : of the bootstrap over groups.
    trust_partial : let flexible combiners ship although the nesting is partial (see ``untrusted``): only for
        predictions whose base models never met the other folds at all.
    rule : "no_harm_ladder" (the default), or "best": whatever scores highest, harm or not; what would not have shipped
        is still marked. Combiners whose score cannot be believed (partial nesting) stay out under either.

    Raises
    ------
    InputError
        The best single model is missing, so that there is nothing to compare with.
    """
    if BEST_SINGLE not in nested.final:
        why = "; ".join(str(f) for f in nested.failures if f.combiner == BEST_SINGLE) or "it was not among the fits"
        raise InputError(f"Nothing can be chosen without the best single model to compare with: {why}.")
    primary = parse_metric(primary or str(nested.settings["primary"])).name
    there = [m for m in no_harm if parse_metric(m).name in table.metrics]
    candidates = [c.name for c in nested.combiners if c.candidate and c.name in table.names]
    panel = Panel.of(
        table, candidates, BEST_SINGLE, [primary, *there], level=level, n_draws=n_draws, seed=seed, tolerance=tolerance
    )
    if rule not in get_args(Rule):
        raise unknown_name("choice rule", rule, get_args(Rule))
    harmful = {
        name: f"{'marked' if rule == 'best' else 'not shipped'}: loses beyond noise against the best single model on "
        + "; ".join(map(str, losses))
        for name in candidates
        if (losses := panel.losses(name))
    }
    barred = {} if trust_partial else untrusted(nested, candidates)
    marked = {**barred, **harmful}
    out = barred if rule == "best" else marked
    eligible = [n for n in candidates if n not in out and n != BEST_SINGLE]
    optimism = panel.optimism(eligible)
    ladder = (_highest if rule == "best" else _climb_down)(panel, nested, eligible, optimism)
    chosen = next((r.name for r in ladder if r.passed), BEST_SINGLE)
    single = str(nested.final[BEST_SINGLE].weights()["facts"]["chosen"])
    reasons = _reasons(panel, nested, ladder, chosen, single, marked, optimism, level)
    missing = [m for m in no_harm if m not in there]
    if missing:
        reasons.append(f"Not judged for harm, because the score table lacks them: {', '.join(missing)}.")
    return Choice(chosen, single, primary, tuple(ladder), panel.gains, marked, tuple(reasons), optimism)


def untrusted(nested: NestedFits, candidates: Sequence[str]) -> dict[str, str]:
    """Flexible combiners whose score cannot be believed because the nesting is partial, with the reason.

    The base models behind the level-one rows of one fold were fitted on the fold that is scored; its means, gene by
    gene, can be read out of their predictions by weights that differ by gene (docs/decisions/0005-true-nesting.md).
    """
    if nested.settings.get("nesting") == "full":
        return {}
    why = (
        "not shipped: its out-of-fold score is too hopeful, since the base models behind its training rows were fitted "
        "on the scored fold (partial nesting); nested fits of every model would settle it"
    )
    return {name: why for name in candidates if nested.combiner(name).family in FLEXIBLE}


def _climb_down(panel: Panel, nested: NestedFits, eligible: Sequence[str], optimism: float) -> list[Rung]:
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
            gain = panel.gains[name][0]
            bound = gain.lower - optimism
            why = f"best of {len(left)} left" if name == top else _closeness(panel, name, top)
            ladder.append(Rung(name, complexity[name], panel.score(name), gain, bound, bound > 0, why))
            if bound > 0:
                return ladder
        left = [n for n in left if complexity[n] < min(complexity[m] for m in near)]
    return ladder


def _closeness(panel: Panel, name: str, top: str) -> str:
    """How the one-standard-error rule came to try something that does not score highest."""
    behind, noise = panel.score(top) - panel.score(name), panel.se_between(top, name)
    return f"within one s.e. of {top}, which scores {panel.score(top):+.4f}: {behind:.4f} behind, s.e. {noise:.4f}"


def _highest(panel: Panel, nested: NestedFits, eligible: Sequence[str], optimism: float) -> list[Rung]:
    """The rule "best": one rung, the highest score, which ships if it is above the best single model's."""
    if not eligible:
        return []
    top = max(eligible, key=panel.score)
    gain = panel.gains[top][0]
    why = f"best of {len(eligible)}; by the rule 'best', without the no-harm ladder"
    complexity = nested.combiner(top).complexity
    return [Rung(top, complexity, panel.score(top), gain, gain.lower - optimism, gain.value > 0, why)]


def _reasons(
    panel: Panel,
    nested: NestedFits,
    ladder: Sequence[Rung],
    chosen: str,
    single: str,
    marked: dict[str, str],
    optimism: float,
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
            f"one-sided {share} lower bound {rung.bound:+.4f} after {optimism:.4f} for picking the best: {verdict}."
        )
    if chosen == BEST_SINGLE:
        said.append(f"No combination is shown to beat {single}, so {single} ships alone.")
    said += [f"{name}: {why}." for name, why in marked.items()]
    said += [f"{failure}." for failure in nested.failures]
    if panel.n_groups < FEW_GROUPS:
        said.append(f"Only {panel.n_groups} groups: bounds are a rough guide.")
    return said
