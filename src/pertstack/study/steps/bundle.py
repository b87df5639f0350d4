"""A verdict that travels: one file from which anybody derives the headline again, without the data.

A bundle holds plan, ledger, seals, scores per sample, weights, calibration, versions and the report, and nothing
measured. ``verify_bundle`` judges the scores anew, compares, and names what does not fit: the ledger's chain ties the
seals, the seals tie every file. Who writes all of it anew is found by a digest noted elsewhere (``expect_head``).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from pertstack._base.errors import CorruptionError, InputError, first_few
from pertstack._base.files import missing_file, read_json, whole
from pertstack._base.findings import Finding
from pertstack.design.analysis_plan import is_exploratory
from pertstack.design.ledger import LOOK, noted_digest
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.audit.audit import Check, ledger_findings
from pertstack.study.audit.elsewhere import DAMAGED
from pertstack.study.audit.tables import plan_as_locked
from pertstack.study.folder import StudyFolder
from pertstack.study.judged import derive
from pertstack.study.manifests import STEPS
from pertstack.study.outputs.bundle_archive import (
    LEFT_OUT,
    PLAN_FILES,
    against_manifest,
    archived,
    members,
    with_manifest,
)
from pertstack.study.outputs.for_the_paper import for_the_paper
from pertstack.study.sealed_results import noted_findings, sealed_verdict
from pertstack.study.seals import STACK_RESULTS, VERDICT_RESULTS, broken_seals
from pertstack.study.truth.held_out import look_findings, require_sealed_verdict, unfinished_look
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.setting import Setting


@dataclass(frozen=True)
class Verified:
    """What a bundle says, derived again, and everything in it that does not fit."""

    findings: tuple[Finding, ...]
    headline: str = ""  # derived from the scores per sample
    ledger_head: str = ""  # the line that seals the verdict
    looks: int = 0
    exploratory: bool = False

    @property
    def is_sound(self) -> bool:
        return not any(f.severity == "error" for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "sound": self.is_sound,
            "headline": self.headline,
            "ledger_head": self.ledger_head,
            "looks": self.looks,
            "exploratory": self.exploratory,
            "findings": [f.to_json() for f in self.findings],
        }


def bundle_study(folder: StudyFolder, out: Path) -> Path:
    """Write the bundle of a judged study, and verify it before it takes its place.

    Raises
    ------
    InputError
        Something lies at ``out``; there is no verdict, or the study was stacked again since.
    CorruptionError
        The study does not pass the checks of its own bundle.
    """
    if out.exists():
        raise InputError(f"{out} exists already. Remove it, or choose another name.")
    results = folder.results
    if not (results / "verdict.json").exists() or unfinished_look(folder) is not None:
        raise InputError(f"{folder.root} has no finished verdict to bundle. Run `pertstack verdict {folder.word}`.")
    require_sealed_verdict(folder)
    if not (results / "setting.json").exists():
        raise InputError(
            f"{folder.root} was judged by an earlier pertstack, which did not write {results / 'setting.json'}; "
            "without it the headline cannot be derived elsewhere. Pass on the folder `results` and the ledger instead."
        )
    if read_json(results / "verdict.json")["key"] != read_json(results / "weights.json")["key"]:
        raise InputError(
            f"{folder.root} was stacked again after its verdict, so its files are of two different stacks. "
            f"`pertstack status {folder.word}` shows what changed."
        )
    names = [*PLAN_FILES, "ledger.jsonl", "report.html", *(f"seals/{s}.json" for s in (*STEPS, "head"))]
    names += [f"results/{n}" for n in (*STACK_RESULTS, *VERDICT_RESULTS)]
    files = {n: folder.path(n).read_bytes() for n in names if n != LEFT_OUT and folder.path(n).is_file()}
    files |= {name: text.encode() for name, text in for_the_paper(folder).items()}
    with whole(out) as part:
        part.write_bytes(archived(with_manifest(files)))
        wrong = [f for f in verify_bundle(part).findings if f.severity == "error"]
        if wrong:
            raise CorruptionError(
                f"{folder.root} was not bundled: {first_few([f.message for f in wrong], 3)}. `pertstack audit "
                f"{folder.root}` shows everything that changed."
            )
    return out


def verify_bundle(path: Path, expect_head: str | None = None) -> Verified:
    """Derive the verdict again from the scores per sample, and name every part that was changed.

    Raises
    ------
    MissingFileError, InputError
        There is no file, or it is no bundle at all; ``expect_head`` is no digest.
    """
    noted = None if expect_head is None else noted_digest(expect_head)
    if Path(path).is_dir():
        word = quote(str(path))
        raise InputError(
            f"{path} is a folder, and verify reads the one file that a study was bundled into. For a study: "
            f"`pertstack bundle {word} verdict.zip`, then `pertstack verify verdict.zip`; `pertstack audit {word}` "
            f"checks the study itself."
        )
    if not Path(path).is_file():
        raise missing_file(Path(path))
    raw = Path(path).read_bytes()
    findings: list[Finding] = []
    files = members(path, raw, findings)
    findings += against_manifest(files)
    if not findings and archived(files) != raw:
        text = f"{path.name} is not the archive that was written: something outside of its files was changed."
        findings.append(Finding("error", "archive_edited", text, where=path.name))
    with tempfile.TemporaryDirectory(prefix="pertstack-verify-") as scratch:
        root = Path(scratch)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        found = _checked(StudyFolder(root), noted)
        said = [_at_home(f, root) for f in found.findings]
    unique = {(f.code, f.where, f.message): f for f in (*findings, *said)}
    return replace(found, findings=tuple(unique.values()))


def _checked(folder: StudyFolder, noted: str | None) -> Verified:
    """The checks of the files as they lie in a folder."""
    findings: list[Finding] = []

    def ask(where: str, check: Any) -> Any:
        try:
            return check()
        except DAMAGED as error:
            text = f"{where} cannot be read ({type(error).__name__}: {error}): it was edited or damaged."
            findings.append(Finding("error", "unreadable", text, where=where))
            return None

    checks: dict[str, Check] = {
        "ledger.jsonl": lambda: ledger_findings(folder),
        "seals": lambda: broken_seals(folder),
        "results": lambda: look_findings(folder),
        "plan.toml": lambda: plan_as_locked(folder),
    }
    for where, check in checks.items():
        findings += ask(where, lambda check=check: list(check())) or []
    findings = [f for f in findings if not _travels_not(f, folder.root)]
    if noted:
        findings += noted_findings(folder, noted) if ask("ledger.jsonl", folder.ledger.entries) else []
    board = ask("results", lambda: _derived(folder))
    if board is None:
        return Verified(tuple(findings))
    findings += ask("results", lambda: list(_differences(folder, board))) or []
    head, looks = ask("ledger.jsonl", lambda: (sealed_verdict(folder) or "", folder.ledger.looks())) or ("", 0)
    return Verified(tuple(findings), board.headline, head, looks=looks, exploratory=board.exploratory)


def _derived(folder: StudyFolder) -> Leaderboard:
    results, plan = folder.results, folder.analysis_plan
    setting = Setting.from_json(read_json(results / "setting.json"))
    oof = ScoreTable.load(results / "oof_scores.npz")
    test = ScoreTable.load(results / "test_scores.npz") if plan.looks_rule == "plain" else None
    return derive(setting, plan, oof, test=test, ledger=folder.ledger).leaderboard


def _differences(folder: StudyFolder, board: Leaderboard) -> Iterator[Finding]:
    """Where the files do not say what the scores, the plan and the ledger say."""
    written = read_json(folder.results / "leaderboard.json")
    places = list(_unequal(written, json.loads(board.to_json())))
    if places:
        text = f"results/leaderboard.json is not what its scores give: it differs in {first_few(places, 5)}. Derived "
        text += f"again, the headline is: {board.headline}"
        yield Finding(
            "error",
            "board_not_derived",
            text,
            count=len(places),
            examples=tuple(places[:10]),
            where="results/leaderboard.json",
        )
    lines = (folder.results / "leaderboard.csv").read_text(encoding="utf-8").splitlines()
    if sorted(lines) != sorted(Leaderboard.from_dict(written).to_csv().splitlines()):  # JSON keeps no order of metrics
        text = "results/leaderboard.csv is not the table of results/leaderboard.json."
        yield Finding("error", "table_not_derived", text, where="results/leaderboard.csv")
    for name, expected in for_the_paper(folder).items():
        if folder.path(name).read_text(encoding="utf-8") != expected:
            yield Finding("error", "text_not_derived", f"{name} is not what the results say.", where=name)
    yield from _against_ledger(folder, board)


def _against_ledger(folder: StudyFolder, board: Leaderboard) -> Iterator[Finding]:
    """The last look in the ledger against what the board says of it."""
    looks = folder.ledger.of_kind(LOOK)
    facts: Mapping[str, Any] = looks[-1].facts if looks else {}
    said = {
        "looks": board.test_looks,
        "chosen": board.chosen,
        "plan_digest": board.plan_digest,
        "fold plan": board.plan_digest,
        "primary": board.primary,
        "exploratory": board.exploratory,
    }
    true = {
        "looks": len(looks),
        "chosen": facts.get("chosen"),
        "plan_digest": facts.get("plan_digest"),
        "fold plan": folder.plan.digest,
        "primary": folder.analysis_plan.choice_metric,
        "exploratory": is_exploratory(folder.ledger),
    }
    wrong = [f"{k}: {said[k]!r} against {true[k]!r}" for k in said if said[k] != true[k]]
    if wrong:
        text = f"The board and the ledger with its plans disagree ({'; '.join(wrong)})."
        yield Finding("error", "board_against_ledger", text, where="results/setting.json")


def _unequal(one: Any, two: Any, at: str = "") -> Iterator[str]:
    """Places at which two JSON values differ; numbers may differ in the tenth digit, as machines do."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted(one.keys() | two.keys()):
            if key in one and key in two:
                yield from _unequal(one[key], two[key], f"{at}.{key}".lstrip("."))
            else:
                yield f"{at}.{key}".lstrip(".")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from _unequal(a, b, f"{at}[{i}]")
    elif isinstance(one, float) and isinstance(two, int | float) and not isinstance(two, bool):
        if not math.isclose(one, two, rel_tol=1e-7, abs_tol=1e-10):
            yield at
    elif one != two:
        yield at


def _travels_not(finding: Finding, root: Path) -> bool:
    """Whether a finding is only that a file does not travel."""
    name = finding.where.removeprefix(f"{root}/")
    travels = name in (*PLAN_FILES, "report.html") or (name.startswith("results/") and name != LEFT_OUT)
    return finding.code in ("file_removed", "results_removed") and not travels


def _at_home(finding: Finding, root: Path) -> Finding:
    """The finding with names as in the bundle, rather than in the folder where it was unpacked."""
    message, where = (t.replace(f"{root}/", "").replace(str(root), "STUDY") for t in (finding.message, finding.where))
    return replace(finding, message=message, where=where)
