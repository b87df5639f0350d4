"""A determined hand with write access: each way that was found to get a better board, and what happens now.

What is not held (a whole study put back or written anew, a program that reads the test) is in ``docs/security.md``.
"""

from __future__ import annotations

import json
import shutil

import pytest

import pertstack as ps
import pertstack.study.steps.calibrate
import pertstack.study.steps.verdict
from pertstack._base.errors import CorruptionError, InputError, StackingError
from pertstack.study.seals import SEALED


@pytest.fixture(scope="module")
def stacked_study(fitted_study, tmp_path_factory):
    root = shutil.copytree(fitted_study.folder.root, tmp_path_factory.mktemp("stacked") / "study")
    study = ps.Study.open(root)
    study.stack(["mean", "simplex"])
    return study


@pytest.fixture
def stacked(stacked_study, tmp_path):
    return ps.Study.open(shutil.copytree(stacked_study.folder.root, tmp_path / "stacked"))


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def choose_by_hand(folder):
    """The ladder chose one; the hand would like the other to stand on the board as chosen."""
    path = folder.results / "weights.json"
    value = json.loads(path.read_text())
    edit_json(path, chosen=next(n for n in value["combiners"] if n != value["chosen"]))


def silence_a_probe(folder):
    edit_json(folder.results / "probes.json", findings=[{"anything": "else"}])


def another_single(folder):
    """The model to fall back on, and with it what ships alone."""
    path = folder.results / "oof.json"
    value = json.loads(path.read_text())
    value["choice"]["best_single"] = "mean_treated"
    path.write_text(json.dumps(value))


def easier_truth(folder):
    """The test's treated values become what a model predicts, chunk, checksum, record and all."""
    place = sorted(folder.path("test_truth").glob("blocks/*/layers/treated"))[0]
    shutil.rmtree(place)
    shutil.copytree(folder.path("store", *place.relative_to(folder.path("test_truth")).parts[:-1], "ridge"), place)


def other_groups(folder):
    """Whom the intervals resample."""
    path = folder.path("plan", "plan.json")
    path.write_text(path.read_text().replace('"perturbation"', '"sample"', 1))


@pytest.mark.parametrize("attack", [choose_by_hand, silence_a_probe, another_single, easier_truth, other_groups])
def test_no_look_is_made_at_a_study_that_somebody_edited(stacked, attack):
    attack(stacked.folder)
    with pytest.raises(StackingError) as told:
        ps.Study.open(stacked.folder.root).verdict()
    assert told.value.exit_code == 3
    assert stacked.folder.ledger.looks() == 0 and not (stacked.folder.results / "leaderboard.json").exists()


def test_a_stack_that_was_never_sealed_is_stacked_again_first(fitted, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pertstack.study.study.seal_stack", lambda folder: None)
        fitted.stack(["mean"])
    with pytest.raises(InputError, match="interrupted before its results were sealed"):
        fitted.verdict()
    assert fitted.folder.ledger.looks() == 0
    fitted.stack(["mean"])
    assert [e.facts["step"] for e in fitted.folder.ledger.of_kind(SEALED)][-1] == "stack"
    assert fitted.verdict().test_looks == 1


def test_a_plan_edited_while_the_test_is_scored_decides_nothing(stacked, monkeypatch):
    """The look is in the ledger with one plan; the board must not be read by another."""
    original = pertstack.study.steps.verdict._score_test
    path = stacked.folder.analysis_plan_file
    locked = stacked.folder.analysis_plan

    def slow(*args, **kwargs):
        found = original(*args, **kwargs)
        path.write_text(path.read_text().replace(f'primary = "{locked.primary}"', 'primary = "rmse_all"'))
        return found

    monkeypatch.setattr("pertstack.study.steps.verdict._score_test", slow)
    board = stacked.verdict()
    assert "rmse" in path.read_text() and board.primary == locked.choice_metric
    assert any(f.code == "locked_plan_edited" for f in stacked.audit())


@pytest.mark.parametrize("lines", [0, 1])
def test_a_ledger_cut_to_its_beginning_with_all_seals_removed_is_not_a_new_study(judged, lines):
    """As if the study had only just been made: nothing left that remembers the end."""
    folder = judged.folder
    path = folder.path("ledger.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    shutil.rmtree(folder.path("seals"))
    shutil.rmtree(folder.results)
    study = ps.Study.open(folder.root)
    for step in (lambda: study.stack(["mean"]), study.verdict, study.lock_plan):
        with pytest.raises(CorruptionError, match="gone or damaged"):
            step()
    assert {f.code for f in study.audit() if f.severity == "error"}


def test_the_same_study_under_another_name_is_the_same_study(stacked, tmp_path):
    """Two doors into one folder: one ledger, one lock, one look."""
    link = tmp_path / "link"
    link.symlink_to(stacked.folder.root, target_is_directory=True)
    stacked.verdict()
    again = ps.Study.open(link)
    assert again.verdict().test_looks == 1 and again.folder.ledger.looks() == 1
    with again.folder.writing(), stacked.folder.writing():
        pass


def test_a_ledger_that_is_a_link_to_another_studys_is_refused(judged, stacked):
    path = judged.folder.path("ledger.jsonl")
    path.unlink()
    path.symlink_to(stacked.folder.path("ledger.jsonl"))
    with pytest.raises(CorruptionError, match="with which it ended before"):
        judged.stack(["mean"])


def test_a_study_stacked_by_an_older_rule_keeps_the_calibration_it_was_stacked_with(stacked, monkeypatch):
    """A newer version that calibrates otherwise rewrote a file under the seal, and the verdict was refused for ever."""
    monkeypatch.setattr(pertstack.study.steps.calibrate, "_RULE", "another")
    path = stacked.folder.results / "calibration.json"
    before = path.read_bytes()
    found = stacked.calibrate()
    stacked.lock_plan()
    assert path.read_bytes() == before and found == stacked.calibrate()
    assert [f for f in stacked.audit(deep=True) if f.severity == "error"] == []
    stacked.verdict()
    again = ps.Study.open(stacked.folder.root)
    assert path.read_bytes() == before and again.folder.ledger.looks() == 1


def test_an_edited_calibration_is_refused_and_not_mended_in_silence(stacked):
    path = stacked.folder.results / "calibration.json"
    edit_json(path, primary="mse_all")
    with pytest.raises(CorruptionError, match=r"calibration.json is not what the stack step wrote"):
        stacked.calibrate()
    stacked.stack(["mean", "simplex"])
    assert stacked.calibrate().primary != "mse_all"


@pytest.mark.parametrize("also", ["nothing else", "seals"])
def test_no_board_is_shown_beside_a_ledger_that_is_gone(judged, also):
    """Without a line about seals every file counted as one from before there were seals."""
    (judged.folder.root / "ledger.jsonl").unlink()
    if also == "seals":
        shutil.rmtree(judged.folder.path("seals"))
    with pytest.raises(CorruptionError, match=r"ledger.jsonl"):
        ps.Study.open(judged.folder.root).leaderboard()
    assert [f for f in judged.audit() if f.severity == "error"]
