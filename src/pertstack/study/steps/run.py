"""What `run` finds missing: base models to fit, a stack to make; and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Sequence

from pertstack._base.errors import InputError, PlanLockedError
from pertstack.design.plan.groups import apart
from pertstack.design.plan.known import PARTS, SEEN, SINGLE, fitted_of, known_levels
from pertstack.fit.registry import available, get_row
from pertstack.study.development.learned import stored_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.members import stack_facts, stackable_models
from pertstack.study.sealed_results import verdict_facts
from pertstack.study.status import count_jobs
from pertstack.study.steps.stack import stored_key

DEFAULT_MODELS = (
    "mean_treated",
    "mean_treated_cell_line",
    "per_gene_linear",
    "perturbation_knn",
    "ridge",
    "ridge_treated",
    "low_rank",
)
COMBINATION_MODELS = ("additive", "mean_of_parts", "larger_change", "scaled_sum")
"""Beside the default ones if combinations are scored: what anyone would try first."""
CONTEXT_MODELS = ("perturbation_elsewhere",)
"""Beside the default ones if a scored perturbation may have been fitted in another cell line."""


def is_judged(folder: StudyFolder) -> bool:
    """Whether a verdict judged the stack that is on disk."""
    facts = verdict_facts(folder)
    return facts is not None and facts["key"] == stored_key(folder)


def is_stacked(folder: StudyFolder) -> bool:
    """Whether the stack on disk is of all models there are."""
    if stored_key(folder) is None:
        return False
    models = stackable_models(folder, accept_unverified=False)
    try:
        out = stack_facts(folder)["accused"]
        return sorted([*stored_stack(folder).models, *out]) == sorted(models)
    except InputError:
        return False


def refuse_undoing(folder: StudyFolder, wanted: Sequence[str]) -> None:
    """New models on a judged study change what ships: that takes ``fit`` and ``stack``, not ``run``.

    Raises
    ------
    PlanLockedError
        The study was judged, and some of the models are new to it.
    """
    new = [get_row(m).name for m in wanted if get_row(m).name not in folder.store.models()]
    if new and is_judged(folder):
        raise PlanLockedError(
            f"{folder.root} was judged; with {', '.join(new)} another stack would ship, which no verdict has judged, "
            f"so `run` leaves it as it is. To go on all the same: pertstack fit {folder.word} --models "
            f"{','.join(new)}, then stack, then verdict (a new look at the test)."
        )


def models_to_fit(folder: StudyFolder) -> list[str]:
    """Models whose fits were begun and not finished; the default ones if the study has no model at all."""
    waiting = [m.removesuffix(".by_cell_line") for m in count_jobs(folder).waiting]
    return list(dict.fromkeys(waiting)) if folder.store.models() else default_models(folder)


def default_models(folder: StudyFolder) -> list[str]:
    """The default models whose needs this study meets."""
    samples, wanted = folder.samples, list(DEFAULT_MODELS)
    rows = samples[samples["role"] == "development"]
    by_parts = apart(folder.plan.group_by)
    known = known_levels(rows["perturbation"], rows["fold"], fitted_of(samples), apart=by_parts)
    if set(known[PARTS]) - {SINGLE}:
        wanted += COMBINATION_MODELS
    if samples["cell_line"].nunique() > 1 and "seen" in known[SEEN]:
        wanted += CONTEXT_MODELS
    found = [get_row(m) for m in wanted]
    return [r.name for r in found if available(r, folder.side, folder.samples) is None]
