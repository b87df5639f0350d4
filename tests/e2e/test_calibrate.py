"""The gate: metrics are calibrated on development rows, and a plan that says auto is settled by it, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pertstack as ps
from pertstack._base.errors import UnknownNameError
from pertstack.cli.entry import app
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.design.analysis_plan import locked_plan
from pertstack.reduce.scoring.calibration import AUTO_ORDER


def make(folder: Path, **changes) -> ps.Study:
    choices = {"samples": 160, "genes": 40, "cell_lines": 1, "perturbations": 40, "replicates": 2, "seed": 2, **changes}
    simulate_to_file(folder / "world.h5ad", SimulationConfig(**choices))
    return ps.Study.create(folder / "study", data=folder / "world.h5ad")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    study = make(tmp_path_factory.mktemp("gate"))
    assert study.folder.analysis_plan.primary == "auto" and not study.folder.analysis_plan.settled
    return study, study.calibrate()


def test_the_plan_is_settled_with_its_numbers_and_locked_so(calibrated):
    study, found = calibrated
    plan = study.folder.analysis_plan
    passed = [m for m in AUTO_ORDER if found.metrics[m].passes]
    assert plan.settled == plan.choice_metric == found.primary == passed[0]
    assert f"BDS {found.metrics[passed[0]].bds:.2f}" in plan.settled_by and found.doubt == ""
    study.lock_plan()
    assert locked_plan(study.folder.ledger) == plan
    again = study.calibrate()
    assert again == found and study.folder.analysis_plan == plan


def test_the_command_prints_every_metric_and_says_which_decides(calibrated):
    study, found = calibrated
    shown = CliRunner().invoke(app, ["calibrate", str(study.folder.root)])
    assert shown.exit_code == 0 and f"★ decides: {found.primary}" in shown.output
    assert all(metric in shown.output for metric in found.metrics)
    value = json.loads(CliRunner().invoke(app, ["calibrate", str(study.folder.root), "--json"]).output)
    assert value["format"] == 1 and value["primary"] == found.primary


def test_the_test_truth_is_not_read(calibrated, tmp_path):
    """With the truth of the test gone, the numbers are the same."""
    study, found = calibrated
    truth = study.folder.path("test_truth")
    truth.rename(tmp_path / "gone")
    (study.folder.results / "calibration.json").unlink()
    try:
        assert ps.Study.open(study.folder.root).calibrate() == found
    finally:
        (tmp_path / "gone").rename(truth)


def test_without_replicates_it_says_not_calibrated(tmp_path):
    study = make(tmp_path, replicates=1, samples=60, perturbations=50)
    found = study.calibrate()
    if found.known:
        pytest.skip("the simulation measured some condition twice")
    assert "not calibrated" in found.doubt and "not calibrated" in study.folder.analysis_plan.settled_by
    assert found.primary == AUTO_ORDER[0] and found.ranges["rmse_all@own"] > 0


def test_a_plan_that_names_an_unknown_metric_is_refused(tmp_path):
    study = make(tmp_path)
    with pytest.raises(UnknownNameError, match="r2_top20"):
        study.change_plan({"primary": "r2_topp20"})
    path = study.folder.analysis_plan_file
    path.write_text(path.read_text().replace('primary = "auto"', 'primary = "pearson_exp9"'))
    with pytest.raises(UnknownNameError, match="pearson_exp9"):
        study.calibrate()
    failed = CliRunner().invoke(app, ["calibrate", str(study.folder.root)])
    assert failed.exit_code != 0


def test_a_named_primary_that_fails_is_kept_and_doubted(tmp_path):
    study = make(tmp_path)
    study.change_plan({"primary": "rmse_all@pooled"})
    found = study.calibrate()
    assert found.primary == "rmse_all@pooled" == study.folder.analysis_plan.primary
    assert not found.metrics["rmse_all@pooled"].passes, "one noisy replicate errs more than the mean of the others"
    assert "cannot tell a replicate from a constant" in found.doubt


def test_a_large_study_is_calibrated_on_whole_groups_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = make(tmp_path, samples=240)
    whole = study.calibrate()
    monkeypatch.setattr("pertstack.study.steps.calibrate.MOST_ROWS", 100)
    some = study.calibrate()
    assert some.key != whole.key and study.calibrate() == some
    for name, found in some.metrics.items():
        assert found.n_groups < whole.metrics[name].n_groups
    both = [m.metrics["r2_top20@pooled"].positive for m in (some, whole)]
    assert both[0] == pytest.approx(both[1], abs=0.15)


def test_a_metric_on_which_a_constant_beats_a_replicate_has_no_vote_in_stack_and_verdict(tmp_path):
    """Weak effects under a common response: correlations with a shared control reward the constant, as on HT115."""
    wells = {"well_sd": 0.8, "common_sd": 0.6}
    study = make(tmp_path, **wells)
    study.cross_fit(["mean_treated", "ridge_treated"])
    study.stack(["mean", "global_ridge"])
    study.verdict()
    calibration = json.loads((study.folder.results / "calibration.json").read_text())
    assert calibration["primary"] == "pearson_all@centroid"
    fail = {
        c["metric"]
        for c in calibration["metrics"]
        if c["bds_ci"] and c["bds_ci"][1] < 0.5 and c["drf"] < 0 and not c["metric"].startswith(("rmse_all", "mae_all"))
    }
    choice = json.loads((study.folder.results / "oof.json").read_text())["choice"]
    assert set(choice["no_vote"]) == fail and "r2_top20@own" in fail
    assert any("has no vote" in r and "R² Top-20" in r for r in choice["reasons"])
    assert not any("r2_top20" in why for why in choice["marked"].values())
    setting = json.loads((study.folder.results / "setting.json").read_text())
    assert set(setting["no_vote"]) == fail
    parts = {
        p["metric"]: p
        for d in json.loads((study.folder.results / "verdict.json").read_text())["decompositions"].values()
        for p in d["parts"]
    }
    assert not parts["pearson_all@own"]["votes"] and parts["rmse_all@own"]["votes"]
