"""Results of the verdict against the line of the ledger that seals them.

A look is judged once: the first seal after it holds, and a later one that no look lies before seals nothing. So files
written by hand cannot be made right by another line. Whether a look was interrupted is asked of
``study/truth/held_out.py``.
"""

from __future__ import annotations

from typing import Any

from pertstack._base.errors import CorruptionError
from pertstack._base.files import read_json, sha256_of
from pertstack._base.findings import Finding
from pertstack._base.shown import count_of
from pertstack.design.ledger import LOOK
from pertstack.design.ledger_lines import Entry
from pertstack.study.folder import StudyFolder
from pertstack.study.manifests import SEALED
from pertstack.study.seals import VERDICT_RESULTS


def verdict_seals(folder: StudyFolder) -> tuple[list[Entry], list[Entry]]:
    """Lines that seal a verdict: the first after each look, and those that no look lies before."""
    due, held, others = False, list[Entry](), list[Entry]()
    for entry in folder.ledger.entries():
        if entry.kind == LOOK:
            due = True
        elif entry.kind == SEALED and entry.facts["step"] == "verdict":
            (held if due else others).append(entry)
            due = False
    return held, others


def sealed_verdict(folder: StudyFolder) -> str | None:
    """Digest of the ledger's line that seals the last verdict: it stands for every line before it as well."""
    held, _ = verdict_seals(folder)
    return held[-1].digest if held else None


def unsealed_results(folder: StudyFolder) -> list[str]:
    """Names of result files of the verdict that are not as last sealed, or gone; none in a study never sealed."""
    if not folder.ledger.of_kind(SEALED):
        folder.ledger.require_whole()  # none, or cut to where there were none
        return []
    held, _ = verdict_seals(folder)
    known = dict(held[-1].facts["files"]) if held else {}
    found = {n: sha256_of(p) for n in VERDICT_RESULTS if (p := folder.results / n).is_file()}
    return [n for n in VERDICT_RESULTS if found.get(n) != known.get(f"results/{n}")]


def verdict_facts(folder: StudyFolder) -> dict[str, Any] | None:
    """What ``verdict.json`` holds; None before the first verdict.

    Raises
    ------
    CorruptionError
        It is gone, and the ledger says that a verdict was sealed.
    """
    path = folder.results / "verdict.json"
    if path.exists():
        return dict(read_json(path))
    held, _ = verdict_seals(folder)
    if not held:
        return None
    raise CorruptionError(
        f"{path} is gone, and the ledger says that the verdict was sealed on {held[-1].time}. Restore {folder.results} "
        f"from a copy. Where there is none, `pertstack verdict {folder.word} --exploratory` opens the test again, "
        "which is counted."
    )


def refuse_lost(folder: StudyFolder, key: str) -> None:
    """Refuse another look at what was judged already and whose results were removed.

    Parameters
    ----------
    folder : of the study.
    key : of the stack that is to be judged.

    Raises
    ------
    CorruptionError
        The last look judged this stack.
    """
    looks = folder.ledger.of_kind(LOOK)
    if looks and looks[-1].facts.get("key") == key:
        verdict_facts(folder)


def resealed_findings(folder: StudyFolder) -> list[Finding]:
    """Lines that seal other results than those of the look before them."""
    held, others = verdict_seals(folder)
    out = []
    for entry in others:
        before = [h for h in held if h.index < entry.index]
        if before and before[-1].facts["files"] == entry.facts["files"]:
            continue
        between = f"between it and the seal of {before[-1].time}" if before else "before it"
        text = f"{folder.path('ledger.jsonl')} line {entry.index + 1} ({entry.time}) seals results of a verdict, and "
        text += (
            f"no look lies {between}: a look is judged once. Restore {folder.results}, seals/ and the ledger from a "
        )
        text += "copy."
        numbers = {"rows": [entry.index]}
        label = (f"line {entry.index + 1}",)
        where = str(folder.path("ledger.jsonl"))
        out.append(Finding("error", "sealed_without_look", text, examples=label, where=where, numbers=numbers))
    return out


def noted_findings(folder: StudyFolder, head: str) -> list[Finding]:
    """A finding when a digest that was written down elsewhere is not in the ledger, or stands for results that others
    have replaced since.

    Parameters
    ----------
    folder : of the study.
    head : at least the first 12 characters of the digest of a line.
    """
    found = folder.ledger.expected(head)
    if found:
        return found
    wanted = head.strip().casefold()
    at = next(e.index for e in folder.ledger.entries() if e.digest.startswith(wanted))
    held, _ = verdict_seals(folder)
    then, since = [e for e in held if e.index <= at], [e for e in held if e.index > at]
    if not then or not since:
        return []
    text = f"{folder.path('ledger.jsonl')} holds {wanted[:12]}, which stands for the results of {then[-1].time}. The "
    text += f"test was looked at {count_of(len(since), 'time')} more since, and what is shown was sealed on "
    text += f"{since[-1].time}: it is not what was noted. Its own digest is {since[-1].digest}."
    where = str(folder.path("ledger.jsonl"))
    return [Finding("error", "results_after_noted", text, where=where, numbers={"head": wanted})]
