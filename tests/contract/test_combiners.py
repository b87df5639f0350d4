"""What every combiner in the registry must do; a new one is picked up by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import clone

from pertstack._base.errors import MisalignedError, UnknownNameError
from pertstack.predictions.sources.embedding import ArrayEmbedding
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.estimator import CombinerEstimator
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import ALWAYS, COMBINERS, make_combiner, make_combiners
from references.small_world import as_source, small_world, turned_embeddings

NAMES = sorted(COMBINERS)


def evidence_of(world, **changes):
    source, references = as_source(world, **changes)
    reduction = reduce_blocks(source, references)
    return Evidence(reduction, source=source, references=references), source, references


def predict(fitted, source, references):
    return np.concatenate([fitted.combine(tile) for tile, _ in iter_tiles(source, references)])


@pytest.fixture(scope="module")
def usual():
    return evidence_of(small_world())


@pytest.mark.parametrize("name", NAMES)
def test_declares_itself(name):
    combiner = make_combiner(name)
    assert isinstance(combiner, Combiner) and combiner.name == name
    assert combiner.family in ("reference", "global", "gene", "condition", "sample", "nonlinear")
    assert combiner.needs <= {"gene_moments", "sample_moments", "slices", "rows", "embeddings"}
    assert combiner.complexity >= 0 and type(combiner).__doc__
    assert combiner.with_params(**combiner.get_params()) == combiner


@pytest.mark.parametrize("name", NAMES)
def test_predicts_finite_float32_and_is_deterministic(name, usual):
    evidence, source, references = usual
    fitted, again = (make_combiner(name).fit(evidence) for _ in range(2))
    first, second = (predict(f, source, references) for f in (fitted, again))
    assert first.dtype == np.float32 and first.shape == (120, 30) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)
    assert json.loads(json.dumps(fitted.weights(), allow_nan=False))["combiner"] == name
    assert all(np.isfinite(a).all() for a in fitted.arrays().values())


@pytest.mark.parametrize("name", NAMES)
def test_predicts_each_row_by_itself(name, usual):
    """Small tiles and large ones give the same rows: no combiner may look at who else is being predicted."""
    evidence, source, references = usual
    fitted = make_combiner(name).fit(evidence)
    small = np.concatenate([fitted.combine(t) for t, _ in iter_tiles(source, references, memory=30_000)])
    np.testing.assert_allclose(small, predict(fitted, source, references), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_one_model_alone_is_followed(name):
    """With a single good model, every combiner's prediction goes along with it."""
    evidence, source, references = evidence_of(small_world(n_models=1, errors=[0.3]))
    fitted = make_combiner(name).fit(evidence)
    if name == "no_change":
        return
    for tile, _ in iter_tiles(source, references):
        single, combined = tile.predictions[0] - tile.pooled, fitted.combine(tile) - tile.pooled
        assert np.corrcoef(single.ravel(), combined.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_identical_models_give_the_prediction_of_one(name):
    """Four columns of the same model: weights are not identified, the prediction is."""
    world = small_world(n_models=1, errors=[0.4])
    one = world["predictions"]["m0"]
    evidence, source, references = evidence_of(world, predictions={f"m{i}": one.copy() for i in range(4)})
    single, _, _ = evidence_of(world)
    many = predict(make_combiner(name).fit(evidence), source, references)
    alone_source, alone_references = as_source(world)
    alone = predict(make_combiner(name).fit(single), alone_source, alone_references)
    assert np.isfinite(many).all()
    scale = np.abs(alone - world["control"].mean()).std()
    assert np.abs(many - alone).mean() < 0.06 * scale


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_model_does_no_harm_to_finiteness(name):
    world = small_world()
    flat = np.full_like(world["control"], 8.0)
    evidence, source, references = evidence_of(world, predictions={**world["predictions"], "flat": flat})
    assert np.isfinite(predict(make_combiner(name).fit(evidence), source, references)).all()


@pytest.mark.parametrize("name", NAMES)
def test_models_missing_on_genes_and_rows(name):
    """One model lacks genes, another rows: every row and gene that some model predicts gets an answer."""
    world = small_world()
    predictions = {k: v.copy() for k, v in world["predictions"].items()}
    predictions["m1"][:, :5] = np.nan
    predictions["m2"][::7] = np.nan
    evidence, source, references = evidence_of(world, predictions=predictions)
    fitted = make_combiner(name).fit(evidence)
    assert np.isfinite(predict(fitted, source, references)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_fold_without_a_cell_line(name):
    world = small_world()
    line = np.where(world["folds"] == 1, "line0", world["cell_line"])
    evidence, source, references = evidence_of(world, cell_line=line)
    assert np.isfinite(predict(make_combiner(name).fit(evidence), source, references)).all()


@pytest.mark.parametrize("name", NAMES)
def test_fewer_rows_than_models(name):
    evidence, source, references = evidence_of(small_world(n=6, n_groups=6, n_models=8, lines=1))
    assert np.isfinite(predict(make_combiner(name).fit(evidence), source, references)).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_fold_of_evidence(name, usual):
    """With two folds and one left out a single fold remains: an answer, or a caution, but no crash."""
    evidence, source, references = usual
    alone = Evidence(evidence.reduction.select(folds=[0]), source=source, references=references)
    assert np.isfinite(predict(make_combiner(name).fit(alone), source, references)).all()


@pytest.mark.parametrize("name", NAMES)
def test_genes_never_seen_and_models_that_are_gone(name, usual):
    evidence, source, references = usual
    fitted = make_combiner(name).fit(evidence)
    tile, _ = next(iter_tiles(source, references))
    lacking = type(tile)(**{**tile.__dict__, "models": ("m0", "m1", "m2", "other")})
    with pytest.raises(MisalignedError, match="m3"):
        fitted.combine(lacking)
    if hasattr(fitted, "coefficients"):
        renamed = np.array([f"new{i}" for i in range(30)], dtype=object)
        with pytest.raises(MisalignedError, match="30 genes"):
            fitted.combine(type(tile)(**{**tile.__dict__, "gene_names": renamed}))


@pytest.mark.parametrize("name", NAMES)
def test_works_as_a_scikit_learn_estimator(name):
    world = small_world(n=60, n_groups=12)
    x = np.stack([world["control"], *world["predictions"].values()], axis=1)
    estimator = clone(CombinerEstimator(name))
    given = dict(enumerate(turned_embeddings(world).values())) if "embeddings" in make_combiner(name).needs else None
    estimator.fit(
        x,
        world["treated"],
        folds=world["folds"],
        groups=world["perturbation"],
        cell_line=world["cell_line"],
        embeddings=given,
    )
    new = {i: ArrayEmbedding(e.values, e.anchors[None]) for i, e in given.items()} if given else None
    out = estimator.predict(x, cell_line=world["cell_line"], embeddings=new)
    assert out.shape == world["treated"].shape and np.isfinite(out).all()
    assert estimator.get_params()["combiner"] == name


def test_unknown_names_show_the_near_ones():
    with pytest.raises(UnknownNameError, match="simplex"):
        make_combiner("simplx")
    with pytest.raises(UnknownNameError, match="rounds"):
        make_combiner("greedy_mse", round=3)


def test_references_are_always_on_the_board():
    names = [c.name for c in make_combiners(["global_ridge"])]
    assert names == [*ALWAYS, "global_ridge"]
