"""Guards of the door one by one, on a study that is a ledger and a plan and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pertstack._base.errors import CorruptionError, InputError
from pertstack._base.files import write_json
from pertstack.design.analysis_plan import AnalysisPlan, is_exploratory, lock
from pertstack.design.ledger import LOOK
from pertstack.study.folder import StudyFolder
from pertstack.study.manifests import SEALED, write_seal
from pertstack.study.seals import broken_seals
from pertstack.study.steps.bundle import bundle_study
from pertstack.study.truth.held_out import HeldOutTruth
from pertstack.study.truth.looks import PUBLISHED, publish_look


@pytest.fixture
def bare(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    folder.root.mkdir()
    folder.__dict__["choices"] = {}
    folder.__dict__["plan"] = SimpleNamespace(n_folds=2)
    folder.ledger.begin("study_made")
    return folder


def plan_for(folder, **entries):
    AnalysisPlan(primary="r2_top20@pooled", **entries).save(folder.analysis_plan_file)


def look(folder, number, *, finished=True):
    folder.ledger.append(LOOK, number=number, planned=2, exploratory=False, intent=str(number))
    if finished:
        folder.ledger.append(SEALED, step="verdict", manifest="", files={}, n_files=0)


def test_nothing_is_left_to_protect_only_after_the_last_planned_look_in_full(bare):
    plan_for(bare, looks=2)
    lock(bare.analysis_plan, bare.ledger)
    spent = []
    for number, finished in ((1, True), (2, False), (2, True)):
        look(bare, number, finished=finished)
        spent.append(HeldOutTruth(bare).is_spent)
    assert spent == [False, False, True]


def test_a_plan_edited_after_its_lock_gives_no_truth_away(bare):
    plan_for(bare, looks=3)
    lock(bare.analysis_plan, bare.ledger)
    look(bare, 1)
    plan_for(bare, looks=1)
    assert not HeldOutTruth(bare).is_spent


@pytest.mark.parametrize("rule", ["ladder", "thresholdout"])
def test_a_rule_of_looks_protects_the_truth_for_good(bare, rule):
    """All planned looks are made, and each gave one number away: the rows are still unknown."""
    plan_for(bare, looks=1, looks_rule=rule)
    lock(bare.analysis_plan, bare.ledger)
    look(bare, 1)
    assert not HeldOutTruth(bare).is_spent


def test_truth_exported_before_the_last_look_marks_and_after_it_does_not(bare, monkeypatch):
    plan_for(bare, looks=1)
    monkeypatch.setattr(HeldOutTruth, "_store", lambda self: None)
    monkeypatch.setattr(HeldOutTruth, "_require_whole", lambda self: None)
    HeldOutTruth(bare).open("row_marks")
    assert not is_exploratory(bare.ledger)
    look(bare, 1)
    HeldOutTruth(bare).open("export")
    assert not is_exploratory(bare.ledger)
    look(bare, 2, finished=False)
    HeldOutTruth(bare).open("export")
    assert is_exploratory(bare.ledger)


def test_the_rule_of_looks_answers_once_a_look(bare):
    """A look that was interrupted after its answer is finished with that answer, and no new noise is drawn."""
    plan_for(bare, looks=2, looks_rule="thresholdout")
    look(bare, 1, finished=False)
    (entry,) = bare.ledger.of_kind(LOOK)
    with pytest.raises(AttributeError):  # it would ask the scores
        publish_look(bare, entry, "mean", single="ridge", oof=None, test=None)
    bare.ledger.append(PUBLISHED, rule="thresholdout")
    publish_look(bare, entry, "mean", single="ridge", oof=None, test=None)
    assert len(bare.ledger.of_kind(PUBLISHED)) == 1


def test_a_look_that_was_interrupted_is_not_bundled(bare, tmp_path):
    write_json(bare.results / "verdict.json", {})
    look(bare, 1, finished=False)
    with pytest.raises(InputError, match="no finished verdict to bundle"):
        bundle_study(bare, tmp_path / "out.zip")


def sealed_record(folder, model="ridge"):
    record = folder.path("store", "blocks", "b.zarr", "layers", model, "zarr.json")
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    write_seal(folder, "stack", [record])
    return record


def codes(folder):
    return [f.code for f in broken_seals(folder, ("stack",))]


def test_a_seal_or_the_end_of_the_ledger_that_was_removed_is_told(bare):
    sealed_record(bare)
    assert codes(bare) == []
    bare.path("seals", "stack.json").unlink()
    assert codes(bare) == ["seal_removed"]
    bare.path("seals", "head.json").unlink()
    assert codes(bare) == ["seal_removed", "seal_removed"]
    with pytest.raises(CorruptionError, match=r"head.json is gone"), bare.writing():
        pass


@pytest.mark.parametrize(("withdrawn", "when"), [("ridge", "before"), ("mlp", "after"), ("ridge", "after")])
def test_only_a_withdrawal_after_the_seal_of_that_model_excuses_a_record_that_is_gone(bare, withdrawn, when):
    if when == "before":
        bare.ledger.append("model_withdrawn", model=withdrawn, reason="", blocks=1)
    record = sealed_record(bare)
    record.unlink()
    if when == "after":
        bare.ledger.append("model_withdrawn", model=withdrawn, reason="", blocks=1)
    assert codes(bare) == ([] if (withdrawn, when) == ("ridge", "after") else ["file_removed"])


def test_a_withdrawal_needs_a_reason(fitted):
    lines = fitted.folder.path("ledger.jsonl").read_bytes()
    with pytest.raises(InputError, match="Give a reason"):
        fitted.withdraw("ridge", " \n")
    assert fitted.folder.path("ledger.jsonl").read_bytes() == lines
