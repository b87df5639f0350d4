"""The archive of a bundle: which files it has, and how it is written and read without trusting a byte of it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from pertstack._base.digests import OWN, own_digest_fits, with_own_digest
from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack._base.plain_json import plain_json
from pertstack._base.shown import shown
from pertstack.study.manifests import STEPS
from pertstack.study.outputs.for_the_paper import METHODS, TABLE
from pertstack.study.seals import STACK_RESULTS, VERDICT_RESULTS

MANIFEST = "manifest.json"
PLAN_FILES = ("study.toml", "card.json", "plan.toml", "plan/plan.json", "plan/folds.parquet", "plan/findings.json")
LEFT_OUT = "results/weights.npz"
"""Arrays of weights do not travel, nor does any file of ``init`` but those of the plan: what was measured, and what can
be read back from it. Their digests are in the seals."""
REQUIRED = (
    "ledger.jsonl",
    *PLAN_FILES,
    *(f"seals/{step}.json" for step in STEPS),
    "seals/head.json",
    "report.html",
    *(f"results/{name}" for name in ("setting.json", "leaderboard.json", "oof_scores.npz")),
)
LARGEST = 2_000_000_000
_DAY = (1980, 1, 1, 0, 0, 0)


def with_manifest(files: Mapping[str, bytes]) -> dict[str, bytes]:
    files = {name: content for name, content in files.items() if name != MANIFEST}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    text = json.dumps(plain_json(with_own_digest({"format": 1, "files": digests})), indent=2, sort_keys=True)
    return {**files, MANIFEST: f"{text}\n".encode()}


def archived(files: Mapping[str, bytes]) -> bytes:
    """Equal files give equal bytes: sorted, not compressed, without times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(files.items()):
            facts = zipfile.ZipInfo(name, _DAY)
            facts.external_attr = 0o644 << 16
            archive.writestr(facts, content)
    return out.getvalue()


def members(path: Path, raw: bytes, findings: list[Finding]) -> dict[str, bytes]:
    """The files of an archive that can be read; what cannot is a finding. Nothing is unpacked to a place of its own
    choice, and nothing grows when it is.

    Parameters
    ----------
    path : of the archive, for messages.
    raw : its bytes.
    findings : what is wrong is added here.

    Raises
    ------
    InputError
        It is no zip file.
    """
    known = {*REQUIRED, MANIFEST, METHODS, TABLE, *(f"results/{n}" for n in (*STACK_RESULTS, *VERDICT_RESULTS))}
    files: dict[str, bytes] = {}
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        if not raw.startswith(b"PK"):
            raise InputError(
                f"{path} is no bundle: it is not a zip file. `pertstack bundle STUDY OUT.zip` makes one."
            ) from error
        text = f"{path.name} cannot be read as an archive ({error}): it was cut, edited or damaged."
        findings.append(Finding("error", "archive_damaged", text, where=path.name))
        return files
    with archive:
        for entry in archive.infolist():
            name = entry.filename
            wrong = ""
            if name not in known:
                wrong = "does not belong into a bundle"
            elif name in files:
                wrong = "is there twice"
            elif entry.compress_type != zipfile.ZIP_STORED or entry.file_size > min(LARGEST, len(raw)):
                wrong = "is compressed or of an impossible size"
            else:
                try:
                    files[name] = archive.read(entry)
                except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
                    wrong = f"was edited or damaged ({error})"
            if wrong:
                findings.append(Finding("error", "member_wrong", f"{shown(name)} {wrong}.", where=shown(name)))
    return files


def against_manifest(files: Mapping[str, bytes]) -> Iterable[Finding]:
    """Files that are not those the manifest lists."""
    try:
        manifest = json.loads(files[MANIFEST])
        listed = dict(manifest["files"])
        if OWN in manifest and not own_digest_fits(manifest):
            yield Finding("error", "manifest_edited", f"{MANIFEST} was edited: its own digest differs.", where=MANIFEST)
    except (KeyError, ValueError, TypeError, RecursionError):
        yield Finding("error", "manifest_broken", f"{MANIFEST} is gone, was edited or damaged.", where=MANIFEST)
        listed = {}
    digests = {n: hashlib.sha256(c).hexdigest() for n, c in files.items() if n != MANIFEST}
    other = [n for n in digests if n in listed and digests[n] != listed[n]]
    if 2 * len(other) > len(digests):
        text = f"{MANIFEST} lists {len(other)} of {len(digests)} files otherwise: it is another bundle's, or put back."
        yield Finding("error", "manifest_exchanged", text, where=MANIFEST)
    for name in sorted({*listed, *digests, *REQUIRED, METHODS, TABLE}):
        if name not in digests:
            yield Finding("error", "file_removed", f"{shown(name)} is gone from the bundle.", where=shown(name))
        elif listed and name not in listed:
            text = f"{shown(name)} was added to the bundle: its manifest does not know it."
            yield Finding("error", "file_added", text, where=shown(name))
        elif listed and digests[name] != listed[name]:
            text = f"{shown(name)} is not what was bundled: it was edited, damaged, exchanged or put back."
            yield Finding("error", "file_edited", text, where=shown(name))
