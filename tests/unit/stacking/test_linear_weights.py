"""How weights are applied, and the documented rule where some models did not predict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import MisalignedError
from pertstack.design.blocks import Block
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiners import linear_weights
from pertstack.stacking.combiners.linear_weights import LinearWeights, effective_models
from pertstack.stacking.combiners.row_statistic import MiddleMean, RowStatistic

MODELS = ("a", "b", "c")


def make_tile(rng, n=6, g=4, available=None, genes=None, line="X"):
    available = np.ones((3, n), dtype=bool) if available is None else available
    genes = np.ones((3, g), dtype=bool) if genes is None else genes
    predictions = rng.normal(8, 1, (3, n, g)).astype(np.float32)
    predictions[~available] = np.nan
    for m in range(3):
        predictions[m][:, ~genes[m]] = np.nan
    names = np.array([f"g{i}" for i in range(g)], dtype=object)
    control, pooled = rng.normal(8, 1, (n, g)).astype(np.float32), rng.normal(8, 1, g).astype(np.float32)
    obs = pd.DataFrame({"perturbation": ["p"] * n}, index=[f"s{i}" for i in range(n)])
    return Tile(Block(line, 0), MODELS, names, obs, predictions, control, pooled, available, genes)


def make_weights(coefficients, intercept=0.0, reference="pooled", g=4, **more):
    return LinearWeights(
        "w",
        reference,
        MODELS,
        tuple(f"g{i}" for i in range(g)),
        np.asarray(coefficients, dtype=float),
        np.asarray(intercept, dtype=float),
        np.tile([1, 0, 2], (g, 1)),
        **more,
    )


@pytest.mark.parametrize("reference", ["own", "pooled"])
@pytest.mark.parametrize("per_gene", [False, True])
def test_formula_by_loops(reference, per_gene):
    rng = np.random.default_rng(0)
    tile = make_tile(rng)
    w = rng.normal(0.3, 0.3, (4, 3) if per_gene else 3)
    b = rng.normal(0, 0.2, 4)
    out = make_weights(w, b, reference).combine(tile)
    for i in range(6):
        for g in range(4):
            ref = tile.pooled[g] if reference == "pooled" else tile.control[i, g]
            weights = w[g] if per_gene else w
            expected = ref + b[g] + sum(weights[m] * (tile.predictions[m, i, g] - ref) for m in range(3))
            assert out[i, g] == pytest.approx(expected, abs=1e-5)


def test_models_are_matched_by_name_and_genes_too():
    rng = np.random.default_rng(1)
    tile, w = make_tile(rng), make_weights([[0.5, 0.3, 0.2], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    turned = Tile(**{**tile.__dict__, "models": ("c", "a", "b"), "predictions": tile.predictions[[2, 0, 1]]})
    np.testing.assert_array_equal(w.combine(turned), w.combine(tile))
    at = [2, 0]
    fewer = Tile(
        **{
            **tile.__dict__,
            "gene_names": tile.gene_names[at],
            "predictions": tile.predictions[:, :, at],
            "control": tile.control[:, at],
            "pooled": tile.pooled[at],
            "gene_available": tile.gene_available[:, at],
        }
    )
    np.testing.assert_allclose(w.combine(fewer), w.combine(tile)[:, at], rtol=1e-6)


def test_weights_of_sum_one_are_renormalised():
    """Row 0 lacks model a: weights 0.5, 0.3, 0.2 become 0.6, 0.4 on b, c. Gene 3 lacks c: 0.625, 0.375 on a, b."""
    rng = np.random.default_rng(2)
    available, genes = np.ones((3, 6), dtype=bool), np.ones((3, 4), dtype=bool)
    available[0, 0], genes[2, 3] = False, False
    tile = make_tile(rng, available=available, genes=genes)
    out = make_weights([0.5, 0.3, 0.2]).combine(tile)
    p = tile.predictions
    assert out[0, 0] == pytest.approx(0.6 * p[1, 0, 0] + 0.4 * p[2, 0, 0], abs=1e-5)
    assert out[1, 3] == pytest.approx(0.625 * p[0, 1, 3] + 0.375 * p[1, 1, 3], abs=1e-5)
    assert out[0, 3] == pytest.approx(p[1, 0, 3], abs=1e-5)
    assert out[1, 0] == pytest.approx(0.5 * p[0, 1, 0] + 0.3 * p[1, 1, 0] + 0.2 * p[2, 1, 0], abs=1e-5)


def test_other_weights_give_way_to_the_best_available_model():
    """Ranking is b, a, c: without a the signed mixture cannot be formed and b answers; without a and b, c does."""
    available = np.ones((3, 6), dtype=bool)
    available[0, 0] = available[0, 1] = available[1, 1] = False
    available[:, 2] = False
    tile = make_tile(np.random.default_rng(3), available=available)
    out = make_weights([0.9, -0.2, 0.1]).combine(tile)
    np.testing.assert_allclose(out[0], tile.predictions[1, 0], rtol=1e-6)
    np.testing.assert_allclose(out[1], tile.predictions[2, 1], rtol=1e-6)
    assert np.isnan(out[2]).all() and np.isfinite(out[3:]).all()


def test_a_model_of_weight_zero_is_never_missed():
    available = np.ones((3, 6), dtype=bool)
    available[2] = False
    tile = make_tile(np.random.default_rng(4), available=available)
    out = make_weights([0.9, -0.2, 0.0]).combine(tile)
    expected = tile.pooled + 0.9 * (tile.predictions[0] - tile.pooled) - 0.2 * (tile.predictions[1] - tile.pooled)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_cell_lines_have_their_own_weights_and_unseen_ones_the_common():
    rng = np.random.default_rng(5)
    own = {"X": (np.array([1.0, 0.0, 0.0]), np.zeros(()))}
    w = make_weights([0.0, 1.0, 0.0], by_cell_line=own)
    x, y = make_tile(rng), make_tile(rng, line="Y")
    np.testing.assert_allclose(w.combine(x), x.predictions[0], rtol=1e-6)
    np.testing.assert_allclose(w.combine(y), y.predictions[1], rtol=1e-6)
    assert w.weights()["cell_lines"] == ["X"] and "coefficients:X" in w.arrays()


def test_unknown_genes_are_refused_by_name():
    tile = make_tile(np.random.default_rng(6))
    with pytest.raises(MisalignedError, match="'g3'"):
        make_weights([1.0, 0.0, 0.0], g=3).combine(tile)


def test_effective_number_of_models_by_hand():
    assert effective_models(np.array([0.25] * 4)) == pytest.approx(4.0)
    assert effective_models(np.array([1.0, -1.0])) == pytest.approx(2.0)
    assert effective_models(np.zeros(3)) == 0.0


@pytest.mark.parametrize(("cut", "peer"), [(0.0, np.nanmean), (0.5, np.nanmedian)])
def test_mean_and_median_of_what_is_there(cut, peer):
    available = np.ones((3, 6), dtype=bool)
    available[0, 0] = available[1, 3] = available[2, 3] = False
    tile = make_tile(np.random.default_rng(7), available=available)
    out = RowStatistic("s", MODELS, MiddleMean(cut)).combine(tile)
    np.testing.assert_allclose(out, peer(tile.predictions, axis=0), rtol=1e-6)


def test_trimmed_mean_is_scipys():
    from scipy.stats import trim_mean

    values = np.sort(np.random.default_rng(8).normal(size=(10, 3, 4)).astype(np.float32), axis=0)
    np.testing.assert_allclose(MiddleMean(0.2)(values, 10), trim_mean(values, 0.2, axis=0), rtol=1e-5)


@pytest.mark.parametrize("per_gene", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_blocks_of_rows_give_the_bits_of_whole_layers(per_gene, own, monkeypatch):
    """Models are added in the same order to the same float32 sum, whatever the rows of a block."""
    rng = np.random.default_rng(4)
    predictions = rng.normal(8, 2, (5, 23, 7)).astype(np.float32)
    weights, rows = rng.normal(size=(7, 3) if per_gene else 3), [4, 0, 2]
    weights[..., 1] = 0
    reference, shift = predictions[1] if own else predictions[1, :1], rng.normal(size=7).astype(np.float32)
    plain = np.broadcast_to((1 - weights.sum(axis=-1)).astype(np.float32) * reference + shift, (23, 7)).copy()
    for m in (0, 2):
        plain += weights[..., m].astype(np.float32) * predictions[rows[m]]
    monkeypatch.setattr(linear_weights, "BLOCK", 20)
    np.testing.assert_array_equal(linear_weights._mix(predictions, rows, weights, reference, shift), plain)
