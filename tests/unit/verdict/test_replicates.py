"""The replicate predictor is the mean of the other replicates of a condition, by a plain loop."""

from __future__ import annotations

import numpy as np

from pertstack.reduce import References, score
from pertstack.verdict.replicates import ReplicatePredictor
from pertstack.verdict.views import scaled_scores
from references.memory_source import world
from references.metric_loops import metric_loop


def test_it_predicts_the_mean_of_the_other_replicates_and_nothing_where_there_is_none():
    source = world(n=30, folds=(), test=True, n_drugs=8)
    doses = np.random.default_rng(0).integers(0, 2, 30)
    for table in source.tables.values():
        table["log10_dose"] = np.where(doses == 0, -6.0, np.nan)  # unknown equals unknown
    predict = ReplicatePredictor(source)
    assert predict.exists
    references = References.collect(world(n=30)).with_controls_of(source)
    metrics = ["r2_top20@own", "r2_top20@pooled"]
    table = score(source, {"replicate": predict}, references, metrics=metrics, memory=40_000)
    expected = []
    for block in sorted(source.tables):
        obs, x = source.tables[block], source.layers[(block, "treated")].astype(float)
        for i in range(len(obs)):
            same = [
                j
                for j in range(len(obs))
                if j != i and obs["perturbation"].iloc[j] == obs["perturbation"].iloc[i] and doses[j] == doses[i]
            ]
            others = x[same].mean(axis=0, keepdims=True) if same else np.full((1, x.shape[1]), np.nan)
            control = source.layers[(block, "control")][[i]]
            expected += metric_loop("r2", 20, others.astype(np.float32), x[[i]], control).tolist()
    np.testing.assert_allclose(table.values("replicate", "r2_top20@own"), expected, atol=1e-5)
    undefined = np.isnan(expected)
    assert 0 < undefined.sum() < len(expected) and not table.predicted[table.names.index("replicate"), undefined].any()
    values = table.values_by_name[:, 1]
    names = table.names
    scaled, reason = scaled_scores(names, values, "r2_top20@pooled", no_drug=("no_change",), replicate="replicate")
    here = np.isfinite(values[names.index("replicate")])
    u, b, r = (np.nanmean(values[names.index(n)][here]) for n in ("m0", "no_change", "replicate"))
    assert reason == ""
    np.testing.assert_allclose(scaled.set_index("name").loc["m0", "scaled"], (u - b) / (r - b), rtol=1e-5)


def test_single_measurements_give_no_ceiling():
    source = world(n=6, folds=(), test=True, n_drugs=6)
    for table in source.tables.values():
        table["perturbation"] = [f"d{i}" for i in range(6)]
    assert not ReplicatePredictor(source).exists
