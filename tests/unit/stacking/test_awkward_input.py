"""Awkward and bad input through ``ps.stack`` with every combiner: the right answer, or a clear error.

The same list through the command line is in ``tests/e2e/test_stack_bad_input.py``.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pertstack import stack
from pertstack._base.errors import InputError, MisalignedError, UnknownNameError
from pertstack.stacking.registry import COMBINERS
from references.small_world import small_world

EVERY = [name for name, c in COMBINERS.items() if name not in ("shared_mlp", "embedding_ridge")]
AFFINE = ("mean", "median", "trimmed_mean", "winsorised_mean", "simplex", "greedy_mse", "greedy_r2", "inverse_mse")


def fit(world, combiners=None, **options):
    arguments = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # probes: these models carry no mark of the folds
        return stack(world["predictions"], **{**arguments, **options}, combiners=combiners or EVERY)


def sound(found, rows):
    """Every combiner was fitted, says finite things and scores every row."""
    assert not found.nested.failures
    for name in found.nested.names:
        for array in found.nested.final[name].arrays().values():
            assert np.isfinite(array).all(), name
        if name in found.scores.names:
            assert int(found.scores.predicted[found.scores.names.index(name)].sum()) == rows, name
            assert np.isfinite(found.scores.mean(name, "r2_top20@pooled").value), name


def combined(found, world, name):
    return found.predict(world["predictions"], control=world["control"], cell_line=world["cell_line"], combiner=name)


def test_one_model_is_itself_in_every_average():
    world = small_world(n_models=1)
    found = fit(world)
    sound(found, 120)
    assert found.chosen == "best_single"
    for name in (*AFFINE, "best_single", "rank_average", "selector", "gene_simplex"):
        if name != "rank_average":
            np.testing.assert_allclose(combined(found, world, name), world["predictions"]["m0"], atol=1e-4)


def test_a_duplicate_takes_nothing_from_the_answer():
    world = small_world()
    doubled = {**world, "predictions": {**world["predictions"], "again": world["predictions"]["m0"].copy()}}
    plain, found = fit(world, ["simplex", "global_ridge"]), fit(doubled)
    sound(found, 120)
    assert found.choice.best_single == plain.choice.best_single == "m0"
    np.testing.assert_allclose(combined(found, doubled, "simplex"), combined(plain, world, "simplex"), atol=2e-3)


def test_models_that_are_all_the_same_leave_the_single_one():
    world = small_world()
    same = {**world, "predictions": {f"m{i}": world["predictions"]["m0"].copy() for i in range(3)}}
    found = fit(same)
    sound(found, 120)
    assert found.chosen == "best_single"
    for name in (*AFFINE, "best_single", "selector", "gene_simplex"):
        np.testing.assert_allclose(combined(found, same, name), same["predictions"]["m0"], atol=1e-4)


@pytest.mark.parametrize("constant", ["the control", "one number"])
def test_a_constant_model_is_no_best_single_and_breaks_nothing(constant):
    world = small_world()
    values = world["control"].copy() if constant == "the control" else np.full_like(world["control"], 8.0)
    found = fit({**world, "predictions": {"flat": values, **world["predictions"]}})
    sound(found, 120)
    assert found.choice.best_single == "m0"
    plain = fit(world)
    for name in ("global_ridge", "direct_pooled", "selector", "soft_gate", found.chosen):
        with_it, without = (f.scores.mean(name, "r2_top20@pooled").value for f in (found, plain))
        assert with_it > without - 0.015, name


@pytest.mark.parametrize("missing", ["genes", "rows", "a fold"])
def test_what_a_model_lacks_the_others_fill(missing):
    world = small_world()
    predictions = {m: p.copy() for m, p in world["predictions"].items()}
    where = {"genes": np.s_[:, :10], "rows": np.s_[::5], "a fold": world["folds"] == 1}[missing]
    predictions["m1"][where] = np.nan
    sound(fit({**world, "predictions": predictions}), 120)


def test_a_gene_that_nobody_predicts_is_named():
    world = small_world()
    predictions = {m: p.copy() for m, p in world["predictions"].items()}
    for p in predictions.values():
        p[:, 3] = np.nan
    with pytest.raises(InputError, match=r"No model predicts 1 of 30 genes .*gene_3"):
        fit({**world, "predictions": predictions}, ["mean"])


def test_a_fold_without_a_cell_line():
    world = small_world()
    kept = ~((world["cell_line"] == "line1") & (world["folds"] == 2))
    part = {k: world[k][kept] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    part["predictions"] = {m: p[kept] for m, p in world["predictions"].items()}
    sound(fit(part), int(kept.sum()))


def test_fewer_rows_than_models():
    found = fit(small_world(n=9, n_groups=9, n_models=10))
    sound(found, 9)
    assert any("Only 9 groups" in r for r in found.choice.reasons)


def test_genes_never_seen_have_no_weights():
    world = small_world()
    found = fit(world, ["gene_ridge"])
    for change in (lambda a: a[:, :20], lambda a: np.hstack([a, a[:, :5]])):
        other = {m: change(p) for m, p in world["predictions"].items()}
        with pytest.raises(MisalignedError, match="weights were learned for 30"):
            found.predict(other, control=change(world["control"]), cell_line=world["cell_line"])


def test_unknown_combiners_show_the_near_ones():
    with pytest.raises(UnknownNameError, match="simplex"):
        fit(small_world(), ["simplx"])
