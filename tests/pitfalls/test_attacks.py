"""A determined hand with write access: each way that was found to get a better board, and what happens now.

What is not held (a whole study put back or written anew, a program that reads the test) is in ``docs/security.md``.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
import pertstack.study.steps.calibrate
import pertstack.study.steps.verdict
from copies import copied
from faults import run_with_fault
from pertstack._base.digests import OWN, digest_array, with_own_digest
from pertstack._base.errors import CorruptionError, InputError, PlanLockedError, StackingError
from pertstack.predictions.store.store import PredictionStore
from pertstack.study.manifests import SEALED


@pytest.fixture(scope="module")
def stacked_study(fitted_study, tmp_path_factory):
    root = copied(fitted_study.folder.root, tmp_path_factory.mktemp("stacked") / "study")
    study = ps.Study.open(root)
    study.stack(["mean", "simplex"])
    return study


@pytest.fixture
def stacked(stacked_study, tmp_path):
    return ps.Study.open(copied(stacked_study.folder.root, tmp_path / "stacked"))


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
    copied(folder.path("store", *place.relative_to(folder.path("test_truth")).parts[:-1], "ridge"), place)


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


@pytest.mark.parametrize("name", ["mean", "oracle", "ensemble", "half_a", "control", "nested.f0.ridge", "evil\x1b[2J"])
def test_a_model_takes_the_name_of_nothing_else(fitted, tmp_path, name):
    """A card called ``mean`` was fitted, and its row could not be told from the combiner's; ``half_a`` was measured."""
    card = tmp_path / "card.toml"
    card.write_text(f"format = 1\nname = {json.dumps(name)}\n[run]\ncommand = ['true']\n")
    lines, models = fitted.folder.path("ledger.jsonl").read_bytes(), fitted.folder.store.models()
    with pytest.raises(InputError, match=r"called|name"):
        fitted.add(name, tmp_path / "none.npz", fitted_on="plan", scale="treated")
    with pytest.raises(InputError, match=r"called|name"):
        fitted.cross_fit([str(card)], engine="inline")
    assert fitted.folder.path("ledger.jsonl").read_bytes() == lines and fitted.folder.store.models() == models


# -- predictions that the ledger contradicts ---------------------------------------------------------------------------


def codes(study, **how):
    return {f.code for f in ps.Study.open(study.folder.root).audit(**how) if f.severity == "error"}


def layer_folders(folder, model):
    return [p for p in sorted(folder.path("store", "blocks").glob("*/layers/*")) if p.name.split(".")[-1] == model]


def by_hand(study, block, model, values, like="ridge"):
    """Predictions committed past `add` and `fit`, with a record like that of an honest fit."""
    record = study.folder.store.record(block, like)
    study.folder.store.commit(
        block,
        model,
        values,
        sample_ids=study.folder.store.sample_ids(block),
        gene_names=study.folder.gene_names,
        fitted_on=record.fitted_on,
        meta=record.meta,
    )


@pytest.mark.parametrize("also", ["nothing else", "the retraction removed"])
def test_a_withdrawn_model_put_back_by_hand_is_named(judged, tmp_path, also):
    """Its predictions copied away before the withdrawal, and back after it."""
    folder = judged.folder
    kept = {p: copied(p, tmp_path / "kept" / str(i)) for i, p in enumerate(layer_folders(folder, "ridge"))}
    judged.withdraw("ridge", "too good")
    if also != "nothing else":
        judged.stack(["mean"])
    assert codes(judged) == set()
    for place, copy in kept.items():
        copied(copy, place)
    if also != "nothing else":
        shutil.rmtree(folder.path("store", "retracted"))
    (found,) = (f for f in ps.Study.open(folder.root).audit() if f.code == "withdrawn_put_back")
    assert found.severity == "error" and "ridge" in found.message and found.count == 8
    again = ps.Study.open(folder.root)
    again.stack(["mean"])
    assert "ridge" not in again.folder.store.models() and codes(judged) == set()


def test_a_withdrawal_that_was_interrupted_is_no_accusation(fitted, monkeypatch):
    monkeypatch.setattr("pertstack.study.steps.withdraw.finish_withdrawals", lambda folder: None)
    fitted.withdraw("ridge", "stopped half way")
    found = [f for f in ps.Study.open(fitted.folder.root).audit() if "ridge" in f.message]
    assert [(f.code, f.severity) for f in found] == [("withdrawal_unfinished", "warning")]


def test_predictions_that_no_line_of_the_ledger_tells_are_named_and_not_stacked(stacked):
    """Committed through the store itself, as what `add` commits, and as the work of a fit."""
    folder = stacked.folder
    values = {b: folder.store.read(b, "ridge") for b in folder.store.blocks() if b.role != "support"}
    for block, here in values.items():
        record = folder.store.record(block, "ridge")
        folder.store.commit(
            block,
            "gift",
            here,
            sample_ids=folder.store.sample_ids(block),
            gene_names=folder.gene_names,
            fitted_on=record.fitted_on,
            meta={"kind": "added", "files": ["gift.npz"]},
        )
    assert codes(stacked) == {"predictions_untold"}
    with pytest.raises(CorruptionError, match=r"gift.*no line of"):
        ps.Study.open(folder.root).stack(["mean"])
    stacked.withdraw("gift", "nobody added it")
    assert codes(stacked) == set()
    for block, here in values.items():
        by_hand(stacked, block, "work", here)
    assert "job_record_moved" in codes(stacked) or "predictions_untold" in codes(stacked)


def test_added_predictions_that_are_gone_are_named_and_nothing_is_stacked_without_them(fitted, tmp_path):
    """A block lost before the first seal looked like samples that the model never predicted."""
    fitted.export(tmp_path / "theirs.h5ad", models=["ridge"])
    fitted.add("theirs", tmp_path / "theirs.h5ad", fitted_on="plan", scale="treated", layer="ridge")
    place = next(fitted.folder.path("store", "blocks").glob("*/layers/theirs"))
    shutil.move(place, tmp_path / "kept")
    (found,) = [f for f in ps.Study.open(fitted.folder.root).audit() if f.severity == "error"]
    assert (found.code, found.count) == ("predictions_gone", 1) and "theirs" in found.message
    with pytest.raises(CorruptionError, match=r"Nothing was stacked.*theirs"):
        ps.Study.open(fitted.folder.root).stack(["mean"])
    shutil.move(tmp_path / "kept", place)
    assert codes(ps.Study.open(fitted.folder.root)) == set()
    fitted.withdraw("theirs", "not needed")
    assert codes(ps.Study.open(fitted.folder.root)) == set()


def exchange(study, tmp_path):
    """What one model predicts for the test becomes the truth; its records are sound in themselves."""
    truth = PredictionStore.open(study.folder.path("test_truth"))
    for block in truth.blocks():
        record = study.folder.store.record(block, "ridge")
        place = study.folder.path("store", "blocks") / f"{block.id}.zarr" / "layers" / "ridge"
        assert place.is_dir()
        shutil.move(place, tmp_path / block.id)
        study.folder.store.commit(
            block,
            "ridge",
            truth.read(block, "treated"),
            sample_ids=truth.sample_ids(block),
            gene_names=study.folder.gene_names,
            fitted_on=record.fitted_on,
            meta=record.meta,
        )


@pytest.mark.parametrize("also", ["nothing else", "seal removed", "seal of before"])
def test_models_exchanged_between_two_stacks_are_not_sealed_anew(stacked, tmp_path, also):
    """`stack` wrote a seal over whatever records were there: the exchange was then what the ledger said."""
    folder = stacked.folder
    seal = folder.path("seals", "stack.json")
    kept = seal.read_bytes()
    if also == "seal of before":
        stacked.stack(["mean"])
    exchange(stacked, tmp_path)
    if also == "seal removed":
        seal.unlink()
    if also == "seal of before":
        seal.write_bytes(kept)
    lines = folder.path("ledger.jsonl").read_bytes()
    with pytest.raises(CorruptionError, match=r"never overwritten|is gone|put back"):
        ps.Study.open(folder.root).stack(["mean", "simplex"])
    assert folder.path("ledger.jsonl").read_bytes() == lines and codes(stacked)


@pytest.mark.parametrize("each", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_seal_that_was_interrupted_is_finished_by_the_next_command(stacked_study, tmp_path, each):
    """Between the manifest and its line in the ledger, and after it."""
    root = stacked_study.folder.root
    count = copied(root, tmp_path / "count")

    def step(at):
        return lambda: ps.Study.open(at).stack(["mean"])

    n = run_with_fault(step(count), count, at=None)
    for at in range(n - 12, n + 1, each):
        copy = copied(root, tmp_path / f"at{at}")
        run_with_fault(step(copy), copy, at=at)
        again = ps.Study.open(copy)
        again.stack(["mean"])
        assert codes(again) == set(), at
        assert [p.name for p in again.folder.path("seals").glob("*next*")] == [], at


def test_an_interrupted_look_is_not_finished_with_other_predictions_of_the_test(fitted, tmp_path, monkeypatch):
    """The scores were on the disk when it stopped. A model comes back with the same development rows, so the same
    weights, and a better test: that was the same look."""
    folder = fitted.folder
    blocks = [b for b in folder.store.blocks() if folder.store.status(b, "ridge") == "committed"]
    values = {b: np.array(folder.store.read(b, "ridge")) for b in blocks}

    def add_theirs():
        names = pd.Index([s for b in blocks for s in folder.store.sample_ids(b)], name="sample_id")
        table = pd.DataFrame(np.concatenate(list(values.values())), index=names, columns=list(folder.gene_names))
        table.to_csv(tmp_path / "theirs.csv")
        fitted.add("theirs", tmp_path / "theirs.csv", fitted_on="plan", scale="treated")

    add_theirs()
    fitted.stack(["mean"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pertstack.study.study.seal_verdict", interrupted)
        fitted.verdict()
    truth = PredictionStore.open(folder.path("test_truth"))
    for block in truth.blocks():
        values[block] = (values[block] + truth.read(block, "treated")) / 2
    fitted.withdraw("theirs", "a better version of it")
    add_theirs()
    study = ps.Study.open(folder.root)
    key = json.loads((folder.results / "weights.json").read_text())["key"]
    study.stack(["mean"])
    assert json.loads((folder.results / "weights.json").read_text())["key"] == key
    with pytest.raises(PlanLockedError, match="opened 1 time"):
        study.verdict()


def interrupted(*_):
    raise KeyboardInterrupt


def test_weights_of_sums_that_were_edited_with_their_digests_are_found(fitted):
    """The cache of sums is not sealed; weights learned again from the same cache agree with it."""
    fitted.reduce()
    for part in sorted(fitted.folder.path("reduced").glob("*/part.json")):
        facts = json.loads(part.read_text())
        scatter = np.load(part.parent / "gene_scatter.npy")
        scatter[:, 0, 1] = scatter[:, 1, 0] = scatter[:, 1, 1] = scatter[:, 0, 0]  # the first model is the truth
        np.save(part.parent / "gene_scatter.npy", scatter)
        facts["arrays"]["gene_scatter"] = digest_array(scatter)
        facts.pop(OWN)
        part.write_text(json.dumps(with_own_digest(facts)))
    fitted.stack(["simplex"])
    assert "weights_not_learned" in codes(fitted, deep=True)


def test_a_clock_that_was_set_back_is_named(judged):
    """Lines of the ledger are dated by the machine."""
    folder = judged.folder
    folder.ledger.append("model_withdrawn", time=datetime(2020, 1, 1, tzinfo=UTC), model="x", reason="y", blocks=0)
    (found,) = (f for f in ps.Study.open(folder.root).audit() if f.code == "ledger_times")
    assert found.severity == "warning" and "2020-01-01" in found.message
