"""Our metrics against cell-eval and cell-eval2, two judges written by others. Skipped where they are not installed.

They need an environment of their own (their pins are not ours):

    uv venv --python 3.11 judge && uv pip install --python judge/bin/python -e . pytest cell-eval==0.8.2
    cell-eval2==0.20.0 judge/bin/python -m pytest tests/judges

Both refuse negative values, so one common offset is added to truth, prediction and control; differences from the
control do not change. Control rows are the same in both files. Every perturbation has several cells, so that means
are really taken.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack.design.blocks import Block
from pertstack.reduce import References, score
from references.memory_source import MemorySource

N_DRUGS, N_CELLS, N_GENES, N_CONTROLS, OFFSET = 12, 5, 60, 8, 5.0


@pytest.fixture(scope="module")
def world():
    """Truth, prediction (cells of each drug in the same order) and shared controls, all positive."""
    rng = np.random.default_rng(3)
    base = rng.uniform(1, 4, N_GENES) + OFFSET
    effect = rng.normal(0, 0.06, (N_DRUGS, N_GENES)).repeat(N_CELLS, axis=0)
    treated = base + effect + rng.normal(0, 0.2, effect.shape)
    predicted = base + 0.7 * effect + rng.normal(0, 0.4, effect.shape)  # weak: discrimination far from perfect
    control = base + rng.normal(0, 0.2, (N_CONTROLS, N_GENES))
    drugs = np.array([f"drug{d}" for d in range(N_DRUGS)]).repeat(N_CELLS)
    return (*(a.astype(np.float32) for a in (treated, predicted, control)), drugs)


@pytest.fixture(scope="module")
def ours(world):
    """One row per drug (means over its cells) against the mean control, through the ordinary scoring."""
    treated, predicted, control, drugs = world
    names = sorted(set(drugs))
    means = {
        x: np.stack([v[drugs == d].astype(float).mean(axis=0) for d in names])
        for x, v in (("t", treated), ("p", predicted))
    }
    block = Block("line", 0)
    layers = {
        (block, "treated"): means["t"].astype(np.float32),
        (block, "model"): means["p"].astype(np.float32),
        (block, "control"): np.tile(control.astype(float).mean(axis=0), (N_DRUGS, 1)).astype(np.float32),
    }
    table = pd.DataFrame({"perturbation": names, "cell_line": "line", "group": names}, index=names)
    source = MemorySource(np.array([f"g{g}" for g in range(N_GENES)], dtype=object), ("model",), layers, {block: table})
    metrics = ["pearson_all@pooled", "mae_all@pooled", "rmse_all@pooled", "pds_l1@pooled", "pds_cosine@pooled"]
    metrics.append("centroid_accuracy@pooled")
    scored = score(source, {}, References.collect(source), metrics=metrics)
    return {m: dict(zip(names, scored.values("model", m), strict=True)) for m in metrics}


def anndata_of(values, control, drugs, column, label):
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({column: [*drugs, *[label] * len(control)]})
    obs.index = [f"c{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=[f"g{g}" for g in range(N_GENES)])
    return anndata.AnnData(X=np.concatenate([values, control]), obs=obs, var=var)


def compare(theirs, ours, pairs):
    """Each of their metrics {name: {drug: value}} against ours, drug by drug."""
    for name, metric in pairs.items():
        drugs = sorted(theirs[name])
        assert drugs == sorted(ours[metric])
        mine, judge = (np.array([v[d] for d in drugs]) for v in (ours[metric], theirs[name]))
        assert len(set(np.round(mine, 6))) > 3, f"{metric} takes too few values to compare"
        np.testing.assert_allclose(
            np.sqrt(judge) if name.endswith(("mse", "mse_delta")) else judge, mine, atol=1e-6, err_msg=name
        )


def test_cell_eval_agrees(world, ours, tmp_path):
    cell_eval = pytest.importorskip("cell_eval")
    treated, predicted, control, drugs = world
    real = anndata_of(treated, control, drugs, "perturbation", "control")
    pred = anndata_of(predicted, control, drugs, "perturbation", "control")
    judge = cell_eval.MetricsEvaluator(
        adata_pred=pred,
        adata_real=real,
        control_pert="control",
        pert_col="perturbation",
        num_threads=1,
        outdir=str(tmp_path),
        skip_de=True,
    )
    skip = ["clustering_agreement", "pearson_edistance"]
    results, _ = judge.compute(profile="anndata", skip_metrics=skip, break_on_error=True)
    found = results.to_dict(as_series=False)
    drug = found.pop("perturbation")
    theirs = {name: dict(zip(drug, values, strict=True)) for name, values in found.items()}
    for name in ("l1", "l2", "cosine"):  # cell-eval divides the rank by n, cell-eval2 and we by n - 1
        score_of = theirs[f"discrimination_score_{name}"]
        theirs[f"discrimination_score_{name}"] = {d: 1 - (1 - v) * N_DRUGS / (N_DRUGS - 1) for d, v in score_of.items()}
    pairs = {
        "pearson_delta": "pearson_all@pooled",
        "mae": "mae_all@pooled",
        "mae_delta": "mae_all@pooled",
        "mse": "rmse_all@pooled",
        "mse_delta": "rmse_all@pooled",
        "discrimination_score_l1": "pds_l1@pooled",
        "discrimination_score_l2": "centroid_accuracy@pooled",
        "discrimination_score_cosine": "pds_cosine@pooled",
    }
    compare(theirs, ours, pairs)


def test_cell_eval2_agrees(world, ours):
    cell_eval2 = pytest.importorskip("cell_eval2")
    treated, predicted, control, drugs = world
    real = anndata_of(treated, control, drugs, "target", "ctrl")
    pred = anndata_of(predicted, control, drugs, "target", "ctrl")
    config = cell_eval2.EvalConfig(
        metrics="anndata", pert_col="target", control="ctrl", input_type="lognorm", target_gene_map={"*": None}
    )
    results = cell_eval2.compute_metrics(pred, real, config=config)
    theirs: dict[str, dict[str, float]] = {}
    for row in results.iter_rows(named=True):
        theirs.setdefault(row["metric"], {})[row["perturbation"]] = row["value"]
    pairs = {
        "delta_pearson": "pearson_all@pooled",
        "expr_mae": "mae_all@pooled",
        "delta_mae": "mae_all@pooled",
        "expr_mse": "rmse_all@pooled",
        "pds_l1": "pds_l1@pooled",
        "pds_l2": "centroid_accuracy@pooled",
        "pds_cosine": "pds_cosine@pooled",
    }
    compare(theirs, ours, pairs)
