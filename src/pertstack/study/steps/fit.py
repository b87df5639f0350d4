"""Cross-fitting runs of a study. Which rows a job gets is in ``study/development/fit_rows.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from pertstack._base.errors import InputError, first_few
from pertstack._base.machine.progress import remark
from pertstack.design.blocks import Role
from pertstack.fit.external.card import load_card
from pertstack.fit.jobs.cross_fit import cross_fit
from pertstack.fit.jobs.job import Job, JobResult, Scope, plan_jobs
from pertstack.fit.jobs.planned import note_planned
from pertstack.fit.registry import available, get_row, model_class
from pertstack.stacking.registry import refuse_reserved
from pertstack.study.development.fit_rows import StudyAnchors, StudyCommit, StudyDone, StudyRows
from pertstack.study.estimate import of_fit
from pertstack.study.folder import StudyFolder
from pertstack.study.members import require_every_block


def cross_fit_study(
    folder: StudyFolder,
    models: Sequence[str],
    *,
    params: Mapping[str, Mapping[str, Any]],
    scope: str = "pooled",
    nested: bool = True,
    workers: int = 1,
    engine: str = "local",
    address: str | None = None,
    time_limit: float | None = None,
) -> list[JobResult]:
    """Cross-fit models on every fold and once on all development rows.

    Parameters
    ----------
    folder : of the study.
    models : names in the registry; at least one.
    params : model -> hyper-parameters; a model that is not there keeps its own.
    scope : "pooled", or "cell_line" for one fit per line, kept as ``NAME.by_cell_line``.
    nested : also without every pair of folds.
    workers : processes.
    engine : "local" or "dask".
    address : of a Dask scheduler; None for local processes.
    time_limit : seconds per job; None for no limit.

    Raises
    ------
    InputError
        No model named, an unknown scope, or a model whose needs the study does not meet (all are listed).
    UnknownNameError
        An unknown model; near names are shown.
    """
    jobs = _study_jobs(folder, models, params=params, scope=scope, nested=nested)
    for role in get_args(Role):
        require_every_block(folder, role)
    note_planned(folder.path("jobs"), jobs, scope)
    _say_licences(models)
    remark(of_fit(folder, jobs, workers))
    return cross_fit(
        jobs,
        rows_for=StudyRows(folder.root),
        commit=StudyCommit(folder.root),
        commit_anchors=StudyAnchors(folder.root),
        done=StudyDone(folder.root),
        log_dir=folder.path("jobs"),
        seed=int(folder.choices["seed"]),
        workers=workers,
        engine=engine,  # type: ignore[arg-type]
        address=address,
        time_limit=time_limit,
        plan_digest=folder.plan.digest,
    )


def _say_licences(models: Sequence[str]) -> None:
    """Programs of others run under their licences, which whoever runs them should have seen."""
    for row in map(get_row, models):
        if row.kind == "external" and (licence := load_card(row.fixed["card"]).licence):
            remark(f"{row.name} is somebody else's program. Licence: {licence}.")


def _study_jobs(
    folder: StudyFolder, models: Sequence[str], *, params: Mapping[str, Mapping[str, Any]], scope: str, nested: bool
) -> list[Job]:
    """Jobs of models, fold by fold, those whose needs are not met refused together."""
    if scope not in get_args(Scope):
        raise InputError(
            f"scope is {scope!r}; use 'pooled' (one model for all cell lines) or 'cell_line' (one for each)."
        )
    if not models:
        raise InputError("No base model was named. See `pertstack models`, then name some with --models A,B,C.")
    rows = [get_row(name) for name in models]
    for row in rows:
        refuse_reserved(row.name)
    lacking = {r.name: why for r in rows if (why := available(r, folder.side, folder.samples)) is not None}
    if lacking:
        listed = "\n".join(f"  - {name} {why}" for name, why in lacking.items())
        raise InputError(
            f"{len(lacking)} of {len(rows)} models cannot run on this study:\n{listed}\nLeave them out or "
            f"make the study again with what they need."
        )
    withdrawn = sorted(set(folder.withdrawn()) & {r.name for r in rows})
    if withdrawn:
        raise InputError(f"{first_few(withdrawn)} was withdrawn from this study; the reason is in the ledger.")
    jobs: list[Job] = []
    lines = sorted({b.cell_line for b in folder.store.blocks("development")})
    for row in rows:
        model_class(row)  # says now, not in a worker, that a framework is missing
        alias = None if scope == "pooled" else f"{row.name}.by_cell_line"
        jobs += plan_jobs(
            row.name,
            params.get(row.name, {}),
            n_folds=folder.plan.n_folds,
            scope=cast(Scope, scope),
            cell_lines=lines,
            alias=alias,
            nested=nested and folder.plan.n_folds > 2,
        )
    return jobs
