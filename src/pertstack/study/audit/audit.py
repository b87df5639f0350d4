"""The audit of a study: every check of what is on disk, each by itself, so that one fault never hides another.

Findings name the file in ``where`` and, for files with rows, the rows in ``examples`` and ``numbers["rows"]``. The
checks are in ``study/seals.py``, ``study/audit/tables.py``, ``predictions/store/verify.py`` and ``design/ledger.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pertstack._base.errors import InputError, StackingError
from pertstack._base.files import LEASE_SECONDS, leftovers, read_json, remove
from pertstack._base.findings import Finding, gravest_first
from pertstack._base.machine.cluster import Cluster
from pertstack.design.ledger import noted_digest
from pertstack.predictions.store.lifecycle import gc
from pertstack.predictions.store.store import PredictionStore
from pertstack.study.audit.elsewhere import DAMAGED, Elsewhere, read_elsewhere
from pertstack.study.audit.probes import stored_probes
from pertstack.study.audit.probes_refitted import permuted_study
from pertstack.study.audit.records import records_as_told
from pertstack.study.audit.tables import (
    jobs_as_run,
    plan_as_locked,
    samples_as_laid_out,
    stale_results,
    sums_as_reduced,
    weights_as_learned,
)
from pertstack.study.development.learned import stored_stack
from pertstack.study.folder import StudyFolder
from pertstack.study.manifests import SEALED
from pertstack.study.sealed_results import noted_findings
from pertstack.study.seals import broken_seals, heads
from pertstack.study.truth.held_out import HeldOutTruth, UnreadTruth, look_findings

Check = Callable[[], Iterable[Finding]]


def folder_to_audit(root: Path | str) -> StudyFolder:
    """A study, also one whose ``study.toml`` is damaged or gone as long as it has a ledger: that is a finding."""
    return StudyFolder(Path(root)) if (Path(root) / "ledger.jsonl").is_file() else StudyFolder.open(root)


def audit_study(
    folder: StudyFolder,
    *,
    deep: bool,
    clean: bool,
    expect_head: str | None = None,
    workers: int = 1,
    cluster: Cluster | None = None,
) -> list[Finding]:
    """Every check of what is on disk: plan, ledger, stores, jobs, results; each finding once, gravest first, in the
    order of the work.

    Parameters
    ----------
    folder : of the study.
    deep : also read every value again: bytes of the stores, sums, weights.
    clean : first remove files left by killed processes, while no other command works on the study.
    expect_head : digest that the ledger ended with when someone noted it; None to leave that out.
    workers : threads that make the sums of a deep audit.
    cluster : where a deep audit reads blocks; None for here.

    Raises
    ------
    InputError
        ``expect_head`` is no digest; a cluster, and no deep audit.
    StackingError
        Of the cluster, as ``Cluster.each`` says; what is wrong with the study is a finding.
    """
    noted = None if expect_head is None else noted_digest(expect_head)
    if cluster is not None and not deep:
        raise InputError("A cluster reads the blocks, and only --deep reads them: add it, or leave --engine out.")
    if clean:
        with folder.alone():
            remove_leftovers(folder)
            return audit_study(
                folder, deep=deep, clean=False, expect_head=expect_head, workers=workers, cluster=cluster
            )
    if cluster is None:
        return _findings(folder, Elsewhere(), deep=deep, noted=noted, workers=workers)
    with TemporaryDirectory(prefix="pertstack-sums-") as sums:
        read = read_elsewhere(folder, cluster, Path(sums))
        return _findings(folder, read, deep=deep, noted=noted, workers=workers)


def _findings(folder: StudyFolder, read: Elsewhere, *, deep: bool, noted: str | None, workers: int) -> list[Finding]:
    findings: list[Finding] = []

    def ask(where: Path, check: Check) -> None:
        try:
            findings.extend(check())
        except DAMAGED as error:
            text = f"{where} could not be checked ({type(error).__name__}: {error}). Something it rests on is damaged."
            findings.append(Finding("error", "unreadable", text, where=str(where)))

    ask(folder.path("ledger.jsonl"), lambda: ledger_findings(folder))
    ask(folder.path("ledger.jsonl"), lambda: noted_findings(folder, noted) if noted else ())
    ask(folder.path("study.toml"), lambda: _readable(folder))
    ask(folder.path("seals"), lambda: broken_seals(folder))
    ask(folder.path("ledger.jsonl"), lambda: look_findings(folder))
    ask(folder.path("plan", "folds.parquet"), lambda: _fold_plan(folder))
    for name in ("store", "test_truth"):
        ask(folder.path(name), lambda name=name: _store(folder, name, read, deep=deep))  # type: ignore[misc]
    ask(folder.results / "leaderboard.json", lambda: _results_against_plan(folder))
    ask(folder.path("plan", "samples.parquet"), lambda: samples_as_laid_out(folder))
    ask(folder.analysis_plan_file, lambda: plan_as_locked(folder))
    ask(folder.path("store"), lambda: records_as_told(folder))
    ask(folder.path("jobs"), lambda: jobs_as_run(folder))
    ask(folder.path("reduced"), lambda: sums_as_reduced(folder) if deep else ())
    ask(folder.results / "weights.json", lambda: stale_results(folder))
    ask(
        folder.results / "weights.npz",
        lambda: weights_as_learned(folder, workers, read.sums) if deep else (),
    )
    ask(folder.results / "probes.json", lambda: _probes(folder))
    ask(folder.results / "weights.json", lambda: _exchanged_truths(folder) if deep else ())
    return gravest_first(findings)


def remove_leftovers(folder: StudyFolder) -> list[Path]:
    """Remove what writers left that were killed: staged blocks, and files and folders that were written aside.

    Call it while holding the lock: whoever writes aside in these places holds it too.
    """
    gone: list[Path] = []
    for name in ("store", "test_truth"):
        gone += gc(folder.path(name), LEASE_SECONDS)
    for place in ("", "plan", "seals", "results", "reduced"):
        for path in sorted(folder.path(place).glob(".*.part")):
            remove(path)
            gone.append(path)
    for path in leftovers(folder.root.parent):
        remove(path)
        gone.append(path)
    return gone


def ledger_findings(folder: StudyFolder) -> list[Finding]:
    """The chain, and whether its end is still there; several remembered ends that are gone are one finding."""
    found = folder.ledger.verify(_ledger_heads(folder))
    short = [f for f in found if f.code == "ledger_cut_short"]
    path = folder.path("ledger.jsonl")
    lines = path.read_bytes().count(b"\n") if path.exists() else 0
    label = f"line {lines + 1} and after"
    cut = [replace(f, examples=(label,), numbers={**f.numbers, "rows": [lines]}) for f in short[:1]]
    return [*(f for f in found if f not in short), *cut, *_forgotten(folder, found)]


def _forgotten(folder: StudyFolder, found: list[Finding]) -> list[Finding]:
    """A ledger cut down to before its first seal, with the seals taken away: as if nothing had ever been done."""
    if any(f.severity == "error" for f in found) or folder.ledger.of_kind(SEALED):
        return []
    text = (
        f"{folder.path('ledger.jsonl')} holds no seal, and `init` writes one before a study can be used: its entries "
    )
    text += "were removed. Restore it and seals/ from a copy."
    return [Finding("error", "ledger_cut_short", text, where=str(folder.path("ledger.jsonl")))]


def _readable(folder: StudyFolder) -> list[Finding]:
    try:
        StudyFolder.open(folder.root)
    except StackingError as error:
        return [Finding("error", "study_unreadable", str(error), where=str(folder.path("study.toml")))]
    return []


def _fold_plan(folder: StudyFolder) -> list[Finding]:
    try:
        _ = folder.plan.digest
    except StackingError as error:
        return [Finding("error", "fold_plan", str(error), where=str(folder.path("plan")))]
    return []


def _store(folder: StudyFolder, name: str, read: Elsewhere, *, deep: bool) -> Iterable[Finding]:
    """A store as a whole: opened against the plan if there is one, verified in any case."""
    findings: list[Finding] = []
    store: PredictionStore | UnreadTruth
    try:
        store = folder.store if name == "store" else HeldOutTruth(folder).unread()
        findings += _blocks_against_plan(folder, name, store)
    except DAMAGED as error:
        findings.append(Finding("error", f"{name}_unusable", str(error), where=str(folder.path(name))))
        other = PredictionStore.open(folder.path(name)) if name == "store" else None
        store = other or HeldOutTruth(folder).unread(of_this_plan=False)
    findings += store.verify(deep=deep, whole=read.whole(name))
    return [*findings, *read.only_there(folder.path(name), findings)]


def _blocks_against_plan(folder: StudyFolder, name: str, store: Any) -> list[Finding]:
    """The samples of every block are those the plan puts there."""
    expected = folder.plan.blocks(folder.samples)
    if name == "test_truth":
        expected = {b: ids for b, ids in expected.items() if b.role == "test"}
    found = []
    for block, ids in expected.items():
        try:
            there = store.sample_ids(block)
        except StackingError as error:
            found.append(Finding("error", "block_unreadable", str(error), where=f"{name}/blocks/{block.id}"))
            continue
        if list(there) != list(ids):
            found.append(
                Finding(
                    "error",
                    "block_against_plan",
                    f"{name}: block {block.id} holds {len(there):,} samples and the fold plan puts {len(ids):,} there, "
                    f"or in another order. One of the two was changed; restore it from a copy.",
                    where=f"{name}/blocks/{block.id}",
                )
            )
    return found


def _probes(folder: StudyFolder) -> list[Finding]:
    """What the probes of the stack step accuse of. A warning here, since the files are what they were."""
    return [replace(f, severity="warning") for f in stored_probes(folder) if f.severity != "note"]


def _exchanged_truths(folder: StudyFolder) -> list[Finding]:
    """The stack step on exchanged truths; left out if nothing is stacked, or if what is stacked is stale."""
    try:
        stored = stored_stack(folder)
    except InputError:
        return []
    return permuted_study(folder, stored.models, accept_unverified=stored.accept_unverified)


def _ledger_heads(folder: StudyFolder) -> list[str]:
    """Ends of the ledger that seals and results remember; damaged ones are separate findings."""
    path = folder.results / "verdict.json"
    try:
        return [*heads(folder), *([str(read_json(path)["ledger_head"])] if path.exists() else [])]
    except (StackingError, KeyError, TypeError):
        return heads(folder)


def _results_against_plan(folder: StudyFolder) -> list[Finding]:
    path = folder.results / "leaderboard.json"
    if not path.exists():
        return []
    found, plan_digest = read_json(path).get("plan_digest"), folder.plan.digest
    if found == plan_digest:
        return []
    return [
        Finding(
            "error",
            "results_of_another_plan",
            f"{path} was made on fold plan {str(found)[:12]}, and the study has {plan_digest[:12]}. "
            f"Run `pertstack stack` and `pertstack verdict` again, or restore the plan.",
            where=str(path),
        )
    ]
