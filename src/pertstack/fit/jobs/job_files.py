"""What a job leaves beside its log: ``job.json``, which knows its own digest and those of the files beside it."""

from __future__ import annotations

from pathlib import Path

from pertstack._base.digests import with_own_digest
from pertstack._base.files import write_json
from pertstack._base.fingerprints import fingerprint
from pertstack.fit.jobs.fit_rows import FILE
from pertstack.fit.jobs.job import JobResult

BESIDE = ("log.txt", "curve.json", FILE)


def write_job(folder: Path, result: JobResult) -> None:
    """Write ``job.json`` of a job that has ended; the files beside it must be closed."""
    files = {name: fingerprint(folder / name) for name in BESIDE if (folder / name).is_file()}
    write_json(folder / "job.json", with_own_digest({**result.to_json(), "files": files}))
