"""``CombinerEstimator`` keeps scikit-learn's contract as far as it applies: X has three axes, so checks that make a
two-dimensional X of their own do not."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks as sk
from sklearn.utils import get_tags

import pertstack as ps

CONTRACT = (
    sk.check_no_attributes_set_in_init,
    sk.check_parameters_default_constructible,
    sk.check_get_params_invariance,
    sk.check_set_params,
    sk.check_do_not_raise_errors_in_init_or_set_params,
    sk.check_estimator_cloneable,
    sk.check_estimator_repr,
    sk.check_valid_tag_types,
    sk.check_mixin_order,
)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(4)
    n, genes = 60, 12
    control, effect = rng.normal(8, 1, (n, genes)), rng.normal(0, 1, (n, genes))
    models = [control + effect + rng.normal(0, s, (n, genes)) for s in (0.5, 1.0)]
    X = np.stack([control, *models], axis=1).astype(np.float32)
    return X, (control + effect).astype(np.float32), np.arange(n) % 3


@pytest.mark.parametrize("check", CONTRACT, ids=lambda c: c.__name__)
def test_contract_of_scikit_learn(check):
    check("CombinerEstimator", ps.CombinerEstimator())


def test_tags_say_what_x_is():
    tags = get_tags(ps.CombinerEstimator())
    assert tags.estimator_type == "regressor" and tags.target_tags.multi_output
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array and tags.input_tags.allow_nan


def test_predict_before_fit(world):
    with pytest.raises(NotFittedError, match="call fit"):
        ps.CombinerEstimator().predict(world[0])


@pytest.mark.parametrize("combiner", ["simplex", "gene_ridge"])
def test_fit_returns_self_keeps_its_input_and_repeats(world, combiner):
    X, y, folds = world
    before = X.copy(), y.copy()
    model = ps.CombinerEstimator(combiner)
    assert model.fit(X, y, folds=folds) is model
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    state = dict(vars(model))
    first = model.predict(X)
    assert vars(model) == state
    np.testing.assert_array_equal(clone(model).fit(X, y, folds=folds).predict(X), first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), first)
    np.testing.assert_allclose(model.predict(X[::-1])[::-1], first, rtol=1e-6)  # rows do not depend on each other
    np.testing.assert_allclose(model.predict(X[:7]), first[:7], rtol=1e-6)
    assert model.score(X, y) > 0.5
