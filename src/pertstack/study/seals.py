"""Seals: what the files of a study were when a step had written them, so that the audit can name the file and the row.

A seal is a manifest ``seals/<step>.json`` with a fingerprint of every file, and an entry of the ledger with the digest
of that manifest. So an edit of a file is found by the manifest, an edit of the manifest by the ledger, and an edit of
the ledger by its chain and by ``seals/head.json``. What a finding of a step means to a reader is in
``docs/formats.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pertstack._base.digests import own_digest_fits
from pertstack._base.errors import CorruptionError, InputError, StackingError
from pertstack._base.files import read_json, sha256_of
from pertstack._base.findings import Finding
from pertstack._base.fingerprints import Change, change
from pertstack.design.ledger_lines import Entry
from pertstack.study.folder import StudyFolder
from pertstack.study.manifests import SEALED, STEPS, Step, manifest_of, write_seal

STACK_RESULTS = (
    "calibration.json",
    "weights.json",
    "weights.npz",
    "oof.json",
    "oof_scores.npz",
    "diversity.json",
    "probes.json",
)
VERDICT_RESULTS = (
    "leaderboard.json",
    "leaderboard.csv",
    "checks.json",
    "verdict.json",
    "test_scores.npz",
    "coverage.json",
    "test_probes.json",
    "setting.json",
)


def seal_init(folder: StudyFolder) -> None:
    """What ``init`` laid out and nothing changes afterwards; chunks of arrays have their own checksums."""
    fixed = [folder.path("study.toml"), folder.path("card.json")]
    fixed += [p for name in ("plan", "side", "store", "test_truth") for p in folder.path(name).rglob("*")]
    sealed = folder.test_key is not None  # the checksums in the records are those of the values, not of these files
    write_seal(folder, "init", (p for p in fixed if not _is_chunk(p, folder.root) or (sealed and _is_truth(p, folder))))


def seal_stack(folder: StudyFolder) -> None:
    """What the stack step wrote, and the records of the predictions it learned from: who was fitted on what."""
    records = sorted(folder.path("store", "blocks").glob("*/layers/*/zarr.json"))
    write_seal(folder, "stack", [*(folder.results / name for name in STACK_RESULTS), *records])


def seal_verdict(folder: StudyFolder) -> None:
    """What the verdict wrote."""
    write_seal(folder, "verdict", (folder.results / name for name in VERDICT_RESULTS))


def seal_report(folder: StudyFolder) -> None:
    """The page that people read."""
    write_seal(folder, "report", [folder.report])


def is_sealed(folder: StudyFolder, step: Step, file: Path) -> bool:
    """Whether a step sealed this file and the ledger holds that seal.

    Parameters
    ----------
    folder : of the study.
    step : that wrote the file.
    file : in the study.

    Raises
    ------
    CorruptionError
        It did, and the file is not what the step wrote.
    """
    entries = [e for e in folder.ledger.of_kind(SEALED) if e.facts["step"] == step]
    manifest = manifest_of(folder, step, entries)
    if not manifest.exists() or not entries or sha256_of(manifest) != entries[-1].facts["manifest"]:
        return False
    facts = read_json(manifest)["files"].get(file.relative_to(folder.root).as_posix())
    if facts is None:
        return False
    if (differs := change(file, facts)) is not None:
        raise CorruptionError(
            f"{file} is not what the {step} step wrote on {entries[-1].time}: it {differs.said}. Restore it from a "
            f"copy, or run `pertstack {step} {folder.root}` again."
        )
    return True


def heads(folder: StudyFolder) -> list[str]:
    """Digests with which the ledger ended when seals were made: it must still hold them."""
    path = folder.path("seals", "head.json")
    try:
        value = read_json(path) if path.exists() else {}
    except StackingError:
        return []  # a finding of ``broken_seals``
    whole = isinstance(value, dict) and own_digest_fits(value)
    return [str(value["ledger_head"])] if whole else []


def require_unbroken(
    folder: StudyFolder, steps: Sequence[Step] = ("init", "stack"), said: str = "The test was not opened."
) -> None:
    """Refuse to open the test for a study whose layout or stack is not what its steps wrote: a look would be spent on
    it, and the board would seal what somebody put there.

    Parameters
    ----------
    folder : of the study.
    steps : whose files are looked at.
    said : what was not done, as a sentence.

    Raises
    ------
    CorruptionError
        A file was changed since; names it.
    InputError
        The stack step was interrupted before it sealed anything.
    """
    if "stack" in steps and not any(e.facts["step"] == "stack" for e in folder.ledger.of_kind(SEALED)):
        raise InputError(
            f"The stack step of {folder.root} was interrupted before its results were sealed. Run `pertstack stack "
            f"{folder.root}` again; the test was not opened."
        )
    wrong = [f for f in broken_seals(folder, steps) if f.severity == "error"]
    if wrong:
        more = (
            f" So are {len(wrong) - 1:,} other files; `pertstack audit {folder.word}` lists them." if wrong[1:] else ""
        )
        raise CorruptionError(f"{said} {wrong[0].message}{more}")


def require_records_kept(folder: StudyFolder) -> None:
    """Refuse to seal records of predictions again that are not those of the last stack step and were not withdrawn
    since: models exchanged between two looks would then be what the ledger says.

    Raises
    ------
    CorruptionError
        A record was changed or is gone, or the manifest that lists them.
    """
    ours = ("layout_changed", "file_removed", "seal_broken", "seal_removed")  # results are written anew
    wrong = [f for f in broken_seals(folder, ("stack",)) if f.severity == "error" and f.code in ours]
    if wrong:
        text = f"Nothing was stacked, because predictions are never overwritten. {wrong[0].message}"
        raise CorruptionError(text.replace(", or run that step again", ""))


def broken_seals(folder: StudyFolder, steps: Sequence[Step] = STEPS) -> list[Finding]:
    """Every file that is not what its step wrote, one finding each, with the rows if it has rows."""
    try:
        entries = folder.ledger.of_kind(SEALED)
    except StackingError:
        entries = ()  # a broken ledger has separate findings; manifests are still believed
    found = list(_head(folder, entries))
    for step in steps:
        mine = [e for e in entries if e.facts["step"] == step]
        path = manifest_of(folder, step, mine)
        if not path.exists():
            if mine:
                text = f"{path} is gone, and the ledger says that the study was sealed: {_AFTER}."
                found.append(Finding("error", "seal_removed", text, where=str(path)))
            continue
        if mine and sha256_of(path) != mine[-1].facts["manifest"]:
            text = f"{path} is not the manifest of {mine[-1].time}: it was edited, damaged or put back. {_AFTER}."
            found.append(Finding("error", "seal_broken", text, where=str(path)))
        try:
            files = dict(read_json(path)["files"])
        except (StackingError, KeyError, TypeError, ValueError):
            continue  # said above: a manifest that cannot be read has not its digest either
        seal = _Seal(folder, step, mine)
        found += [f for name, facts in files.items() if (f := seal.check(str(name), facts)) is not None]
    return found


_AFTER = "Restore it from a copy; without it changes of the files it lists cannot all be named"


@dataclass(frozen=True)
class _Seal:
    """A step's seal, asked file by file. ``entries``: its lines of the ledger, oldest first."""

    folder: StudyFolder
    step: str
    entries: Sequence[Entry]

    def check(self, name: str, facts: dict[str, Any]) -> Finding | None:
        """The finding on one file, or None."""
        path = self.folder.path(name)
        try:
            differs = change(path, facts)
        except (KeyError, TypeError, ValueError):
            return None  # an edited manifest; that is a separate finding
        if differs is None or self._taken_out(name, path, facts):
            return None
        if not path.exists():
            return self._removed(path)
        when = f"as the {self.step} step wrote it on {self.entries[-1].time}" if self.entries else "as it was written"
        older = self._older(name, path)
        text = f"{path} is not {when}: it {differs.said}.{older} It was edited or damaged, or a later step was "
        text += f"interrupted. Restore it from a copy{'' if self.step == 'init' else ', or run that step again'}."
        code = (
            "results_put_back"
            if older
            else "results_edited"
            if name.startswith(("results", "report"))
            else "layout_changed"
        )
        return _finding("results_put_back" if older else code, text, path, differs)

    def _removed(self, path: Path) -> Finding:
        text = f"{path} is gone. "
        if self.step == "verdict":
            text += "The ledger says that the held-out test was opened: a look cannot be undone. "
        code = "results_removed" if self.folder.results in path.parents else "file_removed"
        if self.step == "report":
            text += f"`pertstack report {self.folder.word}` writes it again. "
        return Finding("error", code, f"{text}Restore it from a copy.", where=str(path))

    def _older(self, name: str, path: Path) -> str:
        """A sentence, when the file is what an earlier seal of this step knew."""
        digest = sha256_of(path)
        times = [e.time for e in self.entries[:-1] if e.facts["files"].get(name) == digest]
        return f" It is the version of {times[-1]}, put back." if times else ""

    def _taken_out(self, name: str, path: Path, facts: dict[str, Any]) -> bool:
        """Records that went with a withdrawn model after the seal; the board is stale then, not damaged."""
        if self.step != "stack" or not name.startswith("store") or not self.entries:
            return False
        model = self.folder.path(name).parent.name
        since = [e.facts["model"] for e in _entries(self.folder, "model_withdrawn") if e.index > self.entries[-1].index]
        gone = {m for w in since for m in (w, *(f"nested.f{k}.{w}" for k in range(self.folder.plan.n_folds)))}
        from pertstack.predictions.store.files.names import encode_name

        return model in {encode_name(m) for m in gone}


def _entries(folder: StudyFolder, kind: str) -> Iterator[Entry]:
    try:
        yield from folder.ledger.of_kind(kind)
    except StackingError:
        return


def _finding(code: str, text: str, path: Path, differs: Change) -> Finding:
    numbers = {"rows": list(differs.rows[:10])} if differs.rows else {}
    return Finding(
        "error",
        code,
        text,
        count=max(1, len(differs.rows)),
        examples=differs.labels[:10],
        where=str(path),
        numbers=numbers,
    )


def _head(folder: StudyFolder, entries: Sequence[Entry]) -> Iterator[Finding]:
    path = folder.path("seals", "head.json")
    if entries and (not path.exists() or not heads(folder)):
        text = f"{path} is gone or damaged. It holds the end of the ledger; restore it from a copy."
        yield Finding("error", "seal_removed", text, where=str(path))


def _is_chunk(path: Path, root: Path) -> bool:
    """Whether this is no file, or a chunk of a committed array: ``blocks/<block>/layers/<name>/c/...``."""
    parts = path.relative_to(root).parts
    return not path.is_file() or (len(parts) > 5 and parts[3] in ("layers", "obsm") and parts[5] == "c")


def _is_truth(path: Path, folder: StudyFolder) -> bool:
    return path.is_file() and folder.path("test_truth") in path.parents
