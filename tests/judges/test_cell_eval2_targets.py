"""Noise-corrected error and retrieval without target genes against cell-eval2 0.20.0 (``make judges``).

Perturbations are named by genes of the panel. Predicted cells of a perturbation are all alike, so that nothing is taken
out on the side of the prediction: ours never does that.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack.reduce.metrics.effect_weights import corrected_mse
from pertstack.reduce.metrics.set_level import discrimination

cell_eval2 = pytest.importorskip("cell_eval2")
N_DRUGS, N_CELLS, N_GENES = 12, 6, 60
NAMES = [f"g{d}" for d in range(N_DRUGS)]


@pytest.fixture(scope="module")
def screen():
    rng = np.random.default_rng(3)
    base = rng.uniform(6, 9, N_GENES)
    effect = rng.normal(0, 0.06, (N_DRUGS, N_GENES)).repeat(N_CELLS, axis=0)
    truth = base + effect + rng.normal(0, 0.2, effect.shape)
    predicted = base + 0.7 * effect + rng.normal(0, 0.2, (N_DRUGS, N_GENES)).repeat(N_CELLS, axis=0)
    control = base + rng.normal(0, 0.2, (10, N_GENES))
    return tuple(a.astype(np.float32) for a in (truth, predicted, control))


def judged(screen, target_gene_map):
    anndata = pytest.importorskip("anndata")
    truth, predicted, control = screen

    def made(cells):
        obs = pd.DataFrame({"target": [*np.repeat(NAMES, N_CELLS), *["ctrl"] * len(control)]})
        obs.index = [f"c{i}" for i in range(len(obs))]
        return anndata.AnnData(
            np.concatenate([cells, control]), obs, pd.DataFrame(index=[f"g{g}" for g in range(N_GENES)])
        )

    options = {} if target_gene_map is None else {"target_gene_map": target_gene_map}
    config = cell_eval2.EvalConfig(
        metrics=["expr_mse_unbiased", "pds_l1", "pds_l2", "pds_cosine"],
        pert_col="target",
        control="ctrl",
        input_type="lognorm",
        **options,
    )
    found = cell_eval2.compute_metrics(made(predicted), made(truth), config=config).to_pandas()
    return found.pivot(index="perturbation", columns="metric", values="value").loc[NAMES]


def cells_of(values):
    return values.astype(float).reshape(N_DRUGS, N_CELLS, N_GENES)


def test_noise_corrected_error_agrees(screen):
    truth, predicted = cells_of(screen[0]), cells_of(screen[1])
    ours = corrected_mse(truth.mean(1), predicted.mean(1), truth.var(1, ddof=1), np.full(N_DRUGS, N_CELLS))
    theirs = judged(screen, {"*": None})["expr_mse_unbiased"].to_numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    assert (theirs < ((truth.mean(1) - predicted.mean(1)) ** 2).mean(1)).all()


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_retrieval_without_target_genes_agrees(screen, distance):
    """By default they leave the genes out that any perturbation of the panel names."""
    centre = screen[2].astype(float).mean(axis=0)
    truth, predicted = (cells_of(v).mean(1) - centre for v in screen[:2])
    for target_gene_map, genes in (({"*": None}, slice(None)), (None, slice(N_DRUGS, None))):
        theirs = judged(screen, target_gene_map)[f"pds_{distance}"].to_numpy()
        assert len(set(np.round(theirs, 6))) > 3
        np.testing.assert_allclose(discrimination(truth[:, genes], predicted[:, genes], distance), theirs, atol=1e-6)
