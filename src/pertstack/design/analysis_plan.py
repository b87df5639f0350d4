"""The analysis plan: what will be measured and how one combiner will be chosen, said before the held-out test is
opened.

The plan lives in ``plan.toml`` for people and is recognised by the digest of its content. The first look locks it, and
the lock is an entry of the ledger: editing the file afterwards is seen at the next look. Opening the test and printing
the marks is handled by ``verdict/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pertstack._base.digests import digest_json
from pertstack._base.errors import CorruptionError, InputError, MissingFileError, PlanLockedError, unknown_name
from pertstack._base.files import require_plain, write_atomic
from pertstack._base.shown import count_of
from pertstack.design.ledger import LOOK, Ledger
from pertstack.design.metric_names import parse_metric, split_metric

Reference = Literal["own", "pooled", "centroid", "matched"]
ChoiceRule = Literal["safe_gain", "no_harm_ladder", "best"]
LooksRule = Literal["plain", "ladder", "thresholdout"]
AUTO = "auto"
"""Primary metric that the development rows settle: the first of a declared order that is calibrated."""
LOCKED, CHANGED, EXTRA_LOOK, OPENED = "plan_locked", "plan_changed", "look_beyond_plan", "test_opened"
_COMMENTS = {
    "primary": "the metric that decides, as metric@reference; auto: the first that tells a replicate from a constant",
    "settled": "what auto was settled on, from development rows; written by `pertstack calibrate` and `stack`",
    "settled_by": "the numbers behind it",
    "reference": "control reference of choosing: own, pooled, matched or centroid; weights learn on own or pooled",
    "k": "read by nothing, kept for plans of older studies: the metric's name says how many top genes",
    "grouping": "what whole groups are held out and resampled",
    "combiners": "candidates; an empty list stands for all of them",
    "choice_rule": "no_harm_ladder: proven gain only; safe_gain: else a gain shown not to harm; best: the top score",
    "no_harm_level": "one-sided level at which a richer combiner must gain",
    "looks": "how often the held-out test will be opened",
    "looks_rule": "how much each look reveals: plain (everything), or one number by ladder or thresholdout",
    "seed": "of everything that draws",
}


@dataclass(frozen=True)
class AnalysisPlan:
    """What was promised. Equal content gives an equal digest, however the file is written."""

    primary: str = AUTO
    reference: Reference = "pooled"
    k: int = 20
    grouping: str = "perturbation"
    combiners: tuple[str, ...] = ()
    choice_rule: ChoiceRule = "no_harm_ladder"
    no_harm_level: float = 0.05
    looks: int = 1
    seed: int = 0
    looks_rule: LooksRule = "plain"
    settled: str = ""
    settled_by: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "combiners", tuple(self.combiners))
        if self.primary != AUTO:
            parse_metric(self.primary)
        for name, kind in (("reference", Reference), ("choice_rule", ChoiceRule), ("looks_rule", LooksRule)):
            if getattr(self, name) not in get_args(kind):
                raise unknown_name(name.replace("_", " "), str(getattr(self, name)), get_args(kind))
        if self.k < 2 or self.looks < 1:
            raise InputError(
                f"k is {self.k} and looks {self.looks}; k is at least 2 genes, and at least one look is planned."
            )
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; nothing can be drawn with it. Take a whole number from 0 on.")
        if not 0 < self.no_harm_level < 0.5:
            raise InputError(f"no_harm_level is {self.no_harm_level}; it is an error rate above 0 and below 0.5.")
        twice = sorted({c for c in self.combiners if self.combiners.count(c) > 1})
        if twice:
            raise InputError(f"The candidate combiners name {', '.join(twice)} twice.")

    @property
    def digest(self) -> str:
        """Digest of the content. An entry added later does not change the digest of plans that leave it at its
        default."""
        content = self.to_json()
        later = {("looks_rule", "plain"), ("settled", ""), ("settled_by", "")}
        return digest_json({k: v for k, v in content.items() if not isinstance(v, str) or (k, v) not in later})

    @property
    def choice_metric(self) -> str:
        """Metric on out-of-fold rows by which models and combiners are chosen, as ``r2_top20@pooled``.

        The primary metric; if it is against the sample's own control (or says no reference), against the plan's
        ``reference`` instead. A primary that names the pooled or matched control or the centroid means it. ``auto`` is
        what it was settled on.

        Raises
        ------
        InputError
            The primary is ``auto`` and not settled yet.
        """
        if self.primary == AUTO:
            if not self.settled:
                raise InputError(
                    "The primary metric of the analysis plan is 'auto' and is not settled yet, so nothing can be "
                    "chosen by it. Run `pertstack calibrate STUDY` (`pertstack stack STUDY` does so too), or name a "
                    "metric: `pertstack plan STUDY --primary r2_top20@pooled`."
                )
            return self.settled
        stem, named = split_metric(self.primary)
        return f"{stem}@{self.reference if named == 'own' else named}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "combiners": list(self.combiners)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AnalysisPlan:
        """A plan from plain values.

        Raises
        ------
        UnknownNameError, InputError
            A key that is no part of a plan, or a value of the wrong kind.
        """
        known = {f.name: f.default for f in fields(cls)}
        for key, given in value.items():
            if key not in known:
                raise unknown_name("entry of the analysis plan", key, known)
            wanted: type = list if key == "combiners" else type(known[key])
            fits = isinstance(given, (list, tuple)) if wanted is list else isinstance(given, wanted)
            if isinstance(given, bool) or not (fits or (wanted is float and isinstance(given, int))):
                raise InputError(f"{key} of the analysis plan is {given!r}; expected a value such as {known[key]!r}.")
        return cls(**{**value, "combiners": tuple(map(str, value.get("combiners", ())))})

    def changed(self, **changes: Any) -> AnalysisPlan:
        """The plan with other values. Another primary forgets what ``auto`` was settled on."""
        forgotten = {"settled": "", "settled_by": ""} if changes.get("primary", self.primary) != self.primary else {}
        return AnalysisPlan.from_json({**self.to_json(), **forgotten, **changes})

    def differences(self, other: AnalysisPlan) -> dict[str, list[Any]]:
        """Entries that differ, as [here, there]."""
        here, there = self.to_json(), other.to_json()
        return {key: [here[key], there[key]] for key in here if here[key] != there[key]}

    def save(self, path: Path) -> None:
        """Write ``plan.toml`` with a word on each entry."""
        document = tomlkit.document()
        document.add(
            tomlkit.comment("The analysis plan. Edit it before the first look at the held-out test; a look locks it.")
        )
        for key, value in self.to_json().items():
            item = tomlkit.item(value)
            item.comment(_COMMENTS[key])
            document.add(key, item)
        write_atomic(Path(path), tomlkit.dumps(document).encode())

    @classmethod
    def load(cls, path: Path) -> AnalysisPlan:
        """Read ``plan.toml``; an entry that is left out has its default."""
        path = Path(path)
        require_plain(path)
        try:
            value = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
        except FileNotFoundError as error:
            raise MissingFileError(f"{path} does not exist; `pertstack init` writes the analysis plan.") from error
        except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptionError(
                f"{path} is not valid TOML ({error}). Correct the line, or restore the file."
            ) from error
        return cls.from_json(value)


@dataclass(frozen=True)
class LookPermit:
    """The answer to "may the test be opened now": which look it is, and whether its result is marked exploratory."""

    number: int  # 1 for the first look
    planned: int
    exploratory: bool
    locked_digest: str | None


def locked_plan(ledger: Ledger) -> AnalysisPlan | None:
    """The plan that was locked first, or None."""
    locks = ledger.of_kind(LOCKED)
    return AnalysisPlan.from_json(locks[0].facts["plan"]) if locks else None


def is_exploratory(ledger: Ledger) -> bool:
    """Whether results of this study are marked: the plan was changed after its lock, a look went beyond it, or the
    truth of the test was exported before the last planned look."""
    return any(e.kind in (CHANGED, EXTRA_LOOK) or (e.kind == OPENED and e.facts["early"]) for e in ledger.entries())


def lock(plan: AnalysisPlan, ledger: Ledger, **facts: Any) -> None:
    """Write the lock into the ledger; a second lock of the same plan is nothing new.

    Raises
    ------
    PlanLockedError
        Another plan is locked.
    """
    require_unlocked_or_same(plan, ledger)
    if locked_plan(ledger) is None:
        ledger.append(LOCKED, plan=plan.to_json(), analysis_plan_digest=plan.digest, **facts)


def require_unlocked_or_same(plan: AnalysisPlan, ledger: Ledger, *, exploratory: bool = False) -> bool:
    """Whether results under this plan are exploratory; refuses a plan that differs from the locked one.

    Parameters
    ----------
    plan : as it is now.
    ledger : holds the locked one, if any.
    exploratory : admit a differing plan: the change goes into the ledger, and every later result of the study is marked
        for good.

    Raises
    ------
    PlanLockedError
        The plan was locked with other content and ``exploratory`` was not asked for.
    """
    promised = locked_plan(ledger)
    if promised is None:
        return is_exploratory(ledger)
    changes = promised.differences(plan)
    admitted = [AnalysisPlan.from_json(e.facts["plan"]) for e in ledger.of_kind(CHANGED)]
    if not changes or (admitted and not admitted[-1].differences(plan)):
        return is_exploratory(ledger)
    if not exploratory:
        words = "; ".join(f"{key}: {was!r} -> {now!r}" for key, (was, now) in changes.items())
        raise PlanLockedError(
            f"The analysis plan was locked (digest {promised.digest[:12]}) before the test was opened, and differs "
            f"now: {words}. A choice made after seeing the test makes its numbers too hopeful. Put the plan back, or "
            "go on with --exploratory: then this and every later result of the study is marked."
        )
    ledger.append(CHANGED, plan=plan.to_json(), analysis_plan_digest=plan.digest, changes=changes)
    return True


def permit_look(plan: AnalysisPlan, ledger: Ledger, *, exploratory: bool = False) -> LookPermit:
    """May the held-out test be opened now? Locks the plan if it is not; the caller then writes the look, then looks.

    Parameters
    ----------
    plan : as it is now.
    ledger : earlier looks and the locked plan; a look beyond the planned ones is noted.
    exploratory : go on if it would be refused; every later result of the study is marked.

    Raises
    ------
    PlanLockedError
        The plan was changed since its lock, or all planned looks are used up, and ``exploratory`` was not asked for.
    """
    marked = require_unlocked_or_same(plan, ledger, exploratory=exploratory)
    if locked_plan(ledger) is None:
        lock(plan, ledger)
    promised = locked_plan(ledger)
    assert promised is not None
    number = len(ledger.of_kind(LOOK)) + 1
    if number > promised.looks and not marked:
        if not exploratory:
            raise PlanLockedError(
                f"The held-out test was opened {count_of(number - 1, 'time')} and the locked plan allows "
                f"{promised.looks}. Each look that steers a choice makes the test a little less held out. Read "
                "results/leaderboard.json of the last look, or look again with --exploratory: then this and every "
                "later result of the study is marked."
            )
        ledger.append(EXTRA_LOOK, number=number, planned=promised.looks)
        marked = True
    return LookPermit(number, promised.looks, marked, promised.digest)
