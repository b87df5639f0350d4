"""Weights that are wrong, unstable or not worth having: pitfalls 6, 8, 9, 10, 14; L18, L19, L20, P13, P29."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize

import pertstack as ps
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiner import Combiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.registry import make_combiner
from references.small_world import as_source, small_world


def evidence_of(world, **changes) -> Evidence:
    source, references = as_source(world, **changes)
    return Evidence(reduce_blocks(source, references, k=20), "pooled", "r2_top20@pooled", 0, source, references)


def stacked(world, combiners, **changes):
    w = {**world, **changes}
    given = {k: w[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    return ps.stack(w["predictions"], **given, combiners=combiners, trust_partial=True)


def pooled_errors(world):
    """(M, n * genes) errors against the pooled reference, gene by gene centred on nothing."""
    y = world["treated"].astype(float).ravel()
    return np.stack([y - p.astype(float).ravel() for p in world["predictions"].values()])


def test_simplex_weights_are_those_of_the_simplex_not_nnls_divided_by_its_sum():
    """L18: NNLS, then divided by the sum, was 1.6 to 42 % above the optimum; L19: SLSQP gave sums of 1.32."""
    world = small_world(n=150, n_groups=30, n_models=4, scale=[1.0, 0.3, 2.0, 0.7], seed=3)
    fitted = make_combiner("simplex").fit(evidence_of(world))
    weights = np.asarray(fitted.weights()["mean"])
    e = pooled_errors(world)
    gram = e @ e.T / e.shape[1]
    best = minimize(
        lambda w: w @ gram @ w,
        np.full(4, 0.25),
        jac=lambda w: 2 * gram @ w,
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    ).fun
    assert weights.sum() == pytest.approx(1, abs=1e-9) and weights.min() >= 0
    assert weights @ gram @ weights <= best * (1 + 1e-6)
    y = world["treated"].astype(float).ravel() - world["control"].astype(float).ravel()
    f = np.stack([(p - world["control"]).astype(float).ravel() for p in world["predictions"].values()])
    import scipy.optimize

    nnls = scipy.optimize.nnls(f.T, y)[0]
    nnls /= nnls.sum()
    assert nnls @ gram @ nnls > 1.005 * (weights @ gram @ weights)


def test_weights_are_the_same_in_every_run_and_any_model_order():
    """L19: two runs, two answers."""
    world = small_world(n=150, n_groups=30, seed=6)
    names = ["simplex", "gene_ridge", "direct_pooled", "gene_simplex"]
    first, second = (stacked(world, names) for _ in range(2))
    assert first.weights == second.weights
    turned = dict(reversed(world["predictions"].items()))
    other = stacked(world, ["simplex"], predictions=turned).weights["simplex"]
    by_name = dict(zip(other["models"], other["mean"], strict=True))
    again = dict(zip(first.weights["simplex"]["models"], first.weights["simplex"]["mean"], strict=True))
    assert by_name == pytest.approx(again, abs=1e-6)


class Fragile(Combiner):
    """Fails in one fold."""

    name = "fragile"
    complexity = 1
    family = "global"
    needs = ()

    def fit(self, evidence):
        if 0 not in evidence.folds:
            raise np.linalg.LinAlgError("singular")
        return make_combiner("mean").fit(evidence)


def test_a_learner_that_fails_in_one_fold_is_out_with_its_reason_and_the_others_stay():
    """L20: elsewhere its whole column becomes 0 and gets a weight."""
    source, references = as_source(small_world(n=90, n_groups=18))
    reduction = reduce_blocks(source, references, k=10)
    nested = fit_nested(["simplex", Fragile()], reduction, source=source, references=references)
    assert "fragile" not in nested.names and "simplex" in nested.names
    assert [str(f) for f in nested.failures] == ["fragile could not be fitted without 0: LinAlgError: singular"]


def test_a_model_that_is_nowhere_predicted_in_one_fold_is_not_taken_for_zero():
    """L20, P13: a gap is a gap: the other models answer there, the loss is counted."""
    world = small_world(n=90, n_groups=18, n_models=3, errors=[0.4, 0.8, 0.9])
    holes = {k: p.copy() for k, p in world["predictions"].items()}
    fold = np.asarray(world["folds"])
    holes["m0"][fold == 1] = np.nan
    fit = stacked(world, ["mean", "median", "simplex"], predictions=holes)
    n = int((fold != 1).sum())
    assert int(np.isfinite(fit.scores.values("m0", "r2_top20@pooled")).sum()) == n
    rest = stacked(world, ["mean", "median"], predictions={k: holes[k] for k in ("m1", "m2")})
    in_fold = fit.scores.samples["fold"].to_numpy() == 1
    for name in ("mean", "median"):
        ours, theirs = (f.scores.values(name, "r2_top20@pooled") for f in (fit, rest))
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(
            ours[in_fold], theirs[rest.scores.samples["fold"].to_numpy() == 1], atol=1e-5, err_msg=name
        )


def test_near_copies_are_named_and_do_not_blow_up_weights():
    """Pitfalls 6 and 10: five copies of one model: one cluster, an effective number near one, weights below 5."""
    world = small_world(n=120, n_groups=24, n_models=2, errors=[0.5, 0.9])
    rng = np.random.default_rng(0)
    base = world["predictions"]["m0"]
    copies = {f"copy{i}": base + rng.normal(0, 1e-4, base.shape).astype(np.float32) for i in range(4)}
    both = {**world["predictions"], **copies}
    fit = stacked(world, ["global_ridge", "gene_ridge", "nonneg"], predictions=both)
    for name in ("global_ridge", "gene_ridge", "nonneg"):
        assert np.abs(fit.weights[name]["mean"]).max() < 5, name
    from pertstack.reduce.diversity import Diversity

    found = Diversity.of(evidence_of(world, predictions=both).reduction).to_json()
    assert sorted(map(sorted, found["redundancy"]["clusters"])) == [sorted(["m0", *copies])]
    assert found["effective_number"]["participation"] < 2.5


def test_models_on_other_scales_do_not_decide_the_mixture():
    """Pitfall 8: one model ten times too bold. Standardised means are immune, and the slope says what is wrong."""
    world = small_world(n=150, n_groups=30, n_models=3, errors=[0.4, 0.5, 2.0])
    loud = {k: p.copy() for k, p in world["predictions"].items()}
    loud["m2"] = world["control"] + 10 * (loud["m2"] - world["control"])
    quiet, shouted = (
        stacked(world, ["rank_average", "mean", "standardised_mean"], predictions=p).leaderboard["r2_top20@pooled"]
        for p in (world["predictions"], loud)
    )
    lost = quiet - shouted
    assert lost["mean"] > 0.05
    assert lost["standardised_mean"] < 0.3 * lost["mean"] and lost["rank_average"] < 0.3 * lost["mean"], lost
    from pertstack.study.steps.stack import slopes_of

    slopes = slopes_of(evidence_of(world, predictions=loud).reduction)
    assert slopes["m2"] == pytest.approx(slopes_of(evidence_of(world).reduction)["m2"] / 10, rel=0.05)


def test_no_gain_means_that_the_best_single_model_ships():
    """Pitfall 9: one model with all the signal, four of noise; the mean loses and nothing richer may ship."""
    rng = np.random.default_rng(2)
    world = small_world(n=150, n_groups=30, n_models=1, errors=[0.4])
    noise = {f"noise{i}": world["control"] + rng.normal(size=world["control"].shape) for i in range(4)}
    fit = stacked(world, ["mean", "median", "simplex"], predictions={**world["predictions"], **noise})
    assert fit.chosen == "best_single" and fit.choice.best_single == "m0"
    board = fit.leaderboard["r2_top20@pooled"]
    assert board["mean"] < board["m0"] and {"mean", "median", "best_single"} <= set(board.index)
    assert "no combination" in " ".join(fit.choice.reasons).casefold()


def test_memory_of_the_one_pass_does_not_grow_with_the_number_of_rows():
    """Pitfall 14: sums and one tile, whatever N (slices, 0.2 % of the data, excepted)."""

    def peak(n: int) -> int:
        rng = np.random.default_rng(0)
        treated, control = rng.normal(size=(2, n, 200)).astype(np.float32)
        predictions = {f"m{i}": rng.normal(size=(n, 200)).astype(np.float32) for i in range(4)}
        who = np.arange(n) % 30
        source = ArraySource(predictions, treated, control, folds=who % 3, perturbation=[f"d{w}" for w in who])
        references = References.collect(source)
        reduce_blocks(source, references, k=10, memory=2_000_000)
        tracemalloc.start()
        reduce_blocks(source, references, k=10, memory=2_000_000)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    small, large = peak(1500), peak(6000)
    assert large - small < 0.25 * 4500 * 200 * 4 * 6  # a quarter of the rows that came on top


def test_a_gain_within_noise_does_not_ship():
    """Pitfall 9: three copies with a little noise; the mean is better by chance at most."""
    world = small_world(n=90, n_groups=18, n_models=1, errors=[0.6])
    rng = np.random.default_rng(4)
    base = world["predictions"]["m0"]
    copies = {f"m{i}": (base + rng.normal(0, 0.02, base.shape)).astype(np.float32) for i in range(3)}
    fit = stacked(world, ["mean", "median"], predictions=copies)
    assert fit.chosen == "best_single" and not fit.choice.marked
    assert [r.passed for r in fit.choice.ladder] and not any(r.passed for r in fit.choice.ladder)
    assert all(r.bound <= 0 for r in fit.choice.ladder)
