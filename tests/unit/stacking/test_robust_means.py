"""Rank average, winsorised mean and standardised mean against loops, SciPy and hand-sized tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats.mstats import winsorize

from pertstack._base.errors import InputError
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiners.references.rank_average import rank_average
from pertstack.stacking.combiners.references.row_statistic import MiddleMean, statistic_of
from pertstack.stacking.combiners.references.winsorised_mean import DrawnIn
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiner
from references.robust_loops import loop_rank_average
from references.small_world import as_source, small_world


def everywhere(delta):
    n_models, n, n_genes = delta.shape
    return np.ones((n_models, n), dtype=bool), np.ones((n_models, n_genes), dtype=bool)


@pytest.mark.parametrize("tied", [False, True])
def test_rank_average_is_the_plain_loop(tied):
    delta = np.random.default_rng(0).normal(0, 2, (4, 6, 17)).astype(np.float32)
    delta = np.round(delta) if tied else delta
    np.testing.assert_allclose(rank_average(delta, *everywhere(delta)), loop_rank_average(delta), atol=1e-5)


def test_rank_average_gives_one_model_back_and_ignores_its_scale_in_the_order():
    delta = np.random.default_rng(1).normal(0, 1, (1, 5, 20)).astype(np.float32)
    np.testing.assert_allclose(rank_average(delta, *everywhere(delta)), delta[0], atol=1e-6)
    two = np.concatenate([delta, 1000 * delta])
    order = np.argsort(rank_average(two, *everywhere(two)), axis=1)
    np.testing.assert_array_equal(order, np.argsort(delta[0], axis=1))


def test_rank_average_where_models_lack_rows_and_genes():
    """Of row 0 only model 0 speaks; gene 0 is known to model 1 alone; gene 1 to nobody."""
    delta = np.random.default_rng(2).normal(0, 1, (2, 3, 9)).astype(np.float32)
    there, genes = everywhere(delta)
    there[1, 0] = False
    genes[0, :2], genes[1, 1] = False, False
    found = rank_average(np.where(there[:, :, None] & genes[:, None, :], delta, np.nan), there, genes)
    np.testing.assert_array_equal(np.isnan(found), [[g < 2 if i == 0 else g == 1 for g in range(9)] for i in range(3)])
    inner = delta[0, 0, 2:]
    order = np.argsort(found[0, 2:])
    np.testing.assert_array_equal(order, np.argsort(inner))
    assert inner.min() - 1e-6 <= np.nanmin(found[0]) and np.nanmax(found[0]) <= inner.max() + 1e-6


@pytest.mark.parametrize("n_models", [1, 3, 5, 10])
@pytest.mark.parametrize("cut", [0.0, 0.2, 0.35])
def test_winsorised_mean_is_scipys(n_models, cut):
    values = np.random.default_rng(3).normal(0, 1, (n_models, 40)).astype(np.float32)
    expected = winsorize(values, limits=(cut, cut), axis=0, inclusive=(True, True)).mean(axis=0)
    drop = int(cut * n_models + 1e-9)
    if 2 * drop < n_models:
        found = statistic_of(values[:, None], range(n_models), DrawnIn(cut))
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_winsorised_mean_of_those_that_are_there():
    """Five places, three models there: 1, 2, 9 with a cut of 0.34 becomes 2, 2, 2."""
    values = np.array([[9.0], [np.nan], [1.0], [2.0], [np.nan]], dtype=np.float32)[:, None]
    np.testing.assert_allclose(statistic_of(values, range(5), DrawnIn(0.34)), [[2.0]])
    np.testing.assert_allclose(statistic_of(values, range(5), DrawnIn(0.2)), [[4.0]])
    with pytest.raises(InputError, match="cut is"):
        make_combiner("winsorised_mean", cut=0.5).fit(None)


def test_standardised_mean_brings_every_model_to_the_spread_of_the_truth():
    world = small_world(scale=np.array([0.1, 1.0, 5.0, 1.0]))
    source, references = as_source(world)
    evidence = Evidence(reduce_blocks(source, references), reference="own", source=source, references=references)
    fitted = make_combiner("standardised_mean").fit(evidence)
    y = world["treated"].astype(float) - world["control"]
    deltas = [p.astype(float) - world["control"] for p in world["predictions"].values()]
    expected = [np.sqrt((y**2).mean() / (d**2).mean()) for d in deltas]
    np.testing.assert_allclose(fitted.facts["scales"], expected, rtol=1e-5)
    tiles = [(t, fitted.combine(t)) for t, _ in iter_tiles(source, references)]
    for tile, combined in tiles:
        by_hand = np.mean([s * (p - tile.control) for s, p in zip(expected, tile.predictions, strict=True)], axis=0)
        np.testing.assert_allclose(combined - tile.control, by_hand, atol=1e-4)


def test_standardised_mean_leaves_out_a_model_that_says_nothing():
    world = small_world()
    silent = {**world["predictions"], "silent": world["control"].copy()}
    source, references = as_source(world, predictions=silent)
    evidence = Evidence(reduce_blocks(source, references), reference="own", source=source, references=references)
    fitted = make_combiner("standardised_mean").fit(evidence)
    assert fitted.facts["scales"][4] == 0.0 and fitted.coefficients[4] == 0.0
    np.testing.assert_allclose(fitted.coefficients[:4] * 4, fitted.facts["scales"][:4])


@pytest.mark.parametrize("statistic", [MiddleMean(0.0), MiddleMean(0.2), MiddleMean(0.5), DrawnIn(0.2), DrawnIn(0.4)])
@pytest.mark.parametrize("n_models", range(1, 11))
def test_statistics_are_the_plain_loop(statistic, n_models):
    """Ties, infinite values, models without some values and genes without any; some models do not count."""
    rng = np.random.default_rng(n_models)
    values = np.round(rng.normal(size=(n_models + 2, 7, 300)), 1).astype(np.float32)
    values[:, 1] = np.where(rng.random((n_models + 2, 300)) < 0.5, np.nan, values[:, 1])
    values[:, 2, :5] = np.nan
    values[0, 3, :3] = np.inf
    rows = rng.permutation(n_models + 2)[:n_models]
    expected = [[loop_statistic(values[rows, i, g], statistic) for g in range(300)] for i in range(7)]
    np.testing.assert_allclose(statistic_of(values, rows, statistic), expected, rtol=1e-6, atol=1e-7)


def loop_statistic(values, statistic):
    there = np.sort(values[~np.isnan(values)].astype(float))
    if not len(there):
        return np.nan
    drop = min(int(statistic.cut * len(there) + 1e-9), (len(there) - 1) // 2)
    if isinstance(statistic, DrawnIn):
        return np.clip(there, there[drop], there[len(there) - 1 - drop]).mean()
    return there[drop : len(there) - drop].mean()
