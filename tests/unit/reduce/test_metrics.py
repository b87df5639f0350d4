"""Every metric against a plain loop over samples, and the edge cases of metrics.md by name."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy.spatial import distance as scipy_distance

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.reduce import DEFAULT_PANEL, FULL_PANEL, Metric, parse_metric, parse_metrics, score_rows
from pertstack.reduce.metrics.nearest import Truths
from pertstack.reduce.metrics.set_level import discrimination
from references.metric_loops import discrimination_loop, metric_loop


def rows(n=30, n_genes=200, seed=0):
    rng = np.random.default_rng(seed)
    control = rng.normal(7, 2, (n, n_genes))
    effect = rng.normal(size=(n, n_genes))
    treated = control + effect
    prediction = control + 0.6 * effect + rng.normal(0, 0.7, (n, n_genes))
    return tuple(a.astype(np.float32) for a in (prediction, treated, control))


PER_SAMPLE = [m for m in parse_metrics(FULL_PANEL) if m.scope == "sample"]


@pytest.mark.parametrize("metric", PER_SAMPLE, ids=str)
def test_every_metric_matches_a_plain_loop(metric):
    prediction, treated, control = rows()
    references = {"own": control, "pooled": control.mean(axis=0), "centroid": treated.mean(axis=0)}
    ours, predicted = score_rows(prediction, treated, references, metrics=[metric])
    theirs = metric_loop(metric.kind, metric.top, prediction, treated, references[metric.reference], metric.strict)
    assert predicted.all()
    np.testing.assert_allclose(ours[0], theirs, atol=1e-6)


def test_together_they_give_what_each_gives_alone():
    prediction, treated, control = rows()
    references = {"own": control, "pooled": control.mean(axis=0), "centroid": treated.mean(axis=0)}
    together, _ = score_rows(prediction, treated, references, metrics=PER_SAMPLE)
    for j, metric in enumerate(PER_SAMPLE):
        np.testing.assert_array_equal(together[j], score_rows(prediction, treated, references, metrics=[metric])[0][0])


def test_spearman_of_tied_values_matches_scipy_over_several_pieces_of_rows():
    prediction, treated, control = (np.round(a) for a in rows(n=70, n_genes=50))
    for reference in (control, np.round(control.mean(axis=0))):
        ours = score_rows(prediction, treated, {"own": reference}, metrics=parse_metrics(["spearman_all"]))[0][0]
        pairs = zip(prediction - reference, treated - reference, strict=True)
        np.testing.assert_allclose(ours, [scipy.stats.spearmanr(p, t).statistic for p, t in pairs], atol=1e-12)


def one(metric, prediction, treated, control, **more):
    return score_rows(
        prediction, treated, {"own": control, "pooled": control.mean(axis=0)}, metrics=parse_metrics([metric]), **more
    )[0][0]


def test_constant_prediction_is_skipped_by_canonical_and_counts_zero_in_strict():
    prediction, treated, control = rows()
    control[...] = 0  # so that the difference is constant to the last bit
    prediction[3] = 0.25
    assert np.isnan(one("r2_top20", prediction, treated, control)[3])
    for metric in ("r2_top20_strict", "pearson_top20", "pearson_all", "spearman_all"):
        assert one(metric, prediction, treated, control)[3] == 0.0
    assert np.isnan(one("r2_all", prediction, treated, control)[3])
    assert one("rmse_all", prediction, treated, control)[3] > 0


def test_constant_truth_is_undefined_for_every_correlation():
    prediction, treated, control = rows()
    treated[2] = control[2]
    for metric in ("r2_top20", "r2_top20_strict", "pearson_all", "spearman_all", "cosine_all", "cod_all"):
        assert np.isnan(one(metric, prediction, treated, control)[2])
    assert np.isfinite(one("rmse_top20", prediction, treated, control)[2])


def test_near_constant_spread_decides_at_1e_minus_10():
    control = np.zeros((2, 40), dtype=np.float32)
    treated = np.linspace(1, 2, 40, dtype=np.float32)[None].repeat(2, axis=0)
    prediction = np.zeros((2, 40), dtype=np.float32)
    prediction[0, ::2], prediction[1, ::2] = 1e-9, 1e-11
    valid = np.isfinite(one("r2_top20", prediction, treated, control))
    assert valid.tolist() == [True, False]


def test_sign_flip_keeps_r2_and_loses_the_sign():
    _, treated, control = rows()
    noise = np.random.default_rng(1).normal(0, 0.1, treated.shape).astype(np.float32)
    flipped = control - (treated - control) + noise
    assert one("r2_top20", flipped, treated, control).mean() > 0.99
    assert one("sign_acc_top20", flipped, treated, control).mean() < 0.01
    assert one("pearson_top20", flipped, treated, control).mean() < -0.99
    assert one("cod_top20", flipped, treated, control).mean() < -1


def test_abstaining_pays_in_canonical_and_costs_in_strict():
    """Abstain (predict no change) on the hardest 75 %: canonical rises above 0.9, strict falls to a quarter of it."""
    prediction, treated, control = rows(400, 300, seed=2)
    control[...] = 0
    noise = np.random.default_rng(3).normal(0, np.linspace(0, 1.2, 400)[:, None], prediction.shape)
    prediction = (treated + noise).astype(np.float32)
    honest = one("r2_top20", prediction, treated, control)
    abstaining = prediction.copy()
    abstaining[100:] = 0
    canonical, strict = (
        one("r2_top20", abstaining, treated, control),
        one("r2_top20_strict", abstaining, treated, control),
    )
    assert np.isfinite(canonical).sum() == 100 and np.isfinite(strict).sum() == 400
    assert np.nanmean(canonical) > honest.mean() + 0.02
    np.testing.assert_allclose(strict.mean(), np.nanmean(canonical) / 4, rtol=1e-6)


@pytest.mark.parametrize("k", [20, 40, 80])
def test_r2_of_unrelated_profiles_is_one_over_k_minus_one(k):
    rng = np.random.default_rng(k)
    treated, prediction = (rng.normal(size=(6000, 100)).astype(np.float32) for _ in range(2))
    values = one(f"r2_top{k}", prediction, treated, np.zeros_like(treated))
    assert abs(values.mean() - 1 / (k - 1)) < 4 * values.std() / np.sqrt(len(values))


def test_r2_is_never_below_the_coefficient_of_determination():
    prediction, treated, control = rows()
    assert (
        one("r2_top20", prediction, treated, control) >= one("cod_top20", prediction, treated, control) - 1e-12
    ).all()


def test_ties_in_size_are_broken_by_gene_order():
    """|T| = 2, 1, 1, 1, 0: the top 3 are genes 0, 1, 2 whatever the signs."""
    treated = np.array([[2, -1, 1, -1, 0]], dtype=np.float32)
    prediction = np.array([[1, 5, 7, 100, 0]], dtype=np.float32)
    expected = metric_loop("pearson", None, prediction[:, :3], treated[:, :3], np.zeros(3))
    np.testing.assert_allclose(one("pearson_top3", prediction, treated, np.zeros_like(treated)), expected, atol=1e-12)


def test_fewer_genes_than_k_uses_all_of_them():
    prediction, treated, control = rows(n_genes=12)
    np.testing.assert_allclose(
        one("r2_top20", prediction, treated, control), one("r2_all", prediction, treated, control), rtol=1e-12
    )


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-5, 1e-3, 1.0])
def test_a_prediction_that_hardly_says_anything_keeps_its_digits(size, offset):
    """Its variance is a small difference of the sums it follows from; below a bar it is summed gene by gene."""
    rng = np.random.default_rng(5)
    reference = np.zeros((12, 3000), dtype=np.float32)
    effect = rng.normal(size=reference.shape)
    treated = (effect + offset).astype(np.float32)
    prediction = (size * (effect + rng.normal(size=reference.shape))).astype(np.float32)
    for metric in parse_metrics(["pearson_all", "r2_all", "cod_all", "cosine_all", "rmse_all", "r2_all_strict"]):
        ours = one(metric, prediction, treated, reference)
        theirs = metric_loop(metric.kind, None, prediction, treated, reference, metric.strict)
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)


def test_a_prediction_with_nan_is_not_predicted():
    prediction, treated, control = rows()
    prediction[4, 7] = np.nan
    prediction[5, 0] = np.inf
    values, predicted = score_rows(
        prediction, treated, {"own": control}, metrics=parse_metrics(["rmse_all", "r2_top20"])
    )
    assert np.flatnonzero(~predicted).tolist() == [4, 5]
    assert np.isnan(values[:, [4, 5]]).all() and np.isfinite(np.delete(values, [4, 5], axis=1)).all()


def test_landmark_variant_is_the_metric_on_those_genes_alone():
    prediction, treated, control = rows()
    marks = np.random.default_rng(0).random(200) < 0.3
    ours = one("r2_top20_landmark", prediction, treated, control, landmarks=marks)
    np.testing.assert_array_equal(ours, one("r2_top20", prediction[:, marks], treated[:, marks], control[:, marks]))


@pytest.mark.parametrize("k", [1, 5, 63, 64, 65, 199, 200])
def test_top_genes_match_a_stable_sort(k):
    from pertstack.reduce.top_kernels import top_genes

    rng = np.random.default_rng(k)
    treated = rng.integers(-6, 7, (40, 200)).astype(np.float32)  # many ties
    out = np.zeros((40, k), dtype=np.int32)
    top_genes(treated, np.zeros((1, 200), dtype=np.float32), 0, 40, out)
    np.testing.assert_array_equal(out, np.argsort(-np.abs(treated), axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("spread", [3, 30, 3000])
@pytest.mark.parametrize("n_genes", [2500, 2592, 3001])
def test_top_genes_by_runs_match_a_stable_sort(spread, n_genes):
    """Long rows go by the maxima of runs of 32; ties in plenty, and differences that only float64 tells apart."""
    from pertstack.reduce.top_kernels import top_genes

    rng = np.random.default_rng(spread)
    treated = rng.integers(-spread, spread + 1, (20, n_genes)).astype(np.float32)
    treated += rng.integers(0, 2, treated.shape).astype(np.float32) * np.float32(2**-18)
    reference = rng.normal(7, 2, (1, n_genes)).astype(np.float32)
    out = np.zeros((20, 80), dtype=np.int32)
    for base in (reference, np.zeros_like(reference), np.full_like(reference, 1e-3)):
        top_genes(treated, base, 0, 20, out)
        exact = np.abs(treated.astype(float) - base.astype(float))
        np.testing.assert_array_equal(out, np.argsort(-exact, axis=1, kind="stable")[:, :80])


@pytest.mark.parametrize(("kind", "scipy_name"), [("l1", "cityblock"), ("l2", "sqeuclidean"), ("cosine", "cosine")])
def test_discrimination_matches_a_double_loop(kind, scipy_name):
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(15, 30))
    prediction = truth + rng.normal(0, 2, truth.shape)
    measure = getattr(scipy_distance, scipy_name)
    np.testing.assert_allclose(discrimination(truth, prediction, kind), discrimination_loop(truth, prediction, measure))


@pytest.mark.parametrize(("kind", "scipy_name"), [("l1", "cityblock"), ("l2", "sqeuclidean"), ("cosine", "cosine")])
def test_discrimination_tells_apart_what_float32_and_matrix_products_cannot(kind, scipy_name):
    """Equal truths, truths that differ in the tenth digit, silent ones, and numbers that float32 does not hold."""
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(70, 600))
    truth[10:20] = truth[10]
    truth[20:40] = truth[20] + 1e-10 * rng.normal(size=(20, 600))
    truth[40:43] = 0.0
    prediction = truth + rng.normal(0, 1, truth.shape)
    prediction[20:40] = prediction[20]
    prediction[50:53] = 0.0
    measure = {
        "l1": lambda a, b: np.abs(a - b).sum(),
        "l2": lambda a, b: ((a - b) ** 2).sum(),
        "cosine": lambda a, b: 1 - (a @ b / np.sqrt((a @ a) * (b @ b)) if a.any() and b.any() else 0.0),
    }[kind]
    expected = discrimination_loop(truth, prediction, measure)
    np.testing.assert_allclose(discrimination(truth, prediction, kind), expected, atol=1e-12)
    if kind == "l1":
        large = discrimination(truth * 1e38, prediction * 1e38, kind)
        np.testing.assert_allclose(large, discrimination_loop(truth * 1e38, prediction * 1e38, measure), atol=1e-12)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_a_rough_distance_may_err_by_its_slack_and_every_count_stays(distance, monkeypatch):
    """Near ties are summed again: equal truths tie whatever the fast sums say, and near ones keep their order."""
    rng = np.random.default_rng(8)
    truth = rng.normal(size=(48, 300))
    truth[10:20] = truth[10]
    truth[20:30] = truth[20] + 1e-13 * rng.normal(size=(10, 300))
    prediction, own = truth + rng.normal(0, 0.5, truth.shape), np.arange(48)
    there = Truths(truth, [distance]).nearer(prediction, own)
    assert there[1][0, 10:20].min() == 10
    rough = Truths._roughly

    def worse(self, *asked):
        found, slack = rough(self, *asked)
        return found + rng.choice([-0.5, 0.5], found.shape) * slack, slack

    monkeypatch.setattr(Truths, "_roughly", worse)
    np.testing.assert_array_equal(Truths(truth, [distance]).nearer(prediction, own), there)


def test_discrimination_limits():
    truth = np.random.default_rng(0).normal(size=(6, 10))
    np.testing.assert_array_equal(discrimination(truth, truth, "l1"), 1.0)
    equal = np.tile(truth[:1], (6, 1))
    np.testing.assert_array_equal(discrimination(equal, truth, "l1"), 0.5)  # all equally near: chance
    assert np.isnan(discrimination(truth[:1], truth[:1])).all()
    truth[2] = np.nan
    assert np.isnan(discrimination(np.nan_to_num(truth), truth)[2])


def test_names():
    for name in (*DEFAULT_PANEL, *FULL_PANEL):
        assert parse_metric(name).name == name
    assert parse_metric("r2_top20") == Metric("r2", 20)
    assert not parse_metric("rmse_all").higher_is_better and parse_metric("cod_all").higher_is_better
    with pytest.raises(UnknownNameError, match="r2_top20"):
        parse_metric("r2_tp20")
    with pytest.raises(UnknownNameError, match="pooled"):
        parse_metric("r2_top20@poold")
    with pytest.raises(UnknownNameError):
        parse_metric("spearman_top20")
    with pytest.raises(UnknownNameError):
        parse_metric("rmse_all_strict")
    with pytest.raises(InputError, match="at least 2"):
        parse_metric("r2_top1")
