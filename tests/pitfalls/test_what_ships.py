"""What ships is what was judged: a later stack makes the verdict stale, and nothing unjudged goes out in silence."""

from __future__ import annotations

import json
import shutil

import anndata
import numpy as np
import pytest

import pertstack as ps
from pertstack._base.errors import CorruptionError, InputError, IntegrityError, UnknownNameError
from pertstack.design.ledger import LOOK
from pertstack.study.audit.audit import audit_study
from pertstack.study.development.learned import stored_stack
from pertstack.study.new_rows.new_samples import open_new
from pertstack.study.seals import seal_stack, seal_verdict
from pertstack.study.shipped import shipped
from pertstack.study.steps.predict import predict_new


def new_samples(study, world_file, path):
    """Five test samples as they would be given: control and metadata, no treated values."""
    data = anndata.read_h5ad(world_file)[study.plan.sample_ids("test")[:5]].copy()
    data.X = None
    data.write_h5ad(path)
    return path


def test_a_stack_after_the_verdict_makes_it_stale_and_predict_refuses(judged, world_file, tmp_path):
    new = new_samples(judged, world_file, tmp_path / "new.h5ad")
    assert judged.predict(new, tmp_path / "a.h5ad") == (5, 40)
    assert judged.status().stale == {}
    assert judged.cross_fit(["mean_treated_cell_line"], engine="inline")[0].ok
    judged.stack(["mean", "simplex"])
    status = judged.status()
    assert "judged another stack" in status.stale["verdict"] and status.next_step.startswith("pertstack verdict")
    assert status.to_json()["stale"] and "(stale)" in _printed(status)
    with pytest.raises(IntegrityError, match="was never judged") as told:
        judged.predict(new, tmp_path / "b.h5ad")
    assert told.value.exit_code == 3 and not (tmp_path / "b.h5ad").exists()


def _printed(status) -> str:
    import io

    from rich.console import Console

    screen = io.StringIO()
    Console(file=screen, width=100).print(status.to_rich())
    return screen.getvalue()


def test_what_is_stacked_as_it_was_judged_is_no_new_look(judged, monkeypatch):
    """A stack that only finishes one that was interrupted said that the verdict would be a new look."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pertstack.study.study.seal_stack", _stopped)
        judged.stack(["mean", "simplex"])
    study = ps.Study.open(judged.folder.root)
    assert study.stack(["mean", "simplex"]).headline.endswith("Next: the verdict (no new look at the test).")
    assert study.verdict().test_looks == 1 and study.folder.ledger.looks() == 1
    assert study.stack(["mean"]).headline.endswith("Next: the verdict (a new look at the test).")


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_report_older_than_the_verdict_is_stale(judged):
    judged.report()
    assert judged.status().stale == {}
    judged.stack(["mean", "simplex", "global_ridge"])
    assert set(judged.status().stale) == {"verdict", "report"}


def test_an_interrupted_fit_is_gone_on_with_before_anything_is_stacked(fitted):
    """Two of seven jobs done is no fitted model: the next step is the rest of the fit."""
    planned = fitted.folder.path("jobs", "planned.json")
    assert fitted.status().next_step.startswith("pertstack stack")
    gone = sorted(fitted.folder.path("jobs", "ridge").iterdir())[2:]
    for job in gone:
        shutil.rmtree(job)
    status = fitted.status()
    assert not status.steps["fit"] and status.next_step.startswith("pertstack fit") and "ridge" in status.next_step
    assert f"{len(gone)} of {len(json.loads(planned.read_text())['jobs'])} jobs" in status.next_step


def test_a_list_of_planned_jobs_that_was_changed_is_found(fitted):
    """Its scope names the command that `status` recommends; any edit of it shows, in `status` and in the audit."""
    path = fitted.folder.path("jobs", "planned.json")
    value = json.loads(path.read_text())
    without = {key: kept for key, kept in value.items() if key != "sha256"}
    for edited in (
        {**value, "scope": "soon"},
        {**value, "jobs": {}},
        without,
        {**without, "format": 1, "jobs": [1]},
        [],
    ):
        path.write_text(json.dumps(edited))
        with pytest.raises(CorruptionError, match="pertstack fit"):
            fitted.status()
        assert "planned_jobs_changed" in {f.code for f in audit_study(fitted.folder, deep=False, clean=False)}
    path.write_text(json.dumps({**without, "format": 1}))  # as older studies have it
    assert fitted.status().steps["fit"]
    assert "planned_jobs_changed" not in {f.code for f in audit_study(fitted.folder, deep=False, clean=False)}


def test_new_samples_may_come_under_other_names(judged, world_file, tmp_path):
    """What a message recommends, predict takes: --map, --control-layer and their like."""
    path = new_samples(judged, world_file, tmp_path / "new.h5ad")
    data = anndata.read_h5ad(path)
    data.obs = data.obs.rename(columns={"perturbation": "treatment_x", "cell_line": "where_from"})
    data.layers["dmso"] = data.layers.pop("control")
    data.write_h5ad(tmp_path / "other.h5ad")
    mapping = {"perturbation": "treatment_x", "cell_line": "where_from"}
    file = open_new(judged.folder, tmp_path / "other.h5ad", {"mapping": mapping, "control_layer": "dmso"})
    assert list(file.obs["cell_line"]) == list(open_new(judged.folder, path).obs["cell_line"])


def test_run_never_undoes_a_judged_study(judged):
    before = (judged.folder.results / "leaderboard.json").read_bytes()
    models = list(judged.predictions.models())
    assert judged.run() == [] and list(judged.predictions.models()) == models
    assert (judged.folder.results / "leaderboard.json").read_bytes() == before and judged.status().stale == {}
    with pytest.raises(IntegrityError, match="another stack would ship"):
        judged.run(["mean_treated_cell_line"])
    assert list(judged.predictions.models()) == models and judged.folder.ledger.looks() == 1


def test_a_study_without_a_test_has_no_verdict_and_no_look(world_file, tmp_path):
    study = ps.Study.create(tmp_path / "study", data=world_file, seed=1, test=0)
    study.cross_fit(["mean_treated", "ridge"], engine="inline")
    study.stack(["mean", "simplex"])
    with pytest.raises(InputError, match="holds out no test"):
        study.verdict()
    assert study.folder.ledger.looks() == 0


def test_an_accusation_of_the_probes_is_in_the_headline(fitted):
    fitted.stack(["mean", "simplex"])
    path = fitted.folder.results / "probes.json"
    value = json.loads(path.read_text())
    told = {
        "severity": "error",
        "code": "too_good",
        "message": "ridge is too good: z = 104.",
        "count": 1,
        "examples": [],
        "where": "ridge",
        "numbers": {},
    }
    path.write_text(json.dumps({**value, "findings": [*value["findings"], told]}))
    seal_stack(fitted.folder)  # as if the stack step had written it
    board = fitted.verdict()
    assert board.decision.light == "red" and board.headline.startswith("Do not trust this study: ridge")
    assert "z = 104" in board.headline and any("simulated" in note for note in board.decision.notes)


# -- the headline and `predict` name the same --------------------------------------------------------------------------


def predicted(study, new, path, **options):
    study.predict(new, path, **options)
    found = anndata.read_h5ad(path)
    return np.asarray(found.X), found.uns["pertstack"]


def of_stored(study, name, ids):
    """What the study itself predicted for test rows: by a base model, or the plain mean of all."""
    store, rows = study.predictions, {}
    for block in store.blocks("test"):
        models = [name] if name in store.models() else [m for m in store.models() if not m.startswith("nested.")]
        values = np.mean([store.read(block, m) for m in models], axis=0)
        rows |= dict(zip(map(str, store.sample_ids(block)), values, strict=True))
    return np.array([rows[i] for i in ids])


def looked_again(study):
    """The results as they lie there are those of another look: without one a second seal counts for nothing."""
    study.folder.ledger.append(LOOK, **study.folder.ledger.of_kind(LOOK)[-1].facts)
    seal_verdict(study.folder)


def decide_so(study, **decision):
    """The same study with another outcome of the test: the board as the verdict would have written and sealed it."""
    path = study.folder.results / "leaderboard.json"
    value = json.loads(path.read_text())
    value["decision"] |= decision
    path.write_text(json.dumps(value))
    looked_again(study)
    return value["decision"]


def test_predict_and_export_use_what_the_headline_names(judged, world_file, tmp_path):
    """One study, both outcomes of its test: where no gain is shown the single model goes out, not the combination."""
    new = new_samples(judged, world_file, tmp_path / "new.h5ad")
    ids = judged.plan.sample_ids("test")[:5]
    board = judged.leaderboard()
    single = json.loads((judged.folder.results / "oof.json").read_text())["choice"]["best_single"]
    assert board.ships == (board.chosen if board.decision.action == "ship" else single)
    for action, ships in (("ship", "mean"), ("alone", single)):
        decide_so(judged, action=action, ships=ships)
        judged.export(tmp_path / f"all_{action}.h5ad")
        out = anndata.read_h5ad(tmp_path / f"all_{action}.h5ad")
        np.testing.assert_allclose(out[ids].layers["ensemble"], of_stored(judged, ships, ids), atol=2e-4)
    values, said = predicted(judged, new, tmp_path / "alone.h5ad")
    assert said["ensemble"] == single and said["shipped"]
    np.testing.assert_allclose(values, of_stored(judged, single, ids), atol=2e-4)
    with pytest.raises(UnknownNameError, match="Did you mean"):
        judged.predict(new, tmp_path / "no.h5ad", use="rigde")


def test_nothing_goes_out_of_a_study_that_is_not_to_be_trusted(judged, world_file, tmp_path):
    new = new_samples(judged, world_file, tmp_path / "new.h5ad")
    decide_so(judged, light="red", action="distrust", ships=None)
    with pytest.raises(IntegrityError, match=r"Nothing ships from .* --use "):
        judged.predict(new, tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()
    judged.export(tmp_path / "all.h5ad")
    assert "ensemble" not in anndata.read_h5ad(tmp_path / "all.h5ad").layers


def test_a_board_written_before_it_named_what_ships_is_read_again_from_its_scores(judged):
    path, ships = judged.folder.results / "leaderboard.json", judged.leaderboard().ships
    value = json.loads(path.read_text())
    del value["decision"]
    path.write_text(json.dumps(value))
    looked_again(judged)
    assert shipped(judged.folder, stored_stack(judged.folder)) == ships


def test_new_samples_under_other_names_are_predicted_too_and_by_what_the_user_names(judged, world_file, tmp_path):
    """Also in the fits: the file is opened there once more."""
    path = new_samples(judged, world_file, tmp_path / "new.h5ad")
    data = anndata.read_h5ad(path)
    data.obs = data.obs.rename(columns={"perturbation": "treatment_x", "cell_line": "where_from"})
    data.write_h5ad(path)
    reading = {"mapping": {"perturbation": "treatment_x", "cell_line": "where_from"}}
    predict_new(judged.folder, path, tmp_path / "out.h5ad", predictions=(), workers=1, reading=reading, use="ridge")
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert found.uns["pertstack"]["ensemble"] == "ridge" and not found.uns["pertstack"]["shipped"]
    np.testing.assert_allclose(found.X, of_stored(judged, "ridge", list(found.obs.index)), atol=2e-4)
