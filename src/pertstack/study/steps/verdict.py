"""The verdict step of a study: the held-out test is opened through ``HeldOutTruth`` and judged.

The look is in the ledger before the first truth is read. The same predictions and the same plan give the board that is
there already, without another look; a look that was interrupted is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pertstack._base.digests import canonical_json, digest_json
from pertstack._base.errors import CorruptionError, InputError
from pertstack._base.files import read_json, write_json
from pertstack._base.memory import parse_bytes
from pertstack._base.progress import progress_bar
from pertstack.design.analysis_plan import is_exploratory
from pertstack.fit.jobs import versions
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.store import PredictionStore
from pertstack.reduce.score import score
from pertstack.reduce.score_table import ScoreTable
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.registry import make_combiner
from pertstack.study.audit.probes import accused, stored_probes
from pertstack.study.check_facts import check_facts
from pertstack.study.folder import StudyFolder
from pertstack.study.held_out import HeldOutTruth, require_sealed_verdict, unfinished_look
from pertstack.study.looks import last_published, publish_look, with_published
from pertstack.study.members import doubts, is_simulated
from pertstack.study.steps.calibrate import stored_calibration
from pertstack.study.steps.stack import (
    development_source,
    evidence_key,
    learning_reference,
    level_one,
    panel_metrics,
    reduce_study,
)
from pertstack.verdict.board import Kind, Leaderboard
from pertstack.verdict.checks.checks import run_checks, write_checks
from pertstack.verdict.coverage import check_coverage
from pertstack.verdict.judge import Verdict, judge
from pertstack.verdict.replicates import ReplicatePredictor
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting


@dataclass(frozen=True)
class Stored:
    """The stack step as it lies on disk."""

    key: str
    chosen: str
    models: tuple[str, ...]
    combiners: dict[str, Any]
    accept_unverified: bool


def stored_stack(folder: StudyFolder) -> Stored:
    """What `pertstack stack` wrote; refused when predictions or plan changed since.

    Raises
    ------
    InputError
        There is none, or it is out of date.
    """
    path = folder.results / "weights.json"
    if not path.exists():
        first = "" if folder.store.models() else f" (after `pertstack fit {folder.root} --models ...`)"
        raise InputError(
            f"{folder.root} has no weights yet. Run `pertstack stack {folder.root}`{first}, then the verdict."
        )
    value = read_json(path)
    stored = Stored(
        value["key"], value["chosen"], tuple(value["models"]), value["combiners"], value["accept_unverified"]
    )
    gone = [m for m in stored.models if m not in folder.store.models()]
    now = None
    if not gone:
        source = development_source(folder, stored.models, accept_unverified=stored.accept_unverified)
        combiners = {name: facts["params"] for name, facts in stored.combiners.items()}
        now = evidence_key(source, folder.analysis_plan, combiners, accept_unverified=stored.accept_unverified)
    if now != stored.key:
        raise InputError(
            f"The predictions or the analysis plan changed since the weights were learned"
            f"{' (gone: ' + ', '.join(gone) + ')' if gone else ''}. Run `pertstack stack {folder.root}` again."
        )
    return stored


def final_fits(folder: StudyFolder, stored: Stored, *, workers: int, memory: str) -> dict[str, FittedCombiner]:
    """The combiners fitted on all development rows, learned again from the stored sums (they are deterministic).

    Raises
    ------
    CorruptionError
        They differ from ``weights.json``.
    """
    plan = folder.analysis_plan
    accept = stored.accept_unverified
    source = development_source(folder, stored.models, accept_unverified=accept)
    reduction = reduce_study(folder, stored.models, accept_unverified=accept, workers=workers, memory=memory)
    evidence = Evidence(reduction, learning_reference(plan), plan.choice_metric, plan.seed, source, folder.references)
    fits = {}
    for name, facts in stored.combiners.items():
        fits[name] = make_combiner(name, **facts.get("params", {})).fit(evidence)
        if canonical_json(fits[name].weights()) != canonical_json(facts["weights"]):
            raise CorruptionError(
                f"Combiner {name!r} learned again from the same sums does not give the weights of "
                f"{folder.results / 'weights.json'}: the file was edited, or pertstack changed since. "
                f"Run `pertstack stack {folder.root}` again."
            )
    return fits


def judge_study(folder: StudyFolder, *, exploratory: bool, workers: int, memory: str) -> Leaderboard:
    """Open the held-out test, or give the board of the look already made with the same predictions and plan.

    Raises
    ------
    InputError
        Nothing is stacked yet, or it is out of date.
    PlanLockedError
        The plan differs from the locked one, or all planned looks are used up.
    """
    stored = stored_stack(folder)
    plan = folder.analysis_plan
    done = folder.results / "verdict.json"
    if unfinished_look(folder) is None and done.exists() and read_json(done)["key"] == stored.key:
        require_sealed_verdict(folder)
        return Leaderboard.from_json(folder.results / "leaderboard.json")
    if not (folder.plan.table["role"] == "test").any():
        raise InputError(
            f"{folder.root} holds out no test (it was made with --test 0), so there is nothing to judge, and no look "
            f"was recorded. Its out-of-fold scores: pertstack stack {folder.root}. For a verdict make the study again "
            f"with --test 0.2."
        )
    fits = final_fits(folder, stored, workers=workers, memory=memory)
    look, truth = HeldOutTruth(folder).look(_intent(folder, stored), exploratory=exploratory)
    source = _test_source(folder, stored, truth)
    test = _score_test(folder, stored, fits, source, workers=workers, memory=memory)
    oof = ScoreTable.load(folder.results / "oof_scores.npz")
    if plan.looks_rule == "plain":
        write_json(folder.results / "coverage.json", _coverage(folder, stored, source, workers=workers, memory=memory))
        test.save(folder.results / "test_scores.npz")
    else:
        publish_look(folder, look.entry, stored.chosen, _best_single(folder), oof, test)
    verdict = _verdict(folder, stored, oof, test, look.number, look.exploratory)
    _write(folder, stored, verdict)
    return verdict.leaderboard


def _intent(folder: StudyFolder, stored: Stored) -> dict[str, Any]:
    """What a look is about to judge: by its digest an interrupted look is known again."""
    return {
        "key": stored.key, "plan_digest": folder.plan.digest, "analysis_plan_digest": folder.analysis_plan.digest,
        "models": list(stored.models), "chosen": stored.chosen, "weights": digest_json(stored.combiners),
    }  # fmt: skip


def _verdict(
    folder: StudyFolder, stored: Stored, oof: ScoreTable, test: ScoreTable | None, looks: int, exploratory: bool
) -> Verdict:
    """Judged on the test, or out of fold with the one row that the plan's rule of looks gave away."""
    plan, setting = folder.analysis_plan, _setting(folder, stored, looks, exploratory)
    if plan.looks_rule == "plain":
        return judge(test, oof, setting, GroupResampling(plan.seed))
    found = last_published(folder.ledger, plan.looks_rule)
    return with_published(judge(None, oof, setting, GroupResampling(plan.seed)), found, setting)


def _best_single(folder: StudyFolder) -> str:
    """The best base model as chosen out of fold."""
    return str(read_json(folder.results / "oof.json")["choice"]["best_single"])


def _score_test(
    folder: StudyFolder, stored: Stored, fits: dict[str, FittedCombiner], source: StoreSource, *, workers: int,
    memory: str,
) -> ScoreTable:  # fmt: skip
    plan = folder.analysis_plan
    combines: dict[str, Any] = {name: fit.combine for name, fit in fits.items() if name != "no_change"}
    replicates = ReplicatePredictor(source)
    if replicates.exists:
        combines["replicate"] = replicates
    metrics = panel_metrics(plan, folder.references, full=True)
    n_rows = sum(folder.store.n_samples(b) for b in source.blocks())
    with progress_bar() as bar:
        task = bar.add_task("scoring the held-out test", total=n_rows)
        table = score(
            source, combines, folder.references, metrics=metrics, memory=parse_bytes(memory), workers=workers,
            on_rows=lambda n: bar.advance(task, n),
        )  # fmt: skip
    return table.with_oracle(plan.choice_metric, stored.models)


def _test_source(folder: StudyFolder, stored: Stored, truth: PredictionStore) -> StoreSource:
    """Test rows with their truth: only this module makes one."""
    return StoreSource(
        folder.store, truth, "test", stored.models, groups=folder.plan.groups,
        accept_unverified=stored.accept_unverified, distance=folder.training_distance,
    )  # fmt: skip


def _coverage(folder: StudyFolder, stored: Stored, test: StoreSource, *, workers: int, memory: str) -> dict[str, Any]:
    """How often 90 % prediction intervals of the shipped combination hold the truth of the test, by cell line."""
    plan, accept = folder.analysis_plan, stored.accept_unverified
    development = development_source(folder, stored.models, accept_unverified=accept)
    reduction = reduce_study(folder, stored.models, accept_unverified=accept, workers=workers, memory=memory)
    chosen = make_combiner(stored.chosen, **stored.combiners[stored.chosen]["params"])
    nested = fit_nested(
        [chosen], reduction, source=development, references=folder.references, reference=learning_reference(plan),
        primary=plan.choice_metric, seed=plan.seed,
        level_one=level_one(folder, stored.models, workers=workers, memory=memory),
    )  # fmt: skip
    return check_coverage(
        development, nested.combines(without=())[stored.chosen], test,
        nested.final[stored.chosen].combine, folder.references, seed=plan.seed, memory=parse_bytes(memory),
    )  # fmt: skip


def kinds_of(stored: Stored) -> dict[str, Kind]:
    """base, combiner, reference or ceiling for every name on the board."""
    kinds: dict[str, Kind] = {}
    for name in stored.combiners:
        kinds[name] = "reference" if make_combiner(name).family == "reference" else "combiner"
    kinds.update({"no_change": "reference", "oracle": "ceiling", "replicate": "ceiling"})
    kinds.update({model: "base" for model in stored.models if model != "no_change"})
    return kinds


def _setting(folder: StudyFolder, stored: Stored, looks: int, exploratory: bool) -> Setting:
    plan, calibrated = folder.analysis_plan, stored_calibration(folder)
    oof = read_json(folder.results / "oof.json")
    cautions = {name: tuple(c) for name, c in oof["cautions"].items()}
    for name, why in oof["choice"]["marked"].items():
        cautions[name] = (*cautions.get(name, ()), why)
    for name, words in doubts(folder, [n for n in stored.combiners if n != "no_change"]).items():
        cautions[name] = (*cautions.get(name, ()), *words)
    suspects = accused(stored_probes(folder))
    developed = folder.samples.query("role == 'development'")
    return Setting(
        kinds_of(stored), plan.choice_metric, stored.chosen, folder.plan.group_by, folder.plan.digest, looks,
        exploratory, versions(), cautions, seen=frozenset(map(str, developed["perturbation"])),
        alone=oof["choice"]["best_single"],
        planned_looks=plan.looks,
        accused={m: tuple(w) for m, w in suspects.items() if m in stored.models},
        accused_gravely=frozenset(
            f.where for f in stored_probes(folder) if f.severity == "error" and f.where in stored.models
        ),
        simulated=is_simulated(folder),
        metric_doubt="" if calibrated is None else calibrated.doubt,
        unproven=any(r["name"] == stored.chosen and r["passed"] and r["bound"] <= 0 for r in oof["choice"]["ladder"]),
    )  # fmt: skip


def _write(folder: StudyFolder, stored: Stored, verdict: Verdict) -> None:
    results = folder.results
    verdict.leaderboard.to_csv(results / "leaderboard.csv")
    verdict.leaderboard.to_json(results / "leaderboard.json")
    write_checks(results / "checks.json", run_checks(check_facts(folder, stored.combiners, verdict)))
    board = verdict.leaderboard
    facts = {"key": stored.key, "looks": board.test_looks, "exploratory": board.exploratory}
    write_json(results / "verdict.json", {**verdict.to_json(), **facts, "ledger_head": folder.ledger.head})


def recall_verdict(folder: StudyFolder) -> Verdict:
    """The verdict again from the scores on disk; no truth is read. Before the first look it speaks of OOF rows only."""
    stored = stored_stack(folder)
    oof = ScoreTable.load(folder.results / "oof_scores.npz")
    done = folder.results / "verdict.json"
    facts = read_json(done) if done.exists() else {}
    current = facts.get("key") == stored.key
    if current:
        require_sealed_verdict(folder)
    shown = current and folder.analysis_plan.looks_rule == "plain"
    test = ScoreTable.load(folder.results / "test_scores.npz") if shown else None
    looks = int(facts["looks"]) if current else folder.ledger.looks()
    exploratory = bool(facts["exploratory"]) if current else is_exploratory(folder.ledger)
    return _verdict(folder, stored, oof, test, looks, exploratory)
