"""Files of a study that somebody or something changed: found by the audit, and refused or read by every command."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import pertstack as ps
from copies import copied
from fuzz import Outcome, many, mutated, tried
from pertstack._base.errors import StackingError
from pertstack.study.audit.audit import audit_study, folder_to_audit

FREE = ("log.txt", ".lock", "plan.toml", "curve.json", "leaderboard.html")
"""Logs, and the plan that people edit: compared with the locked one by content."""


def readers(root: Path) -> list[str]:
    """Every command that reads a study; what each of them refused."""
    steps = {
        "status": lambda: ps.Study.open(root).status().to_json(),
        "findings": lambda: ps.Study.open(root).findings(),
        "plan": lambda: ps.Study.open(root).describe_plan(),
        "board": lambda: ps.Study.open(root).leaderboard(),
        "describe": lambda: ps.Study.open(root).describe(),
        "change": lambda: ps.Study.open(root).change_plan({"looks": 2}),
        "verdict": lambda: ps.Study.open(root).verdict(),
        "withdraw": lambda: ps.Study.open(root).withdraw("ridge", "why not"),
    }
    refused = []
    for name, step in steps.items():
        try:
            step()
        except StackingError:
            refused.append(name)
    return refused


def went_through(study: ps.Study, tmp_path: Path, numbers: range) -> list[Outcome]:
    original = study.folder.root
    files = sorted(p.relative_to(original) for p in original.rglob("*") if p.is_file() and p.name not in FREE)
    readers(copied(original, tmp_path / "warm"))

    def step(number: int) -> object:
        rng = np.random.default_rng(number)
        root = copied(original, tmp_path / f"m{number}")
        name = files[int(rng.integers(len(files)))]
        before = (root / name).read_bytes()
        mutated(root / name, rng)
        try:
            if (root / name).read_bytes() == before:
                return "the same"
            deep = name.parts[0] == "reduced" or "c" in name.parts
            found = audit_study(folder_to_audit(root), deep=deep, clean=False)
            refused = readers(root)
            if not any(f.severity in ("error", "warning") for f in found):
                raise AssertionError(f"{name} was changed and the audit found nothing; refused: {refused}")
            return f"{name}: {refused}"
        finally:
            shutil.rmtree(root)

    return tried(step, numbers)


def held(study: ps.Study, tmp_path: Path, numbers: range) -> None:
    failed = [f"mutation {o.number}: {o.said}" for o in went_through(study, tmp_path, numbers) if o.kind != "read"]
    assert not failed, "\n".join([f"{len(failed)} of {len(numbers)}", *failed[:20]])


def test_a_file_of_a_study_that_was_mutated_is_found_and_breaks_no_command(judged, tmp_path):
    held(judged, tmp_path, range(3))


@pytest.mark.slow
def test_many_files_of_a_study_that_were_mutated_are_found_and_break_no_command(judged, tmp_path):
    held(judged, tmp_path, many())
