"""Stacking of arrays: the same blocks, reduction, fits and scores as a study, behind one call."""

from __future__ import annotations

import numpy as np
import pytest

import pertstack as ps
from pertstack._base.errors import InputError, MisalignedError, UnknownNameError
from pertstack.arrays import stack
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.nested import fit_nested
from references.small_world import as_source, small_world

KEYS = ("treated", "control", "folds", "perturbation", "cell_line")


@pytest.fixture(scope="module")
def world():
    return small_world(n=240, n_groups=48)


@pytest.fixture(scope="module")
def fit(world):
    return stack(world["predictions"], **{k: world[k] for k in KEYS})


def test_numbers_are_those_of_the_long_way(world, fit):
    source, references = as_source(world)
    nested = fit_nested(None, reduce_blocks(source, references), source=source, references=references)
    table = score(source, nested.combines(), references)
    for name in nested.names:
        if name != "no_change":
            expected = table.mean(name, "r2_top20@pooled").value
            assert fit.leaderboard.loc[name, "r2_top20@pooled"] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(
        fit.nested.final["gene_shrunken"].coefficients, nested.final["gene_shrunken"].coefficients
    )


def test_the_board_is_sorted_and_says_what_ships(fit):
    board = fit.leaderboard
    assert (board["r2_top20@pooled"].diff().dropna() <= 0).all()
    assert board.index[board["chosen"]].tolist() == [fit.chosen]
    assert {"m0", "best_single", "mean", "no_change"} <= set(board.index)
    assert not board.loc[fit.chosen, "marked"] and fit.choice.reasons


def test_weights_are_plain(fit):
    assert fit.weights["simplex"]["models"] == ["m0", "m1", "m2", "m3"]
    assert sum(fit.weights["simplex"]["mean"]) == pytest.approx(1.0)


def test_predictions_of_new_samples_come_back_in_their_order(world, fit):
    new = small_world(n=50, n_groups=10, seed=0)
    out = fit.predict(new["predictions"], control=new["control"], cell_line=new["cell_line"], combiner="mean")
    np.testing.assert_allclose(out, np.mean(list(new["predictions"].values()), axis=0), rtol=1e-5)
    chosen = fit.predict(new["predictions"], control=new["control"], cell_line=new["cell_line"])
    order = np.random.default_rng(0).permutation(50)
    shuffled = fit.predict(
        {m: p[order] for m, p in new["predictions"].items()},
        control=new["control"][order],
        cell_line=new["cell_line"][order],
    )
    np.testing.assert_allclose(shuffled, chosen[order], rtol=1e-6)


def test_flexible_weights_ship_only_when_the_models_never_met_the_folds(world):
    """Without nested fits the score of per-gene weights is not trusted; the caller may vouch for it."""
    careful = stack(world["predictions"], **{k: world[k] for k in KEYS})
    assert "partial nesting" in careful.choice.marked["gene_eb"]
    trusting = stack(world["predictions"], **{k: world[k] for k in KEYS}, trust_partial=True)
    assert "gene_eb" not in trusting.choice.marked


def test_differential_values_need_no_control(world):
    line = world["control"]
    deltas = {m: p - line for m, p in world["predictions"].items()}
    fit = stack(deltas, treated=world["treated"] - line, **{k: world[k] for k in KEYS[2:]}, combiners=["simplex"])
    assert fit.predict(deltas, cell_line=world["cell_line"]).shape == world["treated"].shape


def test_bad_input_is_refused(world, fit):
    arguments = {k: world[k] for k in KEYS}
    with pytest.raises(UnknownNameError, match="simplex"):
        stack(world["predictions"], **arguments, combiners=["simplx"])
    with pytest.raises(UnknownNameError, match="r2_top20"):
        stack(world["predictions"], **arguments, primary="r2_top20s")
    with pytest.raises(MisalignedError):
        stack({"a": world["treated"][:-1]}, **arguments)
    with pytest.raises(InputError, match="only one fold"):
        stack(world["predictions"], **{**arguments, "folds": np.zeros(240, dtype=int)})
    with pytest.raises(MisalignedError, match="m3"):
        fit.predict({m: world["predictions"][m] for m in ("m0", "m1", "m2")}, control=world["control"])
    with pytest.raises(UnknownNameError, match="mean"):
        fit.predict(world["predictions"], control=world["control"], combiner="meen")


def test_one_model_is_a_stack_of_one(world):
    one = {"m0": world["predictions"]["m0"]}
    fit = stack(one, **{k: world[k] for k in KEYS})
    assert fit.choice.best_single == "m0"
    assert np.isfinite(fit.predict(one, control=world["control"], cell_line=world["cell_line"])).all()


def test_a_new_cell_line_takes_the_mean_of_its_controls(world, fit):
    new = np.array(["new"] * 240)
    out = fit.predict(world["predictions"], control=world["control"], cell_line=new, combiner="nonneg")
    weights = fit.nested.final["nonneg"].coefficients
    pooled = world["control"].mean(axis=0, dtype=float)
    expected = pooled + sum(w * (p - pooled) for w, p in zip(weights, world["predictions"].values(), strict=True))
    np.testing.assert_allclose(out, expected, rtol=1e-4)
    with pytest.raises(InputError, match="cell_line="):
        fit.predict(world["predictions"], control=world["control"])


def test_it_is_public(world):
    """Also after the folder ``pertstack/stack`` was imported, whose name it shares."""
    import pertstack.stacking.nested as nested_module

    assert nested_module.fit_nested is fit_nested
    fit = ps.stack(world["predictions"], **{k: world[k] for k in KEYS}, combiners=["mean"])
    assert isinstance(fit, ps.StackFit)


def test_where_a_constant_beats_a_replicate_a_metric_has_no_vote():
    """Weak effects under a strong common response, every perturbation twice; the primary tells them apart."""
    rng = np.random.default_rng(2)
    drug = np.repeat(np.arange(60), 2)
    base, common, effect = rng.normal(8, 1, 60), rng.normal(0, 1, 60), rng.normal(0, 0.4, (60, 60))
    treated = base + common + effect[drug] + rng.normal(0, 0.9, (120, 60))
    control, folds = base + rng.normal(0, 0.9, (120, 60)), drug % 3
    one, two = (base + common + (effect + rng.normal(0, 0.5, (60, 60)))[drug] for _ in range(2))
    constant = np.stack([treated[folds != k].mean(axis=0) for k in folds])
    given = {"treated": treated, "control": control, "folds": folds, "perturbation": drug, "combiners": ["mean"]}
    models = {"constant": constant, "one": one, "two": two}
    found = ps.stack(models, primary="pearson_all@centroid", **given).choice
    assert set(found.no_vote) == {"r2_top20@own", "r2_top20@pooled"}
    assert not ps.stack(models, primary="r2_top20@pooled", **given).choice.no_vote, "the primary fails itself"
    single = {**given, **{k: given[k][::2] for k in ("treated", "control", "folds", "perturbation")}}
    once = ps.stack({m: p[::2] for m, p in models.items()}, primary="pearson_all@centroid", **single)
    assert not once.choice.no_vote, "nothing was measured twice"
