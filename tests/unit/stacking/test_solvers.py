"""Solvers against other libraries and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import quadprog
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import PredefinedSplit

from pertstack.reduce.sums.moments import GeneMoments
from pertstack.stacking.combiners.gene_weights.gene_eb import empirical_bayes
from pertstack.stacking.combiners.gene_weights.gene_simplex import gene_simplex_weights, kkt_residuals
from pertstack.stacking.combiners.global_weights.greedy import bagged_greedy, greedy_counts
from pertstack.stacking.combiners.global_weights.inverse_mse import inverse_error_weights
from pertstack.stacking.combiners.global_weights.nonneg import nonneg_weights
from pertstack.stacking.solvers.convex import _projected_gradient, kkt_residual_simplex, simplex_weights
from pertstack.stacking.solvers.ridge_path import cross_validated_error, penalty_scale, ridge_path
from pertstack.stacking.sums import merge_sums, regression_sums
from references.stack_loops import loop_greedy, slsqp_simplex


def random_rows(rng, n=90, m=4, g=5, loc=3.0):
    delta = rng.normal(loc, 1, (m, n, g))
    y = np.einsum("m,mng->ng", rng.normal(0.3, 0.3, m), delta) + rng.normal(0, 1, (n, g))
    return delta, y, rng.normal(0, 0.5, (n, g))


def random_gram(rng, m, n=40):
    e = rng.normal(0, 1, (n, m)) * rng.uniform(0.5, 1.5, m) + rng.normal(0, 0.7, (n, 1))
    return e.T @ e / n


@pytest.mark.parametrize("reference", ["own", "pooled"])
def test_regression_sums_are_those_of_the_rows(reference):
    rng = np.random.default_rng(0)
    delta, y, offset = random_rows(rng)
    shift = offset if reference == "pooled" else 0 * offset
    parts = [
        regression_sums(GeneMoments.of(delta[:, s], y[s], offset[s]), reference) for s in (slice(30), slice(30, 90))
    ]
    ours = merge_sums(parts)
    for g in range(5):
        x, t = (delta[:, :, g] + shift[:, g]).T, y[:, g] + shift[:, g]
        np.testing.assert_allclose(ours.raw_gram()[g], x.T @ x, rtol=1e-10)
        np.testing.assert_allclose(ours.raw_cross()[g], x.T @ t, rtol=1e-10)
        np.testing.assert_allclose(ours.error_gram()[g], (x - t[:, None]).T @ (x - t[:, None]), rtol=1e-8, atol=1e-8)
        w, b = rng.normal(size=(5, 2, 4)), rng.normal(size=(5, 2))
        sse = ((t[:, None] - x @ w[g].T - b[g]) ** 2).sum(axis=0)
        np.testing.assert_allclose(ours.squared_error(w, b)[g], sse, rtol=1e-9)


def test_ridge_path_is_scikit_learns_ridge():
    rng = np.random.default_rng(1)
    delta, y, offset = random_rows(rng)
    sums = regression_sums(GeneMoments.of(delta, y, offset), "own")
    strengths = np.array([1e-6, 0.1, 10.0])
    path = ridge_path(sums, strengths)
    for g in range(5):
        x = delta[:, :, g].T
        for i, strength in enumerate(strengths):
            peer = Ridge(alpha=strength * ((x - x.mean(0)) ** 2).sum() / 4).fit(x, y[:, g])
            np.testing.assert_allclose(path.weights[g, i], peer.coef_, rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(path.intercept[g, i], peer.intercept_, rtol=1e-7, atol=1e-9)


def test_ridge_towards_a_centre_is_ridge_on_what_the_centre_leaves():
    rng = np.random.default_rng(2)
    delta, y, offset = random_rows(rng)
    centre = np.array([0.4, 0.1, 0.3, 0.2])
    path = ridge_path(regression_sums(GeneMoments.of(delta, y, offset), "own"), np.array([0.7]), toward=centre)
    x = delta[:, :, 2].T
    peer = Ridge(alpha=0.7 * ((x - x.mean(0)) ** 2).sum() / 4).fit(x, y[:, 2] - x @ centre)
    np.testing.assert_allclose(path.weights[2, 0], centre + peer.coef_, rtol=1e-8)


def test_penalty_choice_is_that_of_ridge_cv():
    """RidgeCV sees the rows and refits per fold; we see sums. Same mean squared error per penalty, same choice."""
    rng = np.random.default_rng(3)
    delta, y, offset = random_rows(rng)
    folds = np.repeat([0, 1, 2], 30)
    parts = [
        regression_sums(GeneMoments.of(delta[:, folds == k], y[folds == k], offset[folds == k]), "own")
        for k in range(3)
    ]
    whole = merge_sums(parts)
    scale, strengths = penalty_scale(whole), np.logspace(-3, 2, 12)
    splits = [(merge_sums([p for j, p in enumerate(parts) if j != k]), parts[k]) for k in range(3)]
    error = cross_validated_error(splits, strengths, scale=scale)
    for g in range(5):
        x = delta[:, :, g].T
        peer = RidgeCV(alphas=strengths * scale[g], cv=PredefinedSplit(folds), scoring="neg_mean_squared_error")
        peer.fit(x, y[:, g])
        assert strengths[np.argmin(error[g])] * scale[g] == pytest.approx(peer.alpha_)
        np.testing.assert_allclose(error[g].min() / 90, -peer.best_score_, rtol=1e-6)


def test_a_model_that_is_not_available_gets_no_weight():
    rng = np.random.default_rng(4)
    delta, y, offset = random_rows(rng)
    there = np.ones((5, 4), dtype=bool)
    there[1, 2] = False
    sums = regression_sums(GeneMoments.of(delta, y, offset, available=there), "own")
    path = ridge_path(sums, np.array([0.1]), toward=np.full(4, 0.25))
    assert path.weights[1, 0, 2] == 0 and (path.weights[0, 0] != 0).all()
    x = np.delete(delta[:, :, 1].T, 2, axis=1)
    peer = Ridge(alpha=0.1 * ((x - x.mean(0)) ** 2).sum() / 3).fit(x, y[:, 1] - x @ np.full(3, 0.25))
    np.testing.assert_allclose(np.delete(path.weights[1, 0], 2), 0.25 + peer.coef_, rtol=1e-8)


@given(st.integers(0, 10_000), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_simplex_is_quadprogs(seed, m):
    gram = random_gram(np.random.default_rng(seed), m)
    ours = simplex_weights(gram)
    a = np.column_stack([np.ones(m), np.eye(m)])
    peer = quadprog.solve_qp(2 * gram, np.zeros(m), a, np.r_[1.0, np.zeros(m)], meq=1)[0]
    assert ours @ gram @ ours <= peer @ gram @ peer * (1 + 1e-9)
    np.testing.assert_allclose(ours, peer, atol=1e-6)
    assert kkt_residual_simplex(gram, ours) < 1e-10


def test_simplex_beyond_enumeration_and_by_a_general_solver():
    rng = np.random.default_rng(5)
    gram = random_gram(rng, 16, n=80)
    ours, peer = simplex_weights(gram), slsqp_simplex(gram)
    assert ours @ gram @ ours <= peer @ gram @ peer * (1 + 1e-8)
    assert kkt_residual_simplex(gram, ours) < 1e-8
    small = random_gram(rng, 6)
    np.testing.assert_allclose(_projected_gradient(small / np.trace(small) * 6), simplex_weights(small), atol=1e-7)


def test_simplex_by_hand():
    """Uncorrelated errors of variance 1 and 3: weights 3/4 and 1/4, value 3/4. A perfect model takes everything."""
    np.testing.assert_allclose(simplex_weights(np.diag([1.0, 3.0])), [0.75, 0.25])
    np.testing.assert_allclose(simplex_weights(np.diag([1.0, 0.0])), [0.0, 1.0])
    np.testing.assert_allclose(simplex_weights(np.zeros((2, 2))), [1.0, 0.0])


def test_simplex_with_duplicates_keeps_the_value():
    gram = random_gram(np.random.default_rng(6), 4)
    at = [0, 1, 1, 2, 3, 3]
    value = lambda w, e: w @ e @ w  # noqa: E731
    twice = gram[np.ix_(at, at)]
    assert value(simplex_weights(twice), twice) == pytest.approx(value(simplex_weights(gram), gram), rel=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_gene_simplex_equals_enumeration_gene_by_gene(seed):
    rng = np.random.default_rng(seed)
    grams = np.stack([random_gram(rng, 5) for _ in range(8)])
    there = np.ones((8, 5), dtype=bool)
    there[3, 2] = there[5, 0] = there[5, 1] = False
    ours = gene_simplex_weights(grams, there, grams.sum(axis=0), pull=0.0)
    for g in range(8):
        at = np.flatnonzero(there[g])
        np.testing.assert_allclose(ours[g, at], simplex_weights(grams[g][np.ix_(at, at)]), atol=1e-7)
        assert (ours[g, ~there[g]] == 0).all()
    assert kkt_residuals(grams, ours, there).max() < 1e-8
    far = gene_simplex_weights(grams[:3], there[:3], grams.sum(axis=0), pull=1e9)
    np.testing.assert_allclose(far, np.tile(simplex_weights(grams.sum(axis=0)), (3, 1)), atol=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_nonneg_is_scipys_nnls(seed, m):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (50, m)) + rng.normal(0, 1, (50, 1))
    t = x @ rng.normal(0, 0.5, m) + rng.normal(0, 1, 50)
    np.testing.assert_allclose(nonneg_weights(x.T @ x, x.T @ t), nnls(x, t)[0], atol=1e-7)


def test_nonneg_with_duplicates_and_nothing_to_gain():
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (50, 2))
    x = x[:, [0, 0, 1]]
    t = x @ [0.5, 0.0, 0.3]
    w = nonneg_weights(x.T @ x, x.T @ t)
    np.testing.assert_allclose(x @ w, t, atol=1e-6)
    assert (nonneg_weights(np.eye(3), -np.ones(3)) == 0).all()


def test_greedy_is_the_loop_over_rows():
    rng = np.random.default_rng(8)
    errors = rng.normal(0, 1, (70, 6)) * rng.uniform(0.5, 1.5, 6) + rng.normal(0, 0.6, (70, 1))
    np.testing.assert_array_equal(greedy_counts(errors.T @ errors, 30), loop_greedy(errors, 30))
    one, two = (bagged_greedy(errors.T @ errors, 20, 8, share=0.5, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.sum() == pytest.approx(1.0) and (one >= 0).all()


def test_inverse_errors_by_hand():
    np.testing.assert_allclose(inverse_error_weights(np.array([[1.0, 2.0], [0.0, 5.0]])), [[2 / 3, 1 / 3], [1.0, 0.0]])


def test_empirical_bayes_finds_the_spread_of_known_weights():
    """Weights drawn around (0.6, 0.3) with spread 0.15, 400 genes, 60 rows: centre and spread come back, and the
    posterior is nearer to the truth than least squares and than the centre."""
    rng = np.random.default_rng(9)
    g, n, centre = 400, 60, np.array([0.6, 0.3])
    truth = centre + rng.normal(0, 0.15, (g, 2))
    delta = rng.normal(0, 1, (2, n, g))
    y = np.einsum("gm,mng->ng", truth, delta) + rng.normal(0, 2, (n, g))
    sums = regression_sums(GeneMoments.of(delta, y, np.zeros((n, g))), "own")
    found = empirical_bayes(sums, 1.0)
    np.testing.assert_allclose(found.centre, centre, atol=0.03)
    np.testing.assert_allclose(np.sqrt(np.diag(found.spread)), 0.15, atol=0.05)
    least = ridge_path(sums, np.array([1e-9])).weights[:, 0]
    error = lambda w: float(((w - truth) ** 2).mean())  # noqa: E731
    assert error(found.weights) < 0.6 * error(least)
    assert error(found.weights) < 0.9 * error(np.tile(found.centre, (g, 1)))
