"""A verdict from the scores on disk; no truth is read here."""

from __future__ import annotations

import json
from dataclasses import asdict

from pertstack._base.files import read_json
from pertstack.design.analysis_plan import AnalysisPlan, is_exploratory
from pertstack.design.ledger import Ledger
from pertstack.design.plan.groups import shared_parts
from pertstack.design.plan.known import fitted_of
from pertstack.fit.jobs.job import versions
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.audit.probes import stored_probes
from pertstack.study.development.learned import Stored, kinds_of, stored_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.members import doubts, is_simulated, stack_facts
from pertstack.study.sealed_results import verdict_facts
from pertstack.study.steps.calibrate import stored_calibration
from pertstack.study.truth.held_out import require_sealed_verdict
from pertstack.study.truth.looks import last_published, with_published
from pertstack.verdict.judge import Verdict, judge
from pertstack.verdict.probes.run import accused, accused_gravely
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting


def derive(
    setting: Setting, plan: AnalysisPlan, oof: ScoreTable, *, test: ScoreTable | None, ledger: Ledger
) -> Verdict:
    """Judged on the test, or out of fold with the one row that the plan's rule of looks gave away: a function of scores
    per sample, of the setting, and of what the ledger published.

    Parameters
    ----------
    setting : what the study knows.
    plan : rule of looks and seed.
    oof : scores of development rows.
    test : scores of the test; None before it was opened.
    ledger : of the study, for what was published.
    """
    if plan.looks_rule == "plain":
        return _judged(test, oof, setting, plan.seed)
    found = last_published(ledger, plan.looks_rule)
    return with_published(_judged(None, oof, setting, plan.seed), found, setting)


_LAST: dict[str, Verdict] = {}
"""The last verdict of this process, by the digest of all it follows from: the report after it need not resample."""


def _judged(test: ScoreTable | None, oof: ScoreTable, setting: Setting, seed: int) -> Verdict:
    facts = {"setting": asdict(setting), "seed": seed, "scores": [None if t is None else t.digest for t in (test, oof)]}
    key = json.dumps(facts, sort_keys=True, default=sorted)
    if key not in _LAST:
        verdict = judge(test, oof, setting, resampling=GroupResampling(seed, parts=setting.parts))
        _LAST.clear()
        _LAST[key] = verdict
    return _LAST[key]


def setting_of(folder: StudyFolder, stored: Stored, looks: int, *, exploratory: bool) -> Setting:
    """What the judge is told beside the scores.

    Parameters
    ----------
    folder : of the study.
    stored : what the stack step wrote.
    looks : how often the test was opened.
    exploratory : whether the plan was changed after it was locked.
    """
    plan, calibrated = folder.analysis_plan, stored_calibration(folder)
    oof = read_json(folder.results / "oof.json")
    cautions = {name: tuple(c) for name, c in oof["cautions"].items()}
    for name, why in oof["choice"]["marked"].items():
        cautions[name] = (*cautions.get(name, ()), why)
    for name, words in doubts(folder, [n for n in stored.combiners if n != "no_change"]).items():
        cautions[name] = (*cautions.get(name, ()), *words)
    probes, facts, kinds = stored_probes(folder), stack_facts(folder), kinds_of(stored)
    suspects, grave, accepted = accused(probes), accused_gravely(probes), tuple(facts["accepted"])
    cheats = {m for m in grave if m in stored.models and m not in accepted}
    if any(kind == "base" and name not in cheats for name, kind in kinds.items()):
        kinds.update(dict.fromkeys(sorted(cheats), "ceiling"))  # shown, never the best single model
    scored = folder.samples[folder.samples["role"] != "support"]
    return Setting(
        kinds,
        plan.choice_metric,
        stored.chosen,
        folder.plan.group_by,
        folder.plan.digest,
        looks,
        exploratory,
        versions(),
        cautions,
        fitted=fitted_of(folder.samples),
        parts=shared_parts(scored, folder.samples["perturbation"].unique()),
        alone=oof["choice"]["best_single"],
        planned_looks=plan.looks,
        refused=tuple(facts["accused"]),
        accepted=accepted,
        accused={m: tuple(w) for m, w in suspects.items() if m in stored.models},
        accused_gravely=frozenset(m for m in grave if m in stored.models),
        simulated=is_simulated(folder),
        metric_doubt="" if calibrated is None else calibrated.doubt,
        no_vote=tuple(oof["choice"].get("no_vote", ())),  # stacked by an older version: all vote
        between_named=bool(oof.get("between_named")),  # stacked by an older version: a gain over the best on the test
        constants=tuple(oof.get("constants", ())),
        unproven=any(r["name"] == stored.chosen and r["passed"] and r["bound"] <= 0 for r in oof["choice"]["ladder"]),
    )


def recall_verdict(folder: StudyFolder) -> Verdict:
    """The verdict again from the scores on disk; no truth is read. Before the first look it speaks of OOF rows only."""
    stored = stored_stack(folder)
    oof = ScoreTable.load(folder.results / "oof_scores.npz", folder.scratch)
    facts = verdict_facts(folder) or {}
    current = facts.get("key") == stored.key
    if current:
        require_sealed_verdict(folder)
    shown = current and folder.analysis_plan.looks_rule == "plain"
    test = ScoreTable.load(folder.results / "test_scores.npz", folder.scratch) if shown else None
    looks = int(facts["looks"]) if current else folder.ledger.looks()
    exploratory = bool(facts["exploratory"]) if current else is_exploratory(folder.ledger)
    return derive(
        setting_of(folder, stored, looks, exploratory=exploratory),
        folder.analysis_plan,
        oof,
        test=test,
        ledger=folder.ledger,
    )
