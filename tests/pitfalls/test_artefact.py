"""Design section 8 with our own code: the gain on own control that predicts the drug worse on every other measure."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

from pertstack._stats.estimate import Difference
from pertstack.verdict.gain.decompose import decompose
from realdata import real_data

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name="artefact"):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
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


def test_a_dominant_model_is_beaten_on_its_own_control_by_weights_that_agree_less_with_the_true_effect():
    """Design section 8, experiment one (docs/shared-control.md): squared error loses, direct_own gains falsely."""
    dominant = script("dominant")
    means, readings = dominant.experiment(dominant.World(), seed=0)
    step = {n: {c: v[c] - means["best_single"][c] for c in v} for n, v in means.items()}
    for name in ("mean", "simplex", "global_ridge", "gene_ridge"):
        assert step[name]["own"] < 0 and step[name]["RMSE"] < -0.2, name
    assert step["direct_own"]["own"] > 0.005
    assert step["direct_own"]["agreement, own"] < -0.005 and step["direct_own"]["agreement, pooled"] < -0.01
    assert step["direct_pooled"]["pooled"] > 0 and step["direct_pooled"]["agreement, pooled"] > 0
    assert readings["direct_own"] not in ("win", "within_noise") and readings["simplex"] != "win"


def test_the_true_effect_is_measured_and_noise_is_all_that_is_added_to_it():
    dominant = script("dominant")
    study = dominant.draw(dominant.World(noise=0.5, per_drug=2), seed=1)
    noise = study.treated - study.effect - (study.control - study.control.mean(axis=0))
    spread = (noise - noise.mean(axis=0)).std()
    assert abs(spread - 0.5 * np.sqrt(2)) < 0.01
    zero = np.zeros(study.effect.shape[1])
    exact = dominant.judge(study.control + study.effect, study, study.control.mean(axis=0), zero)
    np.testing.assert_allclose(exact["agreement, own"], 1.0, atol=1e-6)


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
            "r2_top20@own": (around(0.64), around(0.58)),
            "r2_top20@pooled": (around(0.27), around(0.35)),
            "pearson_all@centroid": centroid,
            "rmse_all@own": (around(1.03), around(0.96)),
        }
        return decompose("d", "s", scores, primary="r2_top20@pooled", groups=groups, compare=compare).reading

    assert reading((around(-0.03), around(-0.08))) == "artefact"
    assert reading((around(0.10), around(0.03))) == "mixed"
