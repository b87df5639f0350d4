"""Selector and soft gate: features by plain loops, ridge by scikit-learn, gradient by differences, known worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiners.row_weights.sample_features import SampleFeatures, agreement, softmax
from pertstack.stacking.combiners.row_weights.selector import choose_strength, goodness_slopes
from pertstack.stacking.combiners.row_weights.soft_gate import _scale, fit_gate, gate_value_and_gradient
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiner
from pertstack.stacking.solvers.top_gene import top_gene_sums
from references.small_world import as_source, small_world
from references.stack_loops import rows_of


def evidence_of(world, reference="pooled", **changes):
    source, references = as_source(world, **changes)
    return Evidence(reduce_blocks(source, references), reference, source=source, references=references)


def loop_features(x):
    """Rows of (n, M, G): log mean square, cosine with the mean model, share of disagreement, by plain formulas."""
    out = []
    for one in x:
        mean = one.mean(axis=0)
        loud = np.mean([np.mean(m**2) for m in one])
        size = [np.log(np.mean(m**2) + 1e-6 * loud) for m in one]
        cosine = [m @ mean / np.sqrt((m @ m) * (mean @ mean)) for m in one]
        apart = np.mean([(m - mean) ** 2 for m in one]) / loud
        out.append([*size, *cosine, apart])
    return np.array(out)


def test_features_are_those_of_the_plain_formulas():
    x, _ = rows_of(small_world(n=20))
    square = np.einsum("nmg,nlg->nml", x, x) / x.shape[2]
    np.testing.assert_allclose(agreement(square), loop_features(x), rtol=1e-9)


def test_features_of_models_that_say_nothing_are_finite_or_unknown():
    square = np.zeros((2, 3, 3))
    square[1, 2] = square[1, :, 2] = np.nan
    found = agreement(square)
    assert np.isnan(found[:, :3]).all() and (found[0, 3:6] == 0).all() and (found[:, 6] == 0).all()


@pytest.mark.parametrize("reference", ["pooled", "own"])
def test_moments_and_tiles_give_the_same_features(reference):
    """What is learned from sums is met again, sample by sample, when rows are predicted."""
    world = small_world(n=40)
    predictions = {k: v.copy() for k, v in world["predictions"].items()}
    predictions["m2"][::7] = np.nan
    dose = pd.DataFrame({"log10_dose": np.linspace(-1, 1, 40), "time_h": np.where(np.arange(40) % 2, 24.0, np.nan)})
    source = ArraySource(
        predictions,
        world["treated"],
        world["control"],
        folds=world["folds"],
        perturbation=world["perturbation"],
        cell_line=world["cell_line"],
        obs=dose,
    )
    references = References.collect(source)
    evidence = Evidence(reduce_blocks(source, references), reference, source=source, references=references)
    scaling, table = SampleFeatures.learn(evidence)
    tiles = [scaling.of_tile(t, list(range(4))) for t, _ in iter_tiles(source, references)]
    np.testing.assert_allclose(np.concatenate(tiles), table, atol=2e-3)
    assert scaling.numbers == ("log10_dose",) or scaling.numbers == ("log10_dose", "time_h")
    assert len(scaling.names(evidence.models)) == table.shape[1] and np.isfinite(table).all()
    np.testing.assert_allclose(table[:, -2].std(), 1.0, rtol=1e-6)


def test_a_cell_line_never_seen_is_unknown_not_another_one():
    source, references = as_source(small_world(n=40))
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    scaling, _ = SampleFeatures.learn(evidence)
    tile, _ = next(iter_tiles(source, references))
    lines = slice(9, 9 + len(evidence.cell_lines))
    assert (scaling.of_tile(tile, [0, 1, 2, 3])[:, lines] != 0).all()
    elsewhere = replace(tile, block=replace(tile.block, cell_line="new"))
    assert (scaling.of_tile(elsewhere, [0, 1, 2, 3])[:, lines] == 0).all()


def test_slopes_are_scikit_learns_ridge():
    rng = np.random.default_rng(0)
    features, goodness = rng.normal(0, 1, (50, 6)), rng.uniform(0, 1, (50, 3))
    level, slopes = goodness_slopes(features, goodness, 0.3)
    beyond = goodness - goodness.mean(axis=1, keepdims=True)
    peer = Ridge(alpha=0.3 * 50).fit(features, beyond)
    np.testing.assert_allclose(slopes, peer.coef_.T, rtol=1e-8)
    np.testing.assert_allclose(level, peer.intercept_, rtol=1e-8)
    level, slopes = goodness_slopes(features, goodness, np.inf)
    assert (slopes == 0).all() and np.argmax(level) == np.argmax(goodness.mean(axis=0))


def test_noise_selects_nothing_and_a_rule_is_found():
    rng = np.random.default_rng(1)
    features, fold = rng.normal(0, 1, (300, 5)), np.arange(300) % 3
    noise = rng.uniform(0, 1, (300, 3)) + np.array([0.2, 0.0, 0.0])
    assert choose_strength(features, noise, fold)[0] == np.inf
    ruled = noise.copy()
    ruled[:, 1] += np.where(features[:, 0] > 0, 0.6, -0.6)
    strength, gain = choose_strength(features, ruled, fold)
    assert np.isfinite(strength) and gain.max() > 0.1


def specialists(n=240):
    """m0 is right in line0 and noise in line1, m1 the other way round; both always equally loud."""
    world = small_world(n=n, n_groups=80, n_models=2, errors=[0.3, 0.3], noise=0.3, seed=8)
    rng = np.random.default_rng(9)
    for m, line in enumerate(["line0", "line1"]):
        delta = world["predictions"][f"m{m}"] - world["control"]
        wrong = world["cell_line"] != line
        delta[wrong] = delta[wrong][rng.permutation(int(wrong.sum()))]
        world["predictions"][f"m{m}"] = world["control"] + delta
    return world


@pytest.mark.parametrize("name", ["selector", "soft_gate"])
def test_specialists_are_told_apart_and_beat_the_best_single(name):
    source, references = as_source(specialists())
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    fits = {n: make_combiner(n).fit(evidence).combine for n in (name, "best_single", "direct_pooled")}
    table = score(source, fits, references, metrics=["r2_top20@pooled"], base_models=False)
    value = {n: table.mean(n, "r2_top20", "pooled").value for n in fits}
    assert value[name] > value["best_single"] + 0.1 and value[name] > value["direct_pooled"] + 0.05


def test_gate_gradient_is_the_finite_difference():
    world = small_world(n=60)
    sums = top_gene_sums(evidence_of(world).reduction.slices["pooled"], "pooled", 10)
    rng = np.random.default_rng(3)
    features, table = rng.normal(0, 1, (sums.n, 3)), rng.normal(0, 0.5, (3, 4))
    _, gradient = gate_value_and_gradient(sums, features, table)
    for j in range(3):
        for m in range(4):
            step = np.zeros((3, 4))
            step[j, m] = 1e-6
            up, down = (gate_value_and_gradient(sums, features, table + s)[0] for s in (step, -step))
            assert gradient[j, m] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-8)


def test_gate_with_a_constant_feature_has_the_value_of_global_weights():
    sums = top_gene_sums(evidence_of(small_world(n=60)).reduction.slices["pooled"], "pooled", 10)
    score_row = np.array([[0.3, -0.2, 0.1, 0.5]])
    value, _ = gate_value_and_gradient(sums, np.ones((sums.n, 1)), score_row)
    assert value == pytest.approx(sums.value(softmax(score_row)[0]))
    table = fit_gate(sums, np.ones((sums.n, 2)), np.zeros((2, 4)), strength=np.inf, hold=score_row[0])
    np.testing.assert_array_equal(table, [score_row[0], np.zeros(4)])


@pytest.mark.parametrize("reference", ["pooled", "own"])
def test_the_scale_is_least_squares_over_rows(reference):
    world = small_world(n=50, scale=[0.5, 0.5, 0.5, 0.5])
    x, t = rows_of(world, reference)
    evidence = evidence_of(world, reference)
    ids = evidence.reduction.samples["sample_id"].str.removeprefix("row_").astype(int).to_numpy()
    weights = softmax(np.random.default_rng(0).normal(0, 1, (50, 4)))
    mixed = np.einsum("nm,nmg->ng", weights, x[ids])
    assert _scale(evidence, weights) == pytest.approx((mixed * t[ids]).sum() / (mixed**2).sum(), rel=1e-4)


@pytest.mark.parametrize("name", ["selector", "soft_gate"])
def test_where_the_wanted_model_is_missing_another_answers(name):
    """A row with one model alone is that model's (times the scale)."""
    world = small_world(n=60)
    predictions = {k: v.copy() for k, v in world["predictions"].items()}
    for m in ("m0", "m1", "m3"):
        predictions[m][5] = np.nan
    source, references = as_source(world, predictions=predictions)
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    fitted = make_combiner(name).fit(evidence)
    scale = getattr(fitted, "scale", 1.0)
    for tile, _ in iter_tiles(source, references):
        for i in np.flatnonzero(tile.obs.index == "row_5"):
            base = tile.pooled
            expected = base + scale * (predictions["m2"][5] - base)
            np.testing.assert_allclose(fitted.combine(tile)[i], expected, rtol=1e-5)
