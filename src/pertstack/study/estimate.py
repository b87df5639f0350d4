"""Time and size of a step, told before it begins: what it will read and write, and roughly how long it takes.

Seconds per value were read off ``docs/founding-size.md`` (two virtual cores, one worker); a fit is judged by the fits
of the same model that are done in this study, and if there are none nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

from pertstack._base.files import read_json
from pertstack.fit.jobs.job import Job
from pertstack.study.folder import StudyFolder
from pertstack.study.steps.calibrate import MOST_ROWS

START = 4.0
"""Seconds before the first row is read: imports, seals."""
CALIBRATION, MODEL, COMBINER = 2.0e-6, 1.2e-8, 3.2e-9
"""Seconds of ``stack`` per row x gene: of the rows that calibration and probes look at, and of every row for each model
and combiner (146,000 x 10,716 with 5 models and 27 combiners took 660 CPU seconds, 4,800 x 3,000 took 35)."""
JUDGED, CHECKED = 8.0e-8, 5.0e-8
"""Seconds of ``verdict`` per row x gene: of the test for each name on the board, and of development, if intervals
are made (1,200 x 3,000 test values took 12 CPU seconds, 36,585 x 10,716 took 1,327 with two more rank correlations)."""


def sizes(folder: StudyFolder, role: str) -> tuple[int, int]:
    """Rows of a role, and genes."""
    return int((folder.plan.table["role"] == role).sum()), int(folder.choices["n_genes"])


def value_bytes(folder: StudyFolder) -> int:
    """Of a value in the store."""
    return int(folder.choices.get("precision", 32)) // 8


def of_stack(folder: StudyFolder, n_models: int, n_combiners: int, *, verdict: bool = False) -> str:
    """One line before ``stack`` or ``verdict``: what will be read, and roughly how long it takes.

    Parameters
    ----------
    folder : of the study, for rows and genes.
    n_models, n_combiners : that take part.
    verdict : whether it is before ``verdict``.
    """
    rows, genes = sizes(folder, "development")
    tested, _ = sizes(folder, "test")
    if verdict:
        seconds = START + genes * (tested * JUDGED * (n_models + n_combiners) + rows * CHECKED)
    else:
        each = MODEL * n_models + COMBINER * n_combiners
        seconds = START + genes * (min(rows, MOST_ROWS) * CALIBRATION + rows * each)
    judged = f"{tested:,} test rows and " if verdict else ""
    what = f"{judged}{rows:,} rows x {n_models} models x {genes:,} genes, {n_combiners} combiners"
    read = value_bytes(folder) * (rows + (tested if verdict else 0)) * genes * (n_models + 2)
    return f"{what}: reads about {in_bytes(read)}, takes {roughly(seconds)} with one worker."


def of_fit(folder: StudyFolder, jobs: Sequence[Job], workers: int) -> str:
    """One line before ``fit``: jobs still to be done, what they write, and the time if it is known.

    Parameters
    ----------
    folder : of the study, with the times of earlier jobs.
    jobs : all that are asked for.
    workers : side by side.
    """
    rows, genes = sizes(folder, "development")
    test, _ = sizes(folder, "test")
    records = {job.folder: folder.path("jobs", job.folder, "job.json") for job in jobs}
    known: dict[str, list[float]] = {}
    for path in folder.path("jobs").glob("*/*/job.json"):
        value = read_json(path)
        if value["status"] == "done":
            known.setdefault(value["job"]["model"], []).append(float(value["seconds"]))
    left = [j for j in jobs if not records[j.folder].exists()]
    said = f"{len(left):,} of {len(jobs):,} jobs to do, on up to {rows:,} rows x {genes:,} genes"
    if not left:
        return f"{said}."
    models = {j.model for j in left}
    nested = any(j.also is not None for j in jobs)
    written = value_bytes(folder) * genes * len(models) * (test + rows * (folder.plan.n_folds if nested else 1))
    said += f"; writes about {in_bytes(written)}"
    new = sorted(models - set(known))
    seconds = sum(sum(known[j.model]) / len(known[j.model]) for j in left if j.model in known) / max(1, workers)
    if new:
        named = f"{', '.join(new[:4])}{' and others' if len(new) > 4 else ''}"
        return f"{said}. How long {named} {'takes' if len(new) == 1 else 'take'} is not known yet."
    return f"{said}, takes {roughly(seconds)}."


def roughly(seconds: float) -> str:
    """A time in words that promise no more than they know.

    >>> roughly(3), roughly(100), roughly(5000)
    ('a few seconds', 'about 2 minutes', 'about 1.4 hours')
    """
    if seconds < 20:
        return "a few seconds"
    if seconds < 90:
        return "about a minute"
    return f"about {seconds / 60:.0f} minutes" if seconds < 4800 else f"about {seconds / 3600:.1f} hours"


def in_bytes(n: float) -> str:
    """A size in words.

    >>> in_bytes(2_400_000), in_bytes(31e9)
    ('2 MB', '31.0 GB')
    """
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{max(1, n / 1e6):.0f} MB"
