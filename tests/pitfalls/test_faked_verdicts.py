"""Results of a verdict that were written by hand, removed, or sealed once more: no command goes by them."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

import pertstack as ps
from copies import copied
from pertstack._base.errors import CorruptionError, StackingError
from pertstack.design.ledger import LOOK
from pertstack.study.audit.audit import audit_study
from pertstack.study.development.learned import stored_stack
from pertstack.study.sealed_results import sealed_verdict
from pertstack.study.seals import VERDICT_RESULTS, seal_verdict
from pertstack.study.shipped import fit_named, shipped
from pertstack.study.steps.bundle import _checked


def better(folder):
    """Every score of the board becomes 0.99."""
    path = folder.results / "leaderboard.json"
    value = json.loads(path.read_text())
    for row in value["rows"]:
        for cell in row["scores"].values():
            cell["value"] = 0.99
    path.write_text(json.dumps(value))


def errors(study, **how):
    found = audit_study(study.folder, deep=False, clean=False, **how)
    return {f.code for f in found if f.severity == "error"}


def refused_everywhere(study, tmp_path):
    """By whatever shows a verdict or goes by it; the ledger stays what it is."""
    folder = study.folder
    lines = folder.path("ledger.jsonl").read_bytes()
    steps = {
        "leaderboard": study.leaderboard,
        "ships": lambda: shipped(folder, stored_stack(folder)),
        "verdict": study.verdict,
        "run": study.run,
        "report": study.report,
        "export": lambda: study.export(tmp_path / "out.h5ad"),
        "bundle": lambda: study.bundle(tmp_path / "out.zip"),
    }
    for name, step in steps.items():
        with pytest.raises(CorruptionError) as told:
            step()
        assert str(folder.results) in str(told.value), name
    assert folder.path("ledger.jsonl").read_bytes() == lines and not list(tmp_path.glob("out.*"))
    assert "verdict" in study.status().stale


def test_results_sealed_by_another_line_are_not_those_of_the_look(judged, tmp_path):
    """A line with a right digest can be appended by anybody; only a look in front of it would make it a seal."""
    noted = sealed_verdict(judged.folder)
    better(judged.folder)
    seal_verdict(judged.folder)
    assert "sealed_without_look" in errors(judged, expect_head=noted)
    assert sealed_verdict(judged.folder) == noted
    assert "sealed_without_look" in {f.code for f in _checked(judged.folder, noted).findings}  # as `verify` does
    refused_everywhere(judged, tmp_path)


@pytest.mark.parametrize("names", [["verdict.json"], ["leaderboard.json"], VERDICT_RESULTS])
def test_results_that_were_removed_do_not_make_a_study_that_was_never_judged(judged, tmp_path, names):
    """Without ``verdict.json`` the combination chosen out of fold shipped, whatever the verdict had said."""
    for name in names:
        (judged.folder.results / name).unlink()
    assert "results_removed" in errors(judged)
    refused_everywhere(ps.Study.open(judged.folder.root), tmp_path)


def test_a_noted_digest_stands_for_the_results_of_its_own_look(judged):
    """A second look that nobody planned is in the ledger; whoever noted the first is told that another is shown."""
    folder, noted = judged.folder, sealed_verdict(judged.folder)
    assert errors(judged, expect_head=noted) == set()
    folder.ledger.append(LOOK, number=2, planned=1, exploratory=True, intent="another")
    better(folder)
    seal_verdict(folder)
    assert errors(judged) == set()
    assert errors(judged, expect_head=noted) == {"results_after_noted"}
    assert errors(judged, expect_head=sealed_verdict(folder)) == set()
    assert errors(judged, expect_head=next(iter(folder.ledger.entries())).digest) == set()


def exchanged(place, folder):
    """Checksum and record are those of a prediction."""
    shutil.rmtree(place)
    copied(folder.path("store", *place.relative_to(folder.path("test_truth")).parts[:-1], "ridge"), place)


def chunk_gone(place, folder):
    next(p for p in place.rglob("c/*/*") if p.is_file()).unlink()


def chunk_edited(place, folder):
    path = next(p for p in place.rglob("c/*/*") if p.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def chunk_that_leads_to_itself(place, folder):
    path = next(p for p in place.rglob("c/*/*") if p.is_file())
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("harm", [exchanged, chunk_gone, chunk_edited, chunk_that_leads_to_itself])
def test_a_truth_that_init_did_not_lay_out_is_not_exported(judged, tmp_path, harm):
    """`verdict` refused another truth; `export` wrote it as measured. And with a chunk gone the ledger said that the
    test had been opened, which marks all that comes, though nothing was written."""
    folder = judged.folder
    harm(sorted(folder.path("test_truth").glob("blocks/*/layers/treated"))[0], folder)
    lines = folder.path("ledger.jsonl").read_bytes()
    for name in ("out.h5ad", "out"):
        with pytest.raises(CorruptionError, match="The test was not opened"):
            judged.export(tmp_path / name, models=["ridge"], with_truth=True)
    assert folder.path("ledger.jsonl").read_bytes() == lines and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("name", ["plan/references.npz", "plan/samples.parquet", "card.json"])
def test_nothing_is_predicted_from_a_layout_that_was_edited(judged, name):
    """Weights were held against their seal; what they combine with was not."""
    path = judged.folder.path(*name.split("/"))
    path.write_bytes(path.read_bytes() + b" ")
    study = ps.Study.open(judged.folder.root)
    with pytest.raises(CorruptionError, match=path.name):
        fit_named(study.folder, stored_stack(study.folder), "mean", workers=1)


def test_a_pipe_in_the_place_of_a_file_is_named_and_nobody_waits_for_it(judged):
    folder = judged.folder
    for name in ("plan.toml", "results/verdict.json", "plan/plan.json"):
        path = folder.path(*name.split("/"))
        path.unlink()
        os.mkfifo(path)
    assert {"unreadable"} <= errors(judged)
    with pytest.raises(CorruptionError, match="no plain file"):
        ps.Study.open(folder.root).verdict()


@pytest.mark.parametrize("name", ["ledger.jsonl", "study.toml", "store/genes.txt", "chunk"])
def test_no_command_waits_for_a_pipe(judged, name):
    """SIGALRM ends the test where one does."""
    root = judged.folder.root
    chunks = sorted(p for p in (root / "store").rglob("c/*/*") if p.is_file())
    path = chunks[0] if name == "chunk" else root / name
    path.unlink()
    os.mkfifo(path)
    signal.alarm(60)
    try:
        with pytest.raises(StackingError):
            study = ps.Study.open(root)
            found = audit_study(study.folder, deep=True, clean=False)
            if any(f.severity == "error" for f in found):
                raise CorruptionError("told by the audit")
    finally:
        signal.alarm(0)
