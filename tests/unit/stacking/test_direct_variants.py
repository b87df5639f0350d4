"""Direct weights per gene, per cell line and signed: value by a loop, gradient by finite differences, known worlds."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiners.row_weights.direct_cell_line import PULLS, Ends
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.direct_gene import TopRows, gene_deviations
from pertstack.stacking.registry import make_combiner, make_combiners
from pertstack.stacking.solvers.top_gene import top_gene_sums
from references.greedy_loops import loop_mean_r2
from references.small_world import as_source, small_world
from references.stack_loops import rows_of

EQUAL = np.full(4, 0.25)


def evidence_of(world, **changes):
    source, references = as_source(world, **changes)
    return Evidence(reduce_blocks(source, references), source=source, references=references)


def top_rows(world, k=10, reference="pooled", rows=None):
    slices = evidence_of(world).reduction.slices[reference]
    return TopRows.of(slices, reference, k, n_genes=30, usable=np.ones(4, dtype=bool), rows=rows)


@pytest.mark.parametrize("reference", ["own", "pooled"])
def test_value_of_weights_per_gene_is_that_of_the_loop(reference):
    world = small_world(n=50)
    x, t = rows_of(world, reference)
    tops = [np.argsort(-np.abs(row), kind="stable")[:10] for row in t]
    for weights in np.random.default_rng(0).normal(0.3, 0.3, (3, 30, 4)):
        value, _ = top_rows(world, reference=reference).value_and_gradient(weights)
        assert value == pytest.approx(loop_mean_r2(np.einsum("gm,nmg->ng", weights, x), t, tops), rel=1e-4)


def test_gradient_is_the_finite_difference():
    rows = top_rows(small_world(n=40))
    rng = np.random.default_rng(1)
    weights = rng.normal(0.25, 0.2, (30, 4))
    _, gradient = rows.value_and_gradient(weights)
    for g, m in zip(rng.integers(0, 30, 12), rng.integers(0, 4, 12), strict=True):
        step = np.zeros_like(weights)
        step[g, m] = 1e-5
        numeric = (rows.value_and_gradient(weights + step)[0] - rows.value_and_gradient(weights - step)[0]) / 2e-5
        assert gradient[g, m] == pytest.approx(numeric, rel=1e-4, abs=1e-8)


def test_deviations_leave_the_common_weights_only_as_far_as_they_are_paid_for():
    rows = top_rows(small_world(n=90, seed=2))
    away, value = [], []
    for strength in (np.inf, 10.0, 0.1, 0.001):
        weights = gene_deviations(rows, EQUAL, strength)
        away.append(float(((weights - EQUAL) ** 2).sum()))
        value.append(rows.value_and_gradient(weights)[0])
        assert (weights >= 0).all()
    assert away[0] == 0 and away == sorted(away) and value == sorted(value) and value[-1] > value[0] + 0.01


def test_genes_that_are_never_on_top_keep_the_common_weights():
    world = small_world(n=60)
    quiet = world["control"].astype(float)
    world["treated"][:, 7] = [quiet[world["cell_line"] == line, 7].mean() for line in world["cell_line"]]
    rows = top_rows(world, k=5)
    assert 7 not in rows.genes
    weights = gene_deviations(rows, EQUAL, 0.01)
    np.testing.assert_array_equal(weights[7], EQUAL)
    assert (weights[np.unique(rows.genes)] != EQUAL).any()


def specialists(by):
    """Model m0 is right where ``by`` is 0 and noise elsewhere, m1 the other way round."""
    world = small_world(n=240, n_groups=80, n_models=2, errors=[0.3, 0.3], noise=0.3, seed=8)
    noise = np.random.default_rng(9).normal(0, 2.0, (2, 240, 30)).astype(np.float32)
    where = by(world)
    world["predictions"]["m0"] = world["predictions"]["m0"] + np.where(where == 0, 0, noise[0]).astype(np.float32)
    world["predictions"]["m1"] = world["predictions"]["m1"] + np.where(where == 1, 0, noise[1]).astype(np.float32)
    return world


def test_gene_specialists_are_found():
    world = specialists(lambda w: (np.arange(30) % 2)[None, :])
    fitted = make_combiner("direct_gene").fit(evidence_of(world))
    share = fitted.coefficients / fitted.coefficients.sum(axis=1, keepdims=True)
    assert fitted.facts["value_in_sample"] > fitted.facts["value_of_common"] + 0.05
    assert share[::2, 0].mean() > 0.6 and share[1::2, 1].mean() > 0.6


def test_cell_line_specialists_are_found_and_alike_lines_share_their_weights():
    world = specialists(lambda w: (w["cell_line"] == "line1").astype(int)[:, None])
    fitted = make_combiner("direct_cell_line").fit(evidence_of(world))
    (first, _), (second, _) = fitted.by_cell_line["line0"], fitted.by_cell_line["line1"]
    assert first[0] / first.sum() > 0.8 and second[1] / second.sum() > 0.8
    alike = make_combiner("direct_cell_line").fit(evidence_of(small_world(seed=11)))
    assert alike.facts["pull"] is None or alike.facts["pull"] >= 30


def test_the_pull_counts_as_samples():
    ends = Ends(np.array([0.5, 0.5]), {"a": (np.array([1.0, 0.0]), 100)})
    np.testing.assert_allclose(ends.weights("a", 300.0), [0.625, 0.375])
    np.testing.assert_allclose(ends.weights("a", 0.0), [1.0, 0.0])
    np.testing.assert_allclose(ends.weights("a", PULLS[0]), [0.5, 0.5])
    np.testing.assert_allclose(ends.weights("never seen", 0.0), [0.5, 0.5])


def test_signed_weights_subtract_a_shared_error():
    """m1 is nothing but the error that m0 makes: subtracting it helps, and only signed weights can."""
    world = small_world(n=150, n_models=2, errors=[0.2, 0.2], seed=12)
    error = np.random.default_rng(0).normal(0, 1.5, (150, 30)).astype(np.float32)
    predictions = {"m0": world["predictions"]["m0"] + error, "m1": world["control"] + error}
    evidence = evidence_of(world, predictions=predictions)
    sums = top_gene_sums(evidence.reduction.slices["pooled"], "pooled", 20)
    signed, plain = (make_combiner(n).fit(evidence).coefficients for n in ("direct_signed", "direct_pooled"))
    assert signed[0] > 0 > signed[1] and (plain >= 0).all()
    assert sums.value(signed) > sums.value(plain) + 0.1


def test_variants_that_are_not_default_are_made_only_by_name():
    assert not {"direct_cell_line", "direct_gene"} & {c.name for c in make_combiners()}
    assert "direct_cell_line" in {c.name for c in make_combiners(["direct_cell_line"])}
    assert {"direct_pooled", "direct_signed", "mean"} <= {c.name for c in make_combiners()}


def test_a_constant_profile_gains_by_weights_per_gene_and_so_they_never_ship():
    """The one model says the same for every sample, the true mean. Each gene has a rare, large effect of one sign,
    at random: scaling genes to what they do when they are picked raises R2 Top-k on rows never seen, and the error."""
    rng = np.random.default_rng(0)
    n, genes = 800, 120
    usual, rare = rng.normal(0, 0.5, genes), 3.0 * rng.choice([-1, 1], genes)
    mean = usual + 0.1 * rare
    control = np.full((n, genes), 8.0, dtype=np.float32)
    effect = usual + rare * (rng.random((n, genes)) < 0.1)
    treated = (8 + effect + rng.normal(0, 0.3, (n, genes))).astype(np.float32)
    world = {
        "predictions": {"m0": np.tile(8 + mean, (n, 1)).astype(np.float32)},
        "treated": treated,
        "control": control,
        "folds": np.arange(n) % 4,
        "perturbation": np.arange(n).astype(str),
        "cell_line": np.repeat("a", n),
    }
    source, references = as_source(world)
    reduction = reduce_blocks(source, references)
    combiner = make_combiner("direct_gene", strength=0.01)
    fitted = combiner.fit(Evidence(reduction.select(folds=[0, 1, 2]), source=source, references=references))
    table = score(source, {"it": fitted.combine}, references, metrics=["r2_top20@pooled", "rmse_all@own"])
    held = (table.samples["fold"] == 3).to_numpy()
    value = {
        (name, m): table.values(name, m, r)[held].mean()
        for name in ("it", "m0")
        for m, r in (("r2_top20", "pooled"), ("rmse_all", "own"))
    }
    assert value["it", "r2_top20"] > value["m0", "r2_top20"] + 0.03
    assert value["it", "rmse_all"] > value["m0", "rmse_all"]
    assert not combiner.candidate
