"""From a data file to a leaderboard through the installed command."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.stats import pearsonr

from copies import copied

from .conftest import make_study, ok, pertstack


def board(study: Path) -> dict:
    return json.loads((study / "results" / "leaderboard.json").read_text())


def test_files_of_the_contract_are_there(study: Path):
    for name in (
        "study.toml",
        "plan/folds.parquet",
        "plan/plan.json",
        "plan.toml",
        "ledger.jsonl",
        "results/leaderboard.json",
        "results/leaderboard.csv",
        "results/weights.json",
        "results/weights.npz",
        "results/diversity.json",
        "results/checks.json",
        "report.html",
    ):
        assert (study / name).is_file(), name
    found = board(study)
    assert {"primary_metric", "reference", "chosen", "best_single", "test_looks", "plan_digest", "versions"} <= set(
        found
    )
    assert found["test_looks"] == 1
    kinds = {row["kind"] for row in found["rows"]}
    assert {"base", "combiner", "reference", "ceiling"} <= kinds


def test_one_and_two_workers_give_the_same_bytes(study: Path, world: Path, tmp_path: Path, undrawn: None):
    other = make_study(tmp_path / "study", world, workers=2)
    assert (other / "results" / "leaderboard.json").read_bytes() == (
        study / "results" / "leaderboard.json"
    ).read_bytes()


def test_a_second_run_is_a_look_up(study: Path, tmp_path: Path, undrawn: None):
    copy = copied(study, tmp_path / "copy")
    before = (copy / "results" / "leaderboard.json").read_bytes()
    again = ok("fit", copy, "--models", "ridge,low_rank")
    assert again.startswith("0 jobs done, 14 already there, 0 failed")
    ok("run", copy, "--models", "ridge,low_rank")
    assert (copy / "results" / "leaderboard.json").read_bytes() == before


def test_the_headline_number_is_the_scipy_loop_on_exported_rows(study: Path, world: Path, tmp_path: Path):
    """R2 Top-20 of one base model on the held-out test, recomputed from the data file and the exported predictions."""
    out = tmp_path / "predictions.h5ad"
    ok("export", study, out)
    predictions, truth = anndata.read_h5ad(out), anndata.read_h5ad(world)
    plan = pd.read_parquet(study / "plan" / "folds.parquet")
    ids = plan.loc[plan["role"] == "test", "sample_id"].tolist()
    predicted = np.asarray(predictions[ids].layers["ridge"])
    treated, control = np.asarray(truth[ids].X), np.asarray(truth[ids].layers["control"])
    scores = []
    for p, x, c in zip(predicted.astype(float), treated.astype(float), control.astype(float), strict=True):
        top = np.argsort(-np.abs(x - c), kind="stable")[:20]
        scores.append(pearsonr((x - c)[top], (p - c)[top])[0] ** 2)
    row = next(r for r in board(study)["rows"] if r["name"] == "ridge" and r["split"] == "test")
    ours = next(cell for name, cell in row["scores"].items() if name in {"r2_top20", "r2_top20@own"})
    assert abs(ours["value"] - np.mean(scores)) < 1e-6
    assert ours["n_valid"] == ours["n"] == len(ids)


def test_status_and_audit_speak_json(study: Path):
    status = json.loads(ok("status", study, "--json"))
    assert status["models"]["ridge"]["committed"] == status["n_blocks"]
    audit = json.loads(ok("audit", study, "--deep", "--json"))
    assert audit["worst"] in {None, "note", "warning"}


def test_predict_gives_the_shipped_ensemble_for_new_samples(study: Path, world: Path, tmp_path: Path):
    """On the test rows themselves the answer is what the verdict scored."""
    plan = pd.read_parquet(study / "plan" / "folds.parquet")
    ids = plan.loc[plan["role"] == "test", "sample_id"].tolist()[:30]
    new = anndata.read_h5ad(world)[ids].copy()
    new.X = None
    new.write_h5ad(tmp_path / "new.h5ad")
    ok("predict", study, tmp_path / "new.h5ad", tmp_path / "out.h5ad")
    ok("export", study, tmp_path / "all.h5ad")
    ours = anndata.read_h5ad(tmp_path / "out.h5ad")
    stored = anndata.read_h5ad(tmp_path / "all.h5ad")[ids]
    assert list(ours.obs_names) == ids
    np.testing.assert_allclose(np.asarray(ours.X), np.asarray(stored.layers["ensemble"]), atol=1e-4)


def test_predict_refuses_samples_the_models_were_fitted_on(study: Path, world: Path, tmp_path: Path):
    plan = pd.read_parquet(study / "plan" / "folds.parquet")
    known = plan.loc[plan["role"] == "development", "sample_id"].tolist()[:3]
    new = plan.loc[plan["role"] == "test", "sample_id"].tolist()[:5]
    anndata.read_h5ad(world)[[*new, *known]].write_h5ad(tmp_path / "mixed.h5ad")
    refused = pertstack("predict", study, tmp_path / "mixed.h5ad", tmp_path / "out.h5ad")
    assert refused.returncode == 2 and not (tmp_path / "out.h5ad").exists()
    assert "3 of 8 samples" in refused.stderr and known[0] in refused.stderr


def test_a_second_look_with_another_plan_is_refused_and_the_exploratory_one_is_marked(study: Path, tmp_path: Path):
    copy = copied(study, tmp_path / "copy")
    refused = pertstack("plan", copy, "--primary", "pearson_all")
    assert refused.returncode == 3 and "locked" in refused.stderr
    ok("plan", copy, "--primary", "pearson_all", "--exploratory")
    ok("stack", copy)
    ok("verdict", copy, "--exploratory")
    found = board(copy)
    assert found["test_looks"] == 2 and found["exploratory"]
    assert any("xploratory" in c for c in found["cautions"])


def test_a_withdrawn_model_leaves_with_its_reason(study: Path, tmp_path: Path):
    copy = copied(study, tmp_path / "copy")
    ok("withdraw", copy, "low_rank", "--why", "trained elsewhere")
    assert "low_rank" not in json.loads(ok("status", copy, "--json"))["models"]
    assert "trained elsewhere" in (copy / "ledger.jsonl").read_text()
