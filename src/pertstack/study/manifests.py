"""The manifest of a step: a fingerprint of every file, and an entry of the ledger with the digest of the manifest.

A command that is stopped between the two is made good by the next one. What differs from a manifest is found by
``study/seals.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pertstack._base.files import fsync_directory, sha256_of, write_json
from pertstack._base.fingerprints import fingerprint
from pertstack.design.ledger import LOOK
from pertstack.design.ledger_lines import Entry
from pertstack.study.folder import StudyFolder

Step = Literal["init", "stack", "verdict", "report"]
STEPS: tuple[Step, ...] = ("init", "stack", "verdict", "report")
SEALED = "sealed"
FORMAT = 1


def write_seal(folder: StudyFolder, step: Step, files: Iterable[Path]) -> None:
    """The manifest aside, then its line in the ledger, then the manifest in its place (``finish_seals``).

    Parameters
    ----------
    folder : of the study.
    step : that wrote the files.
    files : of the study; those that are not there are left out.
    """
    there = {p.relative_to(folder.root).as_posix(): fingerprint(p) for p in sorted(set(files)) if p.is_file()}
    coming = _coming(folder, step)
    write_json(coming, {"format": FORMAT, "step": step, "files": there})
    results = {n: f["sha256"] for n, f in there.items() if n.startswith(("results/", "report"))}
    manifest = sha256_of(coming)
    before = [e for e in folder.ledger.of_kind(SEALED) if e.facts["step"] == step]
    looked = max((e.index for e in folder.ledger.of_kind(LOOK)), default=-1) if step == "verdict" else -1
    if not before or before[-1].facts["manifest"] != manifest or before[-1].index <= looked:
        folder.ledger.append(SEALED, step=step, manifest=manifest, files=results, n_files=len(there))
    finish_seals(folder)


def finish_seals(folder: StudyFolder) -> None:
    """Put manifests in place that a stopped command left aside: those of which the ledger has the line. The others go,
    for nothing was sealed with them."""
    for step in STEPS:
        coming = _coming(folder, step)
        if coming.exists():
            entries = [e for e in folder.ledger.of_kind(SEALED) if e.facts["step"] == step]
            if manifest_of(folder, step, entries) == coming:
                coming.replace(folder.path("seals", f"{step}.json"))
                fsync_directory(coming.parent)
            else:
                coming.unlink()


def _coming(folder: StudyFolder, step: str) -> Path:
    return folder.path("seals", f"{step}.next.json")


def manifest_of(folder: StudyFolder, step: str, entries: Sequence[Entry]) -> Path:
    """The manifest of a step: the one aside when the last line of the step is of it.

    Parameters
    ----------
    folder : of the study.
    step : that wrote it.
    entries : the step's lines of the ledger, oldest first.
    """
    coming = _coming(folder, step)
    if entries and coming.exists() and sha256_of(coming) == entries[-1].facts["manifest"]:
        return coming
    return folder.path("seals", f"{step}.json")
