"""How weights are applied, and the documented rule where some models did not predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import MisalignedError
from pertstack.design.blocks import Block
from pertstack.reduce.scoring.mixtures import Mixture, Mixtures, mixed
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiners.linear_weights import LinearWeights, effective_models
from pertstack.stacking.combiners.references.row_statistic import MiddleMean, RowStatistic, statistic_of
from pertstack.stacking.nested import fit_nested
from references.small_world import as_source, small_world

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

    values = np.random.default_rng(8).normal(size=(10, 3, 4)).astype(np.float32)
    found = statistic_of(values, range(10), MiddleMean(0.2))
    np.testing.assert_allclose(found, trim_mean(values, 0.2, axis=0), rtol=1e-5)


@pytest.mark.parametrize("n_genes", [7, 300])
def test_mixtures_together_and_alone_have_the_same_bits_and_are_the_plain_sum(n_genes):
    """Global and by gene, own and pooled, with weights of zero for a model that is not even a number."""
    rng = np.random.default_rng(4)
    predictions = rng.normal(8, 2, (9, 23, n_genes)).astype(np.float32)
    predictions[1] = np.nan
    tile = replace(make_tile(rng, n=23, g=n_genes), predictions=predictions)
    mixtures = []
    for c in range(6):
        models = [3, 1, 0, 2, 8, 7, 5][: 2 + c]
        weights = rng.normal(size=(n_genes, len(models)) if c % 2 else len(models))
        weights[..., 1] = 0
        shift = rng.normal(size=n_genes).astype(np.float32)
        mixtures.append(Mixture(models, weights, shift, own=c % 3 == 0))
    out = np.zeros((8, 23, n_genes), dtype=np.float32)
    places = np.array([7, 0, 2, 1, 4, 3])
    together = Mixtures(mixtures, 9, n_genes)
    for a, b in ((0, 5), (5, 6), (6, 23)):
        together.mix(tile, a, b, out=out, places=places)
    for mixture, place in zip(mixtures, places, strict=True):
        np.testing.assert_array_equal(out[place], mixed(tile, mixture))
        reference = tile.control if mixture.own else tile.pooled[None]
        plain = reference * (1 - mixture.weights.sum(axis=-1)) + mixture.shift
        for j, m in enumerate(mixture.models):
            if j != 1:
                plain = plain + mixture.weights[..., j] * predictions[m].astype(float)
        np.testing.assert_allclose(out[place], plain, rtol=2e-6, atol=2e-5)
    assert (out[[5, 6]] == 0).all()


def test_scored_together_they_score_as_each_does_alone():
    """A model lacks rows and another a gene in some blocks: there every combiner speaks for itself."""
    world = small_world(n=150, n_genes=40, folds=2)
    lacking = {k: v.copy() for k, v in world["predictions"].items()}
    lacking["m1"][world["folds"] == 0] = np.where((np.arange(150) % 7 == 0)[:, None], np.nan, lacking["m1"])[
        world["folds"] == 0
    ]
    source, references = as_source(world, predictions=lacking)
    nested = fit_nested(["simplex", "gene_ridge", "mean"], reduce_blocks(source, references), source=source)
    together = score(source, nested.combines(), references, memory=200_000)
    plain = {n: {k: fit.combine for k, fit in fits.items()} for n, fits in nested.combines().items()}
    for name, fits in plain.items():
        alone = score(source, {name: fits}, references, base_models=False)
        np.testing.assert_array_equal(together.values_by_name[together.names.index(name)], alone.values_by_name[0])
    assert together.predicted[-1].all()
