"""Everything metrics.md promises is in a study's leaderboard, with its counts, and is what a plain loop says."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack.design.metric_names import SET_LEVEL, metric_names, parse_metric
from references.metric_loops import metric_loop

from .conftest import ok

FREE = ("rmse_all", "mae_all")  # the reference cancels
SLOW = ("spearman_all",)  # against one reference alone
LANDMARKS = [
    f"{m}_landmark@{r}"
    for r in ("own", "pooled")
    for m in metric_names(tops=(20,))
    if m not in SET_LEVEL and (r, m) not in {("pooled", x) for x in FREE} | {("own", x) for x in SLOW}
]
PROMISED = [
    *(f"{m}@{r}" for r in ("own", "pooled") for m in metric_names() if m not in SET_LEVEL and (r, m) != ("own", *SLOW)),
    *(f"{m}@pooled" for m in SET_LEVEL),
    "pearson_all@centroid",
    "r2_top20@centroid",
    "r2_top20@matched",
    "pearson_all@matched",
    "r2_top20_strict@matched",
    *LANDMARKS,
]


def ridge_on_test(study: Path) -> dict[str, dict]:
    rows = json.loads((study / "results" / "leaderboard.json").read_text())["rows"]
    return next(r["scores"] for r in rows if r["name"] == "ridge" and r["split"] == "test")


def test_every_promised_metric_is_on_the_board_with_its_counts(study: Path):
    scores = ridge_on_test(study)
    assert [m for m in PROMISED if m not in scores] == []
    for metric in PROMISED:
        cell = scores[metric]
        assert cell["value"] is not None and 0 < cell["n_valid"] <= cell["n"], metric
        lo, hi = cell["ci"]
        assert lo <= cell["value"] <= hi, metric


def test_every_promised_metric_is_the_plain_loop_on_exported_rows(study: Path, world: Path, tmp_path: Path):
    out = tmp_path / "predictions.h5ad"
    ok("export", study, out)
    predictions, truth = anndata.read_h5ad(out), anndata.read_h5ad(world)
    plan = pd.read_parquet(study / "plan" / "folds.parquet").set_index("sample_id")
    role = plan.loc[truth.obs_names, "role"].to_numpy()
    control, line = np.asarray(truth.layers["control"], dtype=float), truth.obs["cell_line"].to_numpy()
    test, development = role == "test", role == "development"
    marks = truth.var["is_landmark"].to_numpy(dtype=bool)
    pooled = np.stack([control[development & (line == x)].mean(axis=0) for x in line])
    reference = {"own": control, "pooled": pooled.astype(np.float32), "matched": _matched(truth, control, development)}
    predicted = np.asarray(predictions[truth.obs_names[test]].layers["ridge"])
    treated, scores = np.asarray(truth.X)[test], ridge_on_test(study)
    for name in [m for m in PROMISED if "centroid" not in m and not m.startswith("pds")]:
        metric = parse_metric(name)
        ref, genes = reference[metric.reference][test], marks if metric.landmark else np.full(len(marks), True)
        known = np.isfinite(ref).all(axis=1)
        cut = (v[known][:, genes] for v in (predicted, treated, ref))
        values = metric_loop(metric.kind, metric.top, *cut, metric.strict)
        assert scores[name]["value"] == pytest.approx(np.nanmean(values), abs=2e-6), name
        assert scores[name]["n_valid"] == np.isfinite(values).sum() and scores[name]["n"] == test.sum(), name


def _matched(truth, control, development):
    """Mean of the distinct controls of the row's plate over development rows, its own left out; nan below four."""
    out = np.full(control.shape, np.nan)
    plate = truth.obs["plate"].to_numpy(dtype=object)
    for i in range(len(out)):
        same = np.array([p == plate[i] for p in plate])
        rows = control[same & development] if (same & development).any() else control[same]
        others = np.array([c for c in np.unique(rows, axis=0) if not np.array_equal(c, control[i])])
        if len(others) >= 4:
            out[i] = others.mean(axis=0)
    return out.astype(np.float32)
