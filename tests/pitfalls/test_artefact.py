"""Design section 8 with our own code: the gain on own control that predicts the drug worse on every other measure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from pertstack.verdict.decomposition import Difference, decompose
from realdata import real_data

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "artefact.py"


def script():
    spec = importlib.util.spec_from_file_location("artefact", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_direct_on_own_control_is_marked_as_artefact_on_the_real_plate(tmp_path):
    data = real_data("l1000_single_line/ht115_cpc006.h5ad")
    models = ("mean_treated", "perturbation_knn", "ridge", "ridge_treated", "low_rank")
    board = script().experiment(data, tmp_path / "s", models=models, seed=0, control_layer="paired_control")
    own, best = board.loc["direct_own"], board[board.index.str.startswith("best single")].iloc[0]
    assert own["own R2 Top-20"] > best["own R2 Top-20"] + 0.02
    assert own["pooled R2 Top-20"] < best["pooled R2 Top-20"] - 0.02 and own["RMSE"] > best["RMSE"]
    assert own["reading"] == "artefact" and not own["shipped"]
    assert board.loc["direct_pooled", "reading"] != "artefact"


def test_less_negative_agreement_is_no_gain():
    """From a correlation of -0.08 to one of -0.03 with the centroid: beyond noise, and worth nothing."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 3)

    def compare(first, second, groups):
        d = first - second
        se = d.std() / np.sqrt(len(d))
        return Difference(float(d.mean()), (float(d.mean() - 2 * se), float(d.mean() + 2 * se)), None, len(d), 40)

    def around(level):
        return level + 0.01 * rng.normal(size=120)

    def reading(centroid):
        scores = {
            "r2_top20@own": (around(0.64), around(0.58)), "r2_top20@pooled": (around(0.27), around(0.35)),
            "pearson_all@centroid": centroid, "rmse_all@own": (around(1.03), around(0.96)),
        }  # fmt: skip
        return decompose("d", "s", scores, primary="r2_top20@pooled", groups=groups, compare=compare).reading

    assert reading((around(-0.03), around(-0.08))) == "artefact"
    assert reading((around(0.10), around(0.03))) == "mixed"
