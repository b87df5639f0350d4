"""A real L1000 plate, compounds held out: our numbers against loops, and the shared-control effect that the
references exist for.
"""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from pertstack.design.blocks import Block
from pertstack.reduce import Diversity, GeneMoments, References, reduce_blocks, score
from realdata import real_data
from references.memory_source import MemorySource
from references.metric_loops import metric_loop


@pytest.fixture(scope="module")
def plate():
    """Out-of-fold predictions of three simple models; control = the DMSO well paired at random."""
    data = anndata.read_h5ad(real_data("l1000_single_line/ht115_cpc006.h5ad"))
    treated = np.asarray(data.X, dtype=np.float32)
    control = np.asarray(data.layers["paired_control"], dtype=np.float32)
    drug = data.obs["perturbation"].to_numpy().astype(str)
    order = np.argsort(drug, kind="stable")
    layers, tables = {}, {}
    for fold, (fit, held) in enumerate(GroupKFold(3).split(treated, groups=drug)):
        held = [i for i in order if i in set(held)]
        block = Block("HT115", fold)
        c, n = control[held], len(held)
        mean_effect = (treated[fit].astype(float) - control[fit]).mean(axis=0)
        layers[(block, "mean_treated")] = np.tile(treated[fit].mean(axis=0), (n, 1)).astype(np.float32)
        layers[(block, "mean_effect")] = (c + mean_effect).astype(np.float32)
        layers[(block, "half")] = (0.5 * c + 0.5 * treated[fit].mean(axis=0)).astype(np.float32)
        layers[(block, "treated")], layers[(block, "control")] = treated[held], c
        tables[block] = data.obs.iloc[held][["perturbation"]].assign(cell_line="HT115", group=drug[held])
    return MemorySource(
        np.asarray(data.var_names, dtype=object), ("mean_treated", "mean_effect", "half"), layers, tables
    )


def test_canonical_metric_matches_the_scipy_loop_and_shared_control_inflates_it(plate):
    refs = References.collect(plate)
    table = score(plate, {}, refs, metrics=["r2_top20", "r2_top20@pooled", "pearson_all@centroid", "rmse_all"])
    for model in plate.models:
        loops = [
            metric_loop("r2", 20, plate.layers[(b, model)], plate.layers[(b, "treated")], plate.layers[(b, "control")])
            for b in sorted(plate.tables)
        ]
        np.testing.assert_allclose(table.values(model, "r2_top20"), np.concatenate(loops), atol=1e-6)
    constant = {r: table.mean("mean_treated", "r2_top20", r).value for r in ("own", "pooled")}
    assert 0.55 < constant["own"] < 0.62  # one constant profile that knows nothing of the drug
    assert constant["pooled"] < constant["own"] - 0.15
    assert abs(table.mean("mean_treated", "pearson_all@centroid").value) < 0.1
    each = table.values("mean_treated", "rmse_all")
    assert 1.0 < np.sqrt(np.mean(each**2)) < 1.1  # over all values; the mean of per-sample RMSE is lower


def test_moments_and_diversity_of_real_rows(plate):
    refs = References.collect(plate)
    reduction = reduce_blocks(plate, refs, workers=2)
    pooled = refs.pooled("HT115").astype(np.float32).astype(float)
    rows = {
        x: np.concatenate([plate.layers[(b, x)] for b in sorted(plate.tables)]).astype(float)
        for x in (*plate.models, "treated", "control")
    }
    delta = np.stack([rows[m] - rows["control"] for m in plate.models])
    whole = GeneMoments.of(delta, rows["treated"] - rows["control"], rows["control"] - pooled)
    ours = reduction.moments()
    np.testing.assert_allclose(ours.mean, whole.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.scatter, whole.scatter, rtol=1e-8, atol=1e-8)
    diversity = Diversity.of(reduction)
    gap = diversity.ambiguity
    assert abs(gap.ensemble_error - gap.mean_error + gap.ambiguity) < 1e-10
    assert ("mean_treated", "half") in diversity.clusters  # both are minus a share of the control
