"""The analysis plan: changed while it is open, and told to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pertstack._base.machine.progress import remark
from pertstack.design.analysis_plan import AnalysisPlan, is_exploratory, locked_plan, require_unlocked_or_same
from pertstack.stacking.registry import make_combiner
from pertstack.study.folder import StudyFolder
from pertstack.study.steps.calibrate import require_fitting


def change_plan(folder: StudyFolder, changes: Mapping[str, Any], *, exploratory: bool = False) -> AnalysisPlan:
    """Write changed entries of the plan; refused once it is locked, unless exploratory.

    Parameters
    ----------
    folder : of the study; the caller holds its lock.
    changes : entry of the plan -> new value.
    exploratory : change a locked plan; every later result is marked exploratory.

    Raises
    ------
    PlanLockedError, InputError
        The plan is locked; an entry or a value that does not exist; a metric that the rows of the study cannot have.
    """
    plan = folder.analysis_plan
    if not changes:
        return plan
    for name in changes.get("combiners", ()):
        make_combiner(name)
    changed = plan.changed(**changes)
    if {"primary", "reference"} & set(changes):
        for finding in require_fitting(folder, changed):
            remark(f"warning: {finding.message}")
    require_unlocked_or_same(changed, folder.ledger, exploratory=exploratory)
    changed.save(folder.analysis_plan_file)
    return changed


def plan_and_state(folder: StudyFolder) -> str:
    """Every entry of the plan, whether it is locked, and the looks so far."""
    plan, ledger = folder.analysis_plan, folder.ledger
    lines = [f"{key}: {', '.join(v) if isinstance(v, list) else v}" for key, v in plan.to_json().items()]
    state = "locked" if locked_plan(ledger) else "open: the first look at the test locks it"
    marked = "; results are marked EXPLORATORY" if is_exploratory(ledger) else ""
    return "\n".join([*lines, f"digest: {plan.digest[:12]}", f"state: {state}{marked}", f"looks: {ledger.looks()}"])
