"""The held-out test behind one door: who opens it writes the ledger first, and nothing else opens it.

A look is an intent (what will be judged, by digest), the opening, and a result that a seal ties to the intent. An
intent without a sealed result, because the machine stopped or the disk was full, is taken up by the same command and
not counted again; with other predictions, weights or plan it is another look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pertstack._base.digests import digest_json
from pertstack._base.errors import CorruptionError, InputError, PlanLockedError, StackingError
from pertstack._base.findings import Finding
from pertstack.design.analysis_plan import OPENED, locked_plan, permit_look
from pertstack.design.blocks import Block
from pertstack.design.ledger import LOOK
from pertstack.design.ledger_lines import Entry
from pertstack.predictions.importers.readers.merge import load_marks, study_fingerprints
from pertstack.predictions.store.sealed import SealedStore
from pertstack.predictions.store.store import PredictionStore
from pertstack.predictions.store.verify import verify_block
from pertstack.study.folder import MARKS, StudyFolder
from pertstack.study.manifests import SEALED
from pertstack.study.sealed_results import resealed_findings, unsealed_results
from pertstack.study.seals import is_sealed, require_unbroken
from pertstack.study.truth.sealing_key import SealingKey

TRUTH = "test_truth"
Reason = Literal["export", "row_marks"]


@dataclass(frozen=True)
class Look:
    """One look at the test: its line of the ledger, and whether what comes of it is marked exploratory."""

    entry: Entry

    @property
    def number(self) -> int:
        return int(self.entry.facts["number"])

    @property
    def exploratory(self) -> bool:
        return bool(self.entry.facts["exploratory"])


@dataclass(frozen=True)
class HeldOutTruth:
    """The treated values of the test rows. ``key``: the file with the key of a sealed test."""

    folder: StudyFolder
    key: Path | None = None

    def open(self, reason: Reason, **facts: Any) -> PredictionStore:
        """The values, for something that is no look. The line of the ledger is on the disk before this returns.

        ``early`` in the line says that planned looks were still to come: every later result is marked then. The test
        is opened only if its files, and the key of a sealed one, are right; nothing is written otherwise.
        """
        store = self._unlocked()
        with self.folder.writing():
            self._require_whole()
            early = reason == "export" and not self.is_spent
            self.folder.ledger.append(OPENED, reason=reason, early=early, looks=self.folder.ledger.looks(), **facts)
        return store

    def _require_whole(self) -> None:
        """Refuse, before the ledger is written, to give away what ``init`` did not lay out or what cannot be read."""
        require_unbroken(self.folder, ("init",))
        wrong = [f for f in self.unread().verify(deep=self.folder.test_key is None) if f.severity == "error"]
        if wrong:
            raise CorruptionError(f"The test was not opened. {wrong[0].message}")

    def look(self, intent: dict[str, Any], *, exploratory: bool) -> tuple[Look, PredictionStore]:
        """The values, to judge what ``intent`` describes (plain JSON), and the look this is.

        Raises
        ------
        PlanLockedError
            The plan differs from the locked one, or all planned looks are used up.
        CorruptionError
            The study is not what its steps wrote; nothing was opened.
        InputError
            The test is sealed and the key is not there, or not the right one; nothing was opened.
        """
        store = self._unlocked()
        digest = digest_json(intent)
        require_unbroken(self.folder)
        last = unfinished_look(self.folder)
        if last is None or last.facts.get("intent") != digest:
            try:
                permit = permit_look(self.folder.analysis_plan, self.folder.ledger, exploratory=exploratory)
            except PlanLockedError as error:
                raise error if last is None else PlanLockedError(f"{error}{_taken_up(last)}") from None
            last = self.folder.ledger.append(
                LOOK,
                number=permit.number,
                planned=permit.planned,
                exploratory=permit.exploratory,
                intent=digest,
                **intent,
            )
        return Look(last), store

    def again(self, number: int) -> PredictionStore:
        """The values for a part of look ``number`` that is made in another process while the look is under way.

        Raises
        ------
        InputError
            No such look is under way; nothing was opened.
        """
        last = unfinished_look(self.folder)
        if last is None or last.facts["number"] != number:
            raise InputError(f"Look {number} of {self.folder.root} is not under way. Run `pertstack verdict` again.")
        return self._unlocked()

    @property
    def is_locked(self) -> bool:
        """Whether the test is sealed and no key was given."""
        return self.folder.test_key is not None and self.key is None

    def require_key(self) -> bytes | None:
        """The secret of a sealed test; None if the test is not sealed.

        Raises
        ------
        InputError
            No key, a wrong or damaged one, or a key for a test that is not sealed.
        """
        wanted, root = self.folder.test_key, self.folder.root
        if wanted is None:
            if self.key is not None:
                raise InputError(f"The test of {root} is not sealed, so there is no key to it. Leave --key out.")
            return None
        if self.key is None:
            raise InputError(
                f"The test of {root} is sealed with key {wanted}. Ask whoever holds that key for the file and name it: "
                f"--key FILE. Nothing was opened and no look was made."
            )
        found = SealingKey.read(self.key)
        if found.id != wanted:
            raise InputError(
                f"{self.key} is key {found.id}, and the test of {root} is sealed with key {wanted}. Nothing was opened "
                f"and no look was made."
            )
        return found.secret

    def _unlocked(self) -> PredictionStore:
        secret, store = self.require_key(), self._store()
        if isinstance(store, SealedStore):
            store.key = secret
        return store

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left to be protected: all planned looks are made and sealed, each in full."""
        ledger = self.folder.ledger
        plan = locked_plan(ledger) or self.folder.analysis_plan
        whole = plan.looks_rule == "plain" and unfinished_look(self.folder) is None
        return whole and ledger.looks() >= plan.looks

    def unread(self, *, of_this_plan: bool = True) -> UnreadTruth:
        """The files, to be checked and not read; also those of another plan, when the audit wants to name them."""
        return UnreadTruth(self._store if of_this_plan else lambda: self._kind.open(self.folder.path(TRUTH)))

    @property
    def _kind(self) -> type[PredictionStore]:
        return PredictionStore if self.folder.test_key is None else SealedStore

    def _store(self) -> PredictionStore:
        return self.folder.open_store(TRUTH, self._kind)


def _taken_up(look: Entry) -> str:
    """How an interrupted look at something else is finished."""
    names = ", ".join(look.facts.get("models", ()))
    return (
        f" The look of {look.time} was interrupted and has no results; it was of {names}, other weights or another "
        "plan. Stacked and planned as then, `pertstack verdict` finishes it and does not count it again."
    )


class UnreadTruth:
    """What an audit may ask of the test truth: names and checksums, no value."""

    def __init__(self, store: Any) -> None:
        self._open = store

    def sample_ids(self, block: Block) -> Iterable[str]:
        return list(self._open().sample_ids(block))

    def verify(self, *, deep: bool, whole: Collection[Block] = ()) -> list[Finding]:
        return list(self._open().verify(deep=deep, whole=whole))

    def verify_block(self, block: Block) -> list[Finding]:
        return verify_block(self._open(), block)


def row_marks(folder: StudyFolder) -> dict[bytes, list[str]]:
    """Sample ids by the fingerprint of their measured rows, from ``init``; a study made before there were any has its
    truth opened for it, with a line in the ledger."""
    path = folder.path("plan", MARKS)
    if path.exists():
        is_sealed(folder, "init", path)  # refused when it is not what ``init`` wrote: rows would be taken for others
        return load_marks(path, [str(s) for s in folder.samples.index])
    return study_fingerprints(folder.store, HeldOutTruth(folder).open("row_marks"))


def unfinished_look(folder: StudyFolder) -> Entry | None:
    """The last look, when no sealed result came of it."""
    last, sealed = None, -1
    for entry in folder.ledger.entries():
        if entry.kind == LOOK:
            last = entry
        elif entry.kind == SEALED and entry.facts["step"] == "verdict":
            sealed = entry.index
    return last if last is not None and last.index > sealed else None


def require_sealed_verdict(folder: StudyFolder) -> None:
    """Refuse results of the test that are not those that were sealed when they were written.

    Raises
    ------
    InputError
        The verdict was interrupted; running it again finishes the same look.
    CorruptionError
        They were changed since.
    """
    wrong = unsealed_results(folder)
    if not wrong:
        return
    look = unfinished_look(folder)
    if look is not None:
        raise InputError(
            f"The verdict of {look.time} was interrupted before its results were sealed, so {', '.join(wrong)} cannot "
            f"be told from edited ones. Run `pertstack verdict {folder.word}` again: it is the same look and is not "
            "counted twice."
        )
    raise CorruptionError(
        f"{', '.join(wrong)} in {folder.results} changed after the verdict had sealed them, or are gone. `pertstack "
        f"audit {folder.root}` shows what changed. Restore the files from a copy."
    )


def look_findings(folder: StudyFolder) -> list[Finding]:
    """What the audit says of a look that was interrupted, and of results that were sealed without one."""
    try:
        look, wrong, again = unfinished_look(folder), unsealed_results(folder), resealed_findings(folder)
    except StackingError:
        return []  # a broken ledger has separate findings
    if look is None:
        return again
    said = f" {', '.join(wrong)} cannot be told from edited files." if wrong else ""
    text = f"The look of {look.time} was interrupted before its results were sealed.{said} `pertstack verdict "
    text += f"{folder.root}` finishes it, with the same weights and plan, and does not count it again."
    severity: Literal["error", "warning"] = "error" if wrong else "warning"
    return [*again, Finding(severity, "look_unfinished", text, where=str(folder.path("ledger.jsonl")))]
