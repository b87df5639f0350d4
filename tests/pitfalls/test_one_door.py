"""One door to the held-out test: what a cut ledger, a crash or a second command at the same time may not do."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import numpy as np
import pytest

import pertstack as ps
from copies import copied
from faults import run_with_fault, what_is_left
from pertstack._base.errors import CorruptionError, InputError, PlanLockedError
from pertstack.predictions.store.store import PredictionStore
from pertstack.study.audit.audit import audit_study
from pertstack.study.steps.bundle import verify_bundle


def cut_before(study, kind: str) -> None:
    """The attack: the ledger ends before the first entry of a kind, and the verdict's files are gone."""
    path = study.folder.path("ledger.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if f'"kind": "{kind}"' in line)
    path.write_text("".join(lines[:at]))
    for name in ("verdict.json", "leaderboard.json", "leaderboard.csv", "test_scores.npz", "checks.json"):
        (study.folder.results / name).unlink()


@pytest.mark.parametrize("kind", ["plan_locked", "look"])
def test_a_cut_ledger_is_not_laundered_by_ordinary_commands(judged, kind):
    cut_before(judged, kind)
    book = judged.folder.path("ledger.jsonl")
    before = book.read_bytes()
    steps = {
        "stack": lambda: judged.stack(["mean"]),
        "verdict": judged.verdict,
        "withdraw": lambda: judged.withdraw("ridge", "why not"),
    }
    for name, step in steps.items():
        with pytest.raises(CorruptionError, match="with which it ended before"):
            step()
        assert book.read_bytes() == before, name
    assert any(f.code == "ledger_cut_short" for f in judged.audit())


# -- a look that is interrupted ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stacked_study(fitted_study, tmp_path_factory):
    root = copied(fitted_study.folder.root, tmp_path_factory.mktemp("stacked") / "study")
    study = ps.Study.open(root)
    study.stack(["mean"])
    return study


@pytest.fixture
def stacked(stacked_study, tmp_path):
    return ps.Study.open(copied(stacked_study.folder.root, tmp_path / "stacked"))


@pytest.fixture(scope="module")
def whole(stacked_study, tmp_path_factory):
    """The board of a verdict that nothing disturbed, and the number of file-system calls it took."""
    root = copied(stacked_study.folder.root, tmp_path_factory.mktemp("whole") / "stacked")
    n = run_with_fault(lambda: ps.Study.open(root).verdict(), root, at=None)
    assert n > 20
    return json.loads((root / "results" / "leaderboard.json").read_text()), n


def points(n: int, every: bool) -> list[int]:
    return list(range(1, n + 1)) if every else [n // 4, n - 4]


def disturbed(study, whole, at: int, fault, seen: set[object] | None = None) -> None:
    """The verdict is stopped at a call; the next one gives the same board, and the ledger holds one look. What left
    files of the same names and sizes as an earlier fault (``seen``) is not gone through again."""
    root = study.folder.root
    run_with_fault(lambda: ps.Study.open(root).verdict(), root, at=at, fault=fault)
    if seen is not None:
        left = what_is_left(root)
        if left in seen:
            return
        seen.add(left)
    again = ps.Study.open(root)
    errors = {f.code for f in again.audit() if f.severity == "error"}
    assert errors <= {"look_unfinished", "results_edited", "results_removed"}, (at, errors)
    board = again.verdict()
    assert again.folder.ledger.looks() == 1 and board.test_looks == 1 and not board.exploratory, at
    assert json.loads((root / "results" / "leaderboard.json").read_text()) == whole[0], at
    assert not [f for f in again.audit(deep=True) if f.severity == "error"], at


@pytest.mark.parametrize("fault", ["kill", pytest.param("full", marks=pytest.mark.slow)])
def test_a_look_survives_a_crash_and_a_full_disk(stacked_study, whole, tmp_path, fault):
    for at in points(whole[1], every=False):
        root = copied(stacked_study.folder.root, tmp_path / f"{fault}{at}" / "stacked")
        disturbed(ps.Study.open(root), whole, at, fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_look_survives_a_fault_at_every_call(stacked_study, whole, tmp_path, fault):
    seen: set[object] = set()
    for at in points(whole[1], every=True):
        root = copied(stacked_study.folder.root, tmp_path / "stacked")
        disturbed(ps.Study.open(root), whole, at, fault, seen)
        shutil.rmtree(root)
    assert len(seen) > 10


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_unsealed_board_is_refused_and_edits_to_it_do_not_last(stacked, whole, monkeypatch):
    root = stacked.folder.root
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pertstack.study.study.seal_verdict", stop)
        stacked.verdict()
    path = root / "results" / "leaderboard.json"
    path.write_text(path.read_text().replace('"value": 0.', '"value": 0.99'))
    study = ps.Study.open(root)
    for read in (study.leaderboard, study.report):
        with pytest.raises(InputError, match=r"interrupted before its results were sealed.*pertstack verdict"):
            read()
    assert any(f.code == "look_unfinished" and f.severity == "error" for f in study.audit())
    study.verdict()
    assert json.loads(path.read_text()) == whole[0] and study.folder.ledger.looks() == 1


def test_an_interrupted_look_with_other_weights_is_a_second_look(stacked, monkeypatch):
    study = stacked
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pertstack.study.steps.verdict._score_test", stop)
        study.verdict()
    assert study.folder.ledger.looks() == 1
    study.stack(["simplex", "mean"])
    with pytest.raises(
        PlanLockedError, match=r"opened 1 time and the locked plan allows 1.*interrupted and has no results"
    ):
        study.verdict()
    study.stack(["mean"])  # back to what the intent named: the same look
    assert study.verdict().test_looks == 1


def test_a_board_edited_after_its_seal_is_refused_by_its_readers(judged):
    path = judged.folder.results / "leaderboard.json"
    path.write_text(path.read_text().replace('"value": 0.', '"value": 0.9', 1))
    for read in (judged.leaderboard, judged.report, judged.verdict):
        with pytest.raises(CorruptionError, match="changed after the verdict had sealed them"):
            read()


# -- withdrawal, and two commands at once ------------------------------------------------------------------------------


def withdrawal_disturbed(study, at: int, fault, seen: set[object] | None = None) -> None:
    """A withdrawal is stopped at a call; the next command finishes it, and it is in the ledger once. What left files of
    the same names and sizes as an earlier fault (``seen``) is not gone through again."""
    root = study.folder.root
    done = run_with_fault(lambda: ps.Study.open(root).withdraw("ridge", "stopped"), root, at=at, fault=fault)
    assert done < 0 or fault == "full", at  # a disk that is full in the last clean-up is nobody's loss
    if seen is not None:
        left = what_is_left(root)
        if left in seen:
            return
        seen.add(left)
    again = ps.Study.open(root)
    if again.folder.withdrawn():
        again.change_plan({})
        assert not [m for m in again.folder.store.models() if "ridge" in m], at
    assert again.withdraw("ridge", "stopped") == 8 and "ridge" in again.folder.withdrawn(), at
    assert len(again.folder.ledger.of_kind("model_withdrawn")) == 1, at
    assert not [f for f in again.audit() if f.severity == "error"], at


def calls_of_a_withdrawal(study) -> int:
    root = study.folder.root
    copy = copied(root, root.with_name("count"))
    return run_with_fault(lambda: ps.Study.open(copy).withdraw("ridge", "stopped"), copy, at=None)


def test_a_withdrawal_that_was_killed_is_finished_by_the_next_command(fitted):
    root, n = fitted.folder.root, calls_of_a_withdrawal(fitted)
    for at in (n // 3, n):
        withdrawal_disturbed(ps.Study.open(copied(root, root.with_name(f"at{at}"))), at, "kill")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_withdrawal_survives_a_fault_at_every_call(fitted, fault):
    root, n = fitted.folder.root, calls_of_a_withdrawal(fitted)
    seen: set[object] = set()
    for at in range(1, n + 1):
        each = copied(root, root.with_name("each"))
        withdrawal_disturbed(ps.Study.open(each), at, fault, seen)
        shutil.rmtree(each)
    assert len(seen) > 10


def test_two_verdicts_at_once_are_one_look(stacked):
    root = stacked.folder.root
    with ThreadPoolExecutor(2) as pool:
        boards = list(pool.map(lambda _: ps.Study.open(root).verdict().to_dict(), range(2)))
    assert boards[0]["headline"] == boards[1]["headline"]
    assert [e.facts["number"] for e in ps.Study.open(root).folder.ledger.of_kind("look")] == [1]


# -- one place opens the truth -----------------------------------------------------------------------------------------


def test_an_export_gives_no_truth_while_looks_are_to_come(stacked, tmp_path):
    stacked.change_plan({"looks": 3, "looks_rule": "ladder"})
    stacked.stack(["mean"])
    stacked.verdict()
    stacked.export(tmp_path / "out.h5ad", models=["ridge"])
    test = stacked.folder.samples.query("role == 'test'").index
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert np.isnan(out[test].layers["treated"]).all() and not stacked.folder.ledger.of_kind("test_opened")
    stacked.export(tmp_path / "more.h5ad", models=["ridge"], with_truth=True)
    assert np.isfinite(anndata.read_h5ad(tmp_path / "more.h5ad")[test].layers["treated"]).all()
    (opened,) = stacked.folder.ledger.of_kind("test_opened")
    assert opened.facts["early"] and "exploratory" in stacked.describe_plan().casefold()


def test_after_the_last_planned_look_an_export_gives_the_truth_and_says_so(judged, tmp_path):
    judged.export(tmp_path / "out.h5ad", models=["ridge"])
    test = judged.folder.samples.query("role == 'test'").index
    assert np.isfinite(anndata.read_h5ad(tmp_path / "out.h5ad")[test].layers["treated"]).all()
    (opened,) = judged.folder.ledger.of_kind("test_opened")
    assert not opened.facts["early"] and opened.facts["reason"] == "export"


def test_rows_without_ids_are_recognised_without_opening_the_truth(fitted, tmp_path):
    store, block = fitted.folder.store, next(b for b in fitted.folder.store.blocks() if b.role == "test")
    treated = PredictionStore.open(fitted.folder.path("test_truth")).read(block, "treated")
    control = store.read(block, "control")
    np.savez(tmp_path / "merge.npz", predictions=control, treated_test=treated, diseased_test=control)
    shutil.move(fitted.folder.path("test_truth"), tmp_path / "elsewhere")
    fitted.add("theirs", tmp_path / "merge.npz", fitted_on="unknown", scale="treated")
    np.testing.assert_array_equal(store.read(block, "theirs"), control)
    assert not fitted.folder.ledger.of_kind("test_opened")


def test_rows_are_not_recognised_by_the_fingerprints_of_another_study(fitted, tmp_path):
    """Copied in from another plan of the same data they take each row for another sample."""
    block = next(b for b in fitted.folder.store.blocks() if b.role == "test")
    control = fitted.folder.store.read(block, "control")
    np.savez(tmp_path / "merge.npz", predictions=control, treated_test=control + 1, diseased_test=control)
    path = fitted.folder.path("plan", "row_marks.npz")
    marks = dict(np.load(path, allow_pickle=False))
    np.savez(path, **{name: values[::-1] for name, values in marks.items()})
    with pytest.raises(CorruptionError, match=r"row_marks.npz is not what the init step wrote"):
        fitted.add("theirs", tmp_path / "merge.npz", fitted_on="unknown", scale="treated")
    assert "theirs" not in fitted.folder.store.models()


def test_truth_exported_while_a_look_is_interrupted_marks_its_results(stacked, tmp_path, monkeypatch):
    """The ledger said so and the board did not, so that no bundle could ever be made of it."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pertstack.study.steps.verdict._score_test", stop)
        stacked.verdict()
    stacked.export(tmp_path / "out.h5ad", models=["ridge"], with_truth=True)
    board = stacked.verdict()
    assert board.exploratory and board.test_looks == 1 and stacked.folder.ledger.looks() == 1
    assert stacked.bundle(tmp_path / "out.zip").exists()


def test_only_these_modules_name_the_files_of_the_truth():
    """Who may touch ``test_truth``: init lays it out, the door opens it, seals and audit name it to check bytes."""
    door, bytes_only = {"truth/held_out.py", "laid_out.py"}, {"seals.py", "audit/audit.py"}
    allowed = {f"study/{file}" for file in (*door, *bytes_only)} | {"fit/external/model.py"}  # hides it from programs
    root = Path(ps.__file__).parent
    texts = {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*.py")}
    named = {file for file, text in texts.items() if "test_truth" in text or "open_store(" in text}
    assert named - {"study/folder.py"} <= allowed
    assert '"test_truth"' not in (root / "study" / "folder.py").read_text()


def test_the_digest_to_note_elsewhere_is_printed_and_reported_whole(judged, capsys):
    """Twelve characters are enough to look an entry up; against somebody who writes the ledger anew all are needed."""
    from pertstack.cli.terminal import show_board
    from pertstack.study.sealed_results import sealed_verdict

    noted = sealed_verdict(judged.folder)
    show_board(judged)
    assert noted in "".join(capsys.readouterr().out.split())
    assert noted in judged.report().read_text()


def test_a_study_put_back_as_a_whole_is_found_by_a_digest_noted_elsewhere(judged, stacked):
    """Older copies are consistent in themselves; only what was registered outside of them tells."""
    from pertstack.study.sealed_results import sealed_verdict

    noted = sealed_verdict(judged.folder)
    assert noted in {e.digest for e in judged.folder.ledger.entries()}
    for study, codes in ((judged, set()), (stacked, {"ledger_not_as_noted"})):
        found = audit_study(study.folder, deep=False, clean=False, expect_head=noted[:12])
        assert {f.code for f in found if f.severity == "error"} == codes


def test_what_is_no_digest_is_refused_and_checks_nothing(judged, tmp_path):
    """An empty one (`--expect-head $HEAD` with nothing in it) was as good as none; a short one was called damage."""
    bundle = judged.bundle(tmp_path / "verdict.zip")
    for noted in ("", "foo", "12345678901", "no-digest-at-all", "g" * 64):
        with pytest.raises(InputError, match="no digest of a ledger"):
            audit_study(judged.folder, deep=False, clean=False, expect_head=noted)
        with pytest.raises(InputError, match="no digest of a ledger"):
            verify_bundle(bundle, noted)
