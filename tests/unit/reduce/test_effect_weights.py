"""Weights from the measured effect and the metrics on them, against scipy, scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, r2_score

from pertstack.reduce.metrics import effect_weights as ew

N_GENES = 40


@pytest.fixture(scope="module")
def world():
    """Six perturbations of two to six samples, one measured once; (values, label of each, test of each)."""
    rng = np.random.default_rng(5)
    sizes = [4, 3, 1, 6, 2, 5]
    label = np.repeat(np.arange(6), sizes)
    effect = rng.normal(0, 1.5, (6, N_GENES)) * (rng.random((6, N_GENES)) < 0.3)
    values = effect[label] + rng.normal(0, 0.5, (len(label), N_GENES))
    moments = [(v.mean(0), v.var(0, ddof=1) if len(v) > 1 else np.zeros(N_GENES), len(v)) for v in parts(values, label)]
    others = [(v.mean(0), v.var(0, ddof=1), len(v)) for v in (values[label != k] for k in range(6))]
    columns = [np.array(c) for group in (moments, others) for c in zip(*group, strict=True)]
    mean, variance, n = columns[3:]
    return values, label, ew.welch_test(*columns[:3], other_mean=mean, other_variance=variance, other_n=n)


def parts(values, label):
    return [values[label == k] for k in range(6)]


def test_welch_matches_scipy_where_there_are_replicates(world):
    values, label, test = world
    for k in (0, 1, 3, 4, 5):
        found = stats.ttest_ind(values[label == k], values[label != k], equal_var=False)
        np.testing.assert_allclose(test.t[k], found.statistic, rtol=1e-10)
        np.testing.assert_allclose(test.p[k], found.pvalue, rtol=1e-8)
        np.testing.assert_allclose(test.p_adjusted[k], stats.false_discovery_control(found.pvalue), rtol=1e-8)


def test_a_perturbation_measured_once_borrows_the_variance_of_the_others(world):
    values, label, test = world
    others = values[label != 2]
    spread = others.std(0, ddof=1) * np.sqrt(1 + 1 / len(others))
    t = (values[label == 2][0] - others.mean(0)) / spread
    np.testing.assert_allclose(test.t[2], t, rtol=1e-10)
    np.testing.assert_allclose(test.p[2], 2 * stats.t.sf(abs(t), len(others) - 1), rtol=1e-8)


def test_a_gene_without_spread_tells_nothing():
    ones = np.ones((2, 3))
    test = ew.welch_test(
        ones, 0 * ones, np.array([3, 3]), other_mean=0 * ones, other_variance=0 * ones, other_n=np.array([3, 3])
    )
    assert (test.t == 0).all() and (test.p == 1).all()


def test_weights_and_weighted_metrics_match_loops(world):
    rng = np.random.default_rng(1)
    test = world[2]
    truth, prediction = rng.normal(size=(6, N_GENES)), rng.normal(size=(6, N_GENES))
    for exponent in (1.0, 2.0, 4.0):
        w = ew.effect_weights(test.t, exponent)
        for i in range(6):
            s = np.abs(test.t[i])
            mine = ((s - s.min()) / (s.max() - s.min())) ** exponent
            np.testing.assert_allclose(w[i], mine / mine.sum(), rtol=1e-12)
            t, p = truth[i], prediction[i]
            assert ew.weighted_mse(truth, prediction, w)[i] == pytest.approx(np.average((t - p) ** 2, weights=w[i]))
            r = np.cov(t, p, aweights=w[i], ddof=0)
            expected = r[0, 1] / np.sqrt(r[0, 0] * r[1, 1])
            assert ew.weighted_pearson(truth, prediction, w)[i] == pytest.approx(expected)
            assert ew.weighted_cod(truth, prediction, w)[i] == pytest.approx(r2_score(t, p, sample_weight=w[i]))


def test_sets_of_genes(world):
    test = world[2]
    top = ew.top_by_t(test.t, 5)
    degs = ew.significant(test.p_adjusted)
    for i in range(6):
        assert set(np.flatnonzero(top[i])) == set(np.argsort(-np.abs(test.t[i]))[:5])
        found = test.p_adjusted[i] < 0.05
        assert np.isnan(degs[i]).all() if not found.any() else set(np.flatnonzero(degs[i])) == set(np.where(found)[0])
    expressed = ew.most_expressed(np.arange(N_GENES)[::-1].astype(float), 4, 6)
    assert (np.flatnonzero(expressed[3]) == [0, 1, 2, 3]).all() and expressed[3, 0] == 0.25


def test_genes_left_out_weigh_nothing():
    w = ew.without(np.full((1, 4), 0.25), np.array([[True, False, False, False]]))
    np.testing.assert_allclose(w, [[0, 1 / 3, 1 / 3, 1 / 3]])
    assert np.isnan(ew.without(np.full((1, 2), 0.5), np.array([[True, True]]))).all()


def test_constant_sides():
    flat, wavy, w = np.ones((1, 4)), np.arange(4.0)[None], np.full((1, 4), 0.25)
    assert np.isnan(ew.weighted_pearson(flat, wavy, w)).all() and np.isnan(ew.weighted_cod(flat, wavy, w)).all()
    assert ew.weighted_pearson(wavy, flat, w)[0] == 0.0


def test_corrected_error_is_unbiased_where_the_plain_one_is_not():
    """Means of four noisy samples against the noise-free truth as prediction: zero on average."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(300, 50))
    samples = truth[:, None] + rng.normal(0, 1, (300, 4, 50))
    corrected = ew.corrected_mse(samples.mean(1), truth, samples.var(1, ddof=1), np.full(300, 4))
    assert abs(corrected.mean()) < 0.01 < 0.24 < ((samples.mean(1) - truth) ** 2).mean()
    assert np.isnan(ew.corrected_mse(truth[:2], truth[:2], 0 * truth[:2], np.ones(2))).all()


def test_recovery_of_significant_genes_matches_loops(world):
    test = world[2]
    prediction = test.difference + np.random.default_rng(9).normal(0, 0.8, test.difference.shape)
    found = {
        "direction": ew.direction_of_degs(test, prediction),
        "jaccard": ew.jaccard_of_degs(test, prediction),
        "auprc": ew.auprc_of_degs(test, prediction),
        "lfc": ew.lfc_error_of_degs(test, prediction),
    }
    for i in range(6):
        degs = set(np.flatnonzero(test.p_adjusted[i] < 0.05))
        if not degs:
            assert all(np.isnan(v[i]) for v in found.values())
            continue
        top = set(sorted(range(N_GENES), key=lambda g: (-abs(prediction[i, g]), g))[: len(degs)])
        same = [np.sign(test.difference[i, g]) == np.sign(prediction[i, g]) for g in degs]
        assert found["direction"][i] == pytest.approx(np.mean(same))
        assert found["jaccard"][i] == pytest.approx(len(degs & top) / len(degs | top))
        labels = [g in degs for g in range(N_GENES)]
        assert found["auprc"][i] == pytest.approx(average_precision_score(labels, np.abs(prediction[i])))
        wrong = sum(abs(test.difference[i, g] - prediction[i, g]) for g in degs)
        assert found["lfc"][i] == pytest.approx(wrong / sum(abs(test.difference[i, g]) for g in degs))
    assert (~np.isnan(found["auprc"])).sum() >= 3
