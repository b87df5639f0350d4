"""Groups of genes, cell lines, features and calibration: each against rows and another library."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from pertstack._base.errors import InputError, MissingFileError, UnknownNameError
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiners.gene_weights.calibrated import scale_factors
from pertstack.stacking.combiners.gene_weights.gene_groups import by_clusters, by_quantile, by_sets, read_gmt
from pertstack.stacking.combiners.gene_weights.gene_ridge import choose_strengths
from pertstack.stacking.combiners.global_weights.ridge import global_ridge
from pertstack.stacking.combiners.row_weights.feature_weighted import expanded, gene_features
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiner
from references.small_world import as_source, small_world
from references.stack_loops import rows_of


def evidence_of(world, **changes):
    source, references = as_source(world, **changes)
    return Evidence(reduce_blocks(source, references), source=source, references=references)


def test_global_ridge_is_ridge_on_all_rows_and_genes():
    world = small_world()
    x, t = rows_of(world)
    flat, target = x.transpose(0, 2, 1).reshape(-1, 4), t.ravel()
    weights, facts, _ = global_ridge(evidence_of(world).sums, [], "zero")
    alpha = facts["strength"] * (flat**2).sum() / 4
    np.testing.assert_allclose(weights, Ridge(alpha=alpha, fit_intercept=False).fit(flat, target).coef_, rtol=1e-4)
    equal, facts, _ = global_ridge(evidence_of(world).sums, [], "equal")
    peer = Ridge(alpha=alpha, fit_intercept=False).fit(flat, target - flat @ np.full(4, 0.25))
    np.testing.assert_allclose(equal, 0.25 + peer.coef_, rtol=1e-4)


def test_strong_penalties_win_ties_and_shared_choice_sums_over_genes():
    error = np.array([[3.0, 1.0, 1.0], [1.0, 2.0, 9.0]])
    np.testing.assert_array_equal(choose_strengths(error, "gene"), [2, 0])
    np.testing.assert_array_equal(choose_strengths(error, "shared"), [1, 1])


def test_shrunken_lies_between_global_and_gene():
    """Genes that need different weights: per-gene weights differ a lot, shrunken ones less, global ones not at all."""
    world = small_world(n=90)
    evidence = evidence_of(world)
    spread = {n: make_combiner(n).fit(evidence).coefficients.std(axis=0).sum() for n in ("gene_ridge", "gene_shrunken")}
    assert 0 < spread["gene_shrunken"] < spread["gene_ridge"]


def test_quantile_groups_by_hand():
    np.testing.assert_array_equal(by_quantile(np.array([5.0, 1.0, 3.0, 2.0, 4.0, 9.0]), 3), [2, 0, 1, 0, 1, 2])


def test_gene_sets_of_a_file(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("first\tdesc\tgene_0\tgene_1\nsecond\tdesc\tgene_1\tgene_2\n\n", encoding="utf-8")
    sets = read_gmt(path)
    assert sets == {"first": ("gene_0", "gene_1"), "second": ("gene_1", "gene_2")}
    np.testing.assert_array_equal(by_sets(["gene_0", "gene_1", "gene_2", "other"], sets), [0, 0, 1, 2])
    with pytest.raises(InputError, match="None of the study's 2 genes"):
        by_sets(["ENSG1", "ENSG2"], sets)
    with pytest.raises(MissingFileError):
        read_gmt(tmp_path / "absent.gmt")
    path.write_text("broken line\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        read_gmt(path)


@pytest.mark.parametrize("by", ["variance", "level", "cluster"])
def test_gene_groups_share_their_weights(by):
    fitted = make_combiner("gene_groups", by=by, n_groups=3).fit(evidence_of(small_world()))
    assert len(np.unique(fitted.coefficients.round(12), axis=0)) <= 3
    assert sum(fitted.facts["sizes"]) == 30


def test_gene_groups_by_file_and_bad_requests(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("s\td\t" + "\t".join(f"gene_{i}" for i in range(10)) + "\n", encoding="utf-8")
    evidence = evidence_of(small_world())
    fitted = make_combiner("gene_groups", by="gmt", gmt=str(path)).fit(evidence)
    assert fitted.facts["sizes"] == [10, 20]
    with pytest.raises(InputError, match="GMT file"):
        make_combiner("gene_groups", by="gmt").fit(evidence)
    with pytest.raises(UnknownNameError, match="cluster"):
        make_combiner("gene_groups", by="clusters").fit(evidence)
    with pytest.raises(InputError, match="references"):
        make_combiner("gene_groups", by="level").fit(Evidence(evidence.reduction))


def test_clusters_find_genes_that_need_the_same_models():
    """Model m0 is right on even genes, m1 on odd ones: two clusters of weights are exactly these."""
    world = small_world(n=300, n_models=2, errors=[0.2, 0.2])
    odd = np.arange(30) % 2 == 1
    rng = np.random.default_rng(0)
    predictions = {m: p.copy() for m, p in world["predictions"].items()}
    predictions["m0"][:, odd] += rng.normal(0, 3, (300, 15)).astype(np.float32)
    predictions["m1"][:, ~odd] += rng.normal(0, 3, (300, 15)).astype(np.float32)
    labels = by_clusters(evidence_of(world, predictions=predictions).sums, 2, 0)
    assert len(set(labels[odd])) == len(set(labels[~odd])) == 1 and labels[0] != labels[1]


def test_scale_factors_bring_models_to_the_size_of_the_truth():
    """Exact multiples of the truth at 1/2, 1/1.25, 1, 10: factors 2, 1.25, 1 and, clipped, 0.5."""
    world = small_world(noise=0.3)
    _, t = rows_of(world)
    base = world["treated"].astype(float) - t
    factors = (0.5, 0.8, 1.0, 10.0)
    predictions = {f"m{i}": (base + f * t).astype(np.float32) for i, f in enumerate(factors)}
    found = scale_factors(evidence_of(world, predictions=predictions).sums, 100)
    np.testing.assert_allclose(found, [2.0, 1.25, 1.0, 0.5], rtol=1e-3)
    fitted = make_combiner("calibrated").fit(evidence_of(world, predictions=predictions))
    assert any("m3" in c and "limit" in c for c in fitted.cautions)


def test_cell_line_weights_follow_their_line():
    """m0 is good in line0 and m1 in line1; a line never seen gets the common weights."""
    world = small_world(n=400, n_models=2, errors=[0.3, 0.3])
    rng = np.random.default_rng(1)
    predictions = {m: p.copy() for m, p in world["predictions"].items()}
    for model, line in (("m0", "line1"), ("m1", "line0")):
        at = world["cell_line"] == line
        predictions[model][at] += rng.normal(0, 2, predictions[model][at].shape).astype(np.float32)
    fitted = make_combiner("cell_line_shrunken").fit(evidence_of(world, predictions=predictions))
    zero, one = (fitted.for_line(line)[0] for line in ("line0", "line1"))
    assert zero[0] > 3 * abs(zero[1]) and one[1] > 3 * abs(one[0])
    np.testing.assert_array_equal(fitted.for_line("elsewhere")[0], fitted.coefficients)


def test_feature_weighted_sums_are_those_of_the_expanded_rows():
    world = small_world()
    evidence = evidence_of(world)
    features, names = gene_features(evidence, evidence.sums)
    assert names == ("one", "log_power", "agreement", "level")
    np.testing.assert_allclose(features[:, 1:].mean(axis=0), 0, atol=1e-9)
    x, t = rows_of(world)
    rows = np.einsum("gj,nmg->ngjm", features, x).reshape(-1, 16)
    ours = expanded(evidence.sums, features)
    np.testing.assert_allclose(ours.xx[0], rows.T @ rows, rtol=1e-3, atol=0.5)
    np.testing.assert_allclose(ours.xt[0], rows.T @ t.ravel(), rtol=1e-3, atol=0.5)


def test_feature_weighted_finds_weights_that_follow_a_feature():
    """m0 is good on genes of strong response, m1 on weak ones: the weight of m0 grows with log power."""
    world = small_world(n=300, n_models=2, errors=[0.2, 0.2], noise=0.3)
    _, t = rows_of(world)
    strong = (t**2).mean(axis=0) > np.median((t**2).mean(axis=0))
    rng = np.random.default_rng(2)
    predictions = {m: p.copy() for m, p in world["predictions"].items()}
    predictions["m0"][:, ~strong] += rng.normal(0, 2, (300, int((~strong).sum()))).astype(np.float32)
    predictions["m1"][:, strong] += rng.normal(0, 2, (300, int(strong.sum()))).astype(np.float32)
    fitted = make_combiner("feature_weighted").fit(evidence_of(world, predictions=predictions))
    slopes = fitted.facts["features"]["log_power"]
    assert slopes[0] > 0.05 > -0.05 > slopes[1]
