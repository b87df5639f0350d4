"""Simulated score tables whose ranking and gains are known by construction, for the verdict and the report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pertstack.reduce.scoring.score_table import ScoreTable

METRICS = (
    "r2_top20@own",
    "r2_top20@pooled",
    "r2_top20_strict@own",
    "pearson_all@own",
    "pearson_all@centroid",
    "rmse_all@own",
    "cod_all@own",
    "sign_acc_top20@own",
)
BASE_LEVEL = {
    "r2_top20@own": 0.60,
    "r2_top20@pooled": 0.34,
    "r2_top20_strict@own": 0.60,
    "pearson_all@own": 0.55,
    "pearson_all@centroid": 0.16,
    "rmse_all@own": 1.05,
    "cod_all@own": 0.30,
    "sign_acc_top20@own": 0.80,
}
KINDS = {
    "mlp": "base",
    "ridge": "base",
    "knn": "base",
    "mean_treated": "base",
    "plain_mean": "reference",
    "no_change": "reference",
    "simplex": "combiner",
    "direct_pooled": "combiner",
    "direct_own": "combiner",
    "oracle": "ceiling",
}


def shifts(**chosen: float) -> dict[str, dict[str, float]]:
    """Known mean differences to 'mlp' on (own, pooled, centroid, rmse); ``chosen`` overrides direct_pooled."""
    own_world = {"own": 0.05, "pooled": -0.15, "centroid": -0.10, "rmse": 0.07}
    return {
        "mlp": {},
        "ridge": {"own": -0.02, "pooled": -0.02, "centroid": -0.02, "rmse": 0.02},
        "knn": {"own": -0.10, "pooled": -0.12, "centroid": -0.05, "rmse": 0.10},
        "mean_treated": {"own": -0.03, "pooled": -0.08, "centroid": -0.16, "rmse": 0.06},
        "plain_mean": {"own": 0.005, "pooled": 0.0, "rmse": 0.0},
        "no_change": {"own": -0.60, "pooled": -0.34, "centroid": -0.16, "rmse": 0.40},
        "simplex": {"own": 0.01, "pooled": 0.008, "centroid": 0.005, "rmse": -0.005},
        "direct_pooled": {"own": 0.03, "pooled": 0.025, "centroid": 0.01, "rmse": -0.01} | chosen,
        "direct_own": own_world,
        "oracle": {"own": 0.12, "pooled": 0.10, "centroid": 0.05, "rmse": -0.05},
    }


def samples(n_perturbations: int, cell_lines: tuple[str, ...], seed: int) -> pd.DataFrame:
    """Every perturbation in every cell line; group = perturbation."""
    rng = np.random.default_rng(seed)
    rows = [(f"{line}:cpd{p:03d}", line, f"cpd{p:03d}") for line in cell_lines for p in range(n_perturbations)]
    frame = pd.DataFrame(rows, columns=["sample_id", "cell_line", "perturbation"])
    frame["block"], frame["fold"] = frame["cell_line"] + ".test.s000", pd.array([pd.NA] * len(frame), dtype="Int64")
    frame["group"] = frame["perturbation"]
    frame["effect_rms"] = rng.gamma(3.0, 0.3, len(frame))
    return frame


def world(
    n_perturbations: int = 60,
    cell_lines: tuple[str, ...] = ("A375", "HT29", "MCF7"),
    *,
    noise: float = 0.02,
    seed: int = 5,
    by_name: Mapping[str, Mapping[str, float]] | None = None,
) -> ScoreTable:
    """A score table in which every name differs from 'mlp' by a known amount plus noise that groups share.

    The noise is centred over samples, so the mean difference is the known one to within rounding.
    """
    rng = np.random.default_rng(seed)
    frame = samples(n_perturbations, cell_lines, seed)
    known = dict(by_name if by_name is not None else shifts())
    n, code = len(frame), frame["group"].astype("category").cat.codes.to_numpy()
    easy = rng.normal(0, 0.08, n)
    values = np.empty((len(known), len(METRICS), n), dtype=np.float32)
    for i, (name, shift) in enumerate(known.items()):
        for j, metric in enumerate(METRICS):
            view = "rmse" if metric.startswith("rmse") else metric.partition("@")[2]
            bump = rng.normal(0, noise, n_perturbations)[code] * (name != "mlp")
            step = shift.get(view, 0.0)
            values[i, j] = BASE_LEVEL[metric] + easy - easy.mean() + bump - bump.mean() + step
        if name == "no_change":
            values[i, [k for k, m in enumerate(METRICS) if m.startswith("r2_top20@")]] = np.nan
    return ScoreTable(frame, tuple(known), METRICS, values, np.ones((len(known), n), dtype=bool))
