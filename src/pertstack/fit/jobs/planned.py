"""``jobs/planned.json``: the jobs a study was asked for, by which an interrupted fit is known as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pertstack._base.digests import own_digest_fits, with_own_digest
from pertstack._base.errors import CorruptionError
from pertstack._base.files import read_json, write_json
from pertstack.fit.jobs.job import Job


@dataclass(frozen=True)
class PlannedJobs:
    """``jobs`` maps the folder of a job -> its model; ``scope`` is the one asked for last."""

    scope: str = "pooled"
    jobs: Mapping[str, str] = field(default_factory=dict)


def read_planned(jobs: Path) -> PlannedJobs:
    """Every job that was asked for; none if no fit was begun.

    Raises
    ------
    CorruptionError
        The file is not what was written. The first format, of older studies, carries no digest.
    """
    path = jobs / "planned.json"
    if not path.exists():
        return PlannedJobs()
    value = read_json(path)
    whole = isinstance(value, dict) and (own_digest_fits(value) or (value.get("format") == 1 and _as_first(value)))
    if not whole:
        raise CorruptionError(
            f"{path} is not what `pertstack fit` wrote: it was edited or damaged. It lists the jobs that were asked "
            f"for. Restore it from a copy, or delete it and run the same `pertstack fit` again, which writes it anew "
            f"and keeps every job that is done."
        )
    return PlannedJobs(value["scope"], value["jobs"])


def note_planned(jobs: Path, asked: Sequence[Job], scope: str) -> None:
    """Write down which jobs were asked for, beside those asked for before.

    Parameters
    ----------
    jobs : the folder ``jobs/`` of a study.
    asked : jobs of this fit.
    scope : "pooled" or "cell_line".

    Raises
    ------
    CorruptionError
        As in ``read_planned``.
    """
    known = {**read_planned(jobs).jobs, **{job.folder: job.model for job in asked}}
    write_json(jobs / "planned.json", with_own_digest({"format": 2, "scope": scope, "jobs": known}))


def _as_first(value: Mapping[str, object]) -> bool:
    jobs = value.get("jobs")
    return isinstance(value.get("scope"), str) and isinstance(jobs, dict) and all(map(_is_text, jobs.values()))


def _is_text(value: object) -> bool:
    return isinstance(value, str)
