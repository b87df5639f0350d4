"""Another primary metric is obeyed all the way: best single model inside every fold, choice, no-harm panel."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack import stack
from pertstack._base.errors import UnknownNameError
from pertstack.design.metric_names import metric_names, parse_metric
from pertstack.predictions.sources.some_rows import SomeRows
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choose import choose
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiner
from references.small_world import as_source, small_world

METRICS = [f"{m}@{r}" for m in metric_names(tops=(5,)) for r in ("own", "pooled", "centroid")]


def evidence_of(world, primary, folds=None):
    source, references = as_source(world)
    reduction = reduce_blocks(source, references)
    reduction = reduction if folds is None else reduction.select(folds=folds)
    return Evidence(reduction, "pooled", primary, source=source, references=references)


@pytest.mark.parametrize("primary", METRICS)
def test_singles_are_scored_by_the_metric_itself(primary):
    """Against the official scores of the rows the evidence may see."""
    world = small_world(n_groups=18, errors=[0.7, 0.75, 0.8, 0.85])
    evidence = evidence_of(world, primary, folds=[0, 2])
    found = evidence.singles
    rows = SomeRows.of_blocks(evidence.source, evidence.blocks)
    table = score(rows, {}, evidence.references, metrics=(primary,))
    sign = 1 if parse_metric(primary).higher_is_better else -1
    official = [sign * table.mean(m, primary).value for m in evidence.models]
    np.testing.assert_allclose(found.goodness, official, rtol=2e-4, atol=2e-5)
    assert found.metric == primary and not found.cautions and found.best == int(np.argmax(official))


@pytest.mark.parametrize("primary", ["spearman_all@own", "pds_l1@own", "pearson_all@centroid", "rmse_all@own"])
def test_rows_of_a_fold_that_is_left_out_do_not_matter(primary):
    world = small_world()
    other = {**world, "treated": world["treated"].copy()}
    other["predictions"] = {m: p.copy() for m, p in world["predictions"].items()}
    hidden = world["folds"] == 1
    other["predictions"]["m3"][hidden] = other["treated"][hidden]
    plain, changed = (evidence_of(w, primary, folds=[0, 2]).singles.goodness for w in (world, other))
    np.testing.assert_array_equal(plain, changed)
    with_it = evidence_of(other, primary).singles.goodness
    assert with_it[3] > plain[3]


def two_masters(n=180):
    """m0 knows the profile at two and a half times its size; m1 has the size and less of the profile."""
    return small_world(n=n, n_groups=36, n_models=2, errors=[0.3, 0.9], scale=[2.5, 0.6])


def fit(primary, **options):
    world = two_masters()
    arguments = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    return stack(world["predictions"], **arguments, primary=primary, **options)


def test_two_primaries_give_two_best_single_models():
    by_profile, by_error = fit("r2_top20@pooled"), fit("rmse_all@own")
    for found, single in ((by_profile, "m0"), (by_error, "m1")):
        assert found.choice.best_single == single
        assert {f.weights()["facts"]["chosen"] for f in found.nested.fits["best_single"].values()} == {single}
        assert found.choice.primary in ("r2_top20@pooled", "rmse_all@own")
        gains = found.choice.panel[next(iter(found.choice.panel))]
        assert gains[0].metric == found.choice.primary
    assert by_error.leaderboard.index[0] not in ("m0", "best_single")
    assert by_error.leaderboard["rmse_all@own"].is_monotonic_increasing
    assert by_error.choice.ladder[0].score < 0  # an error: turned, so that larger is better


def test_cod_and_the_centroid_are_obeyed_too():
    assert fit("cod_all", combiners=["mean"]).choice.best_single == "m1"
    assert fit("pearson_all@centroid", combiners=["mean"]).choice.best_single == "m0"


def test_the_rule_best_takes_the_highest_score():
    world = small_world(errors=[0.5, 0.52, 0.54, 0.56])
    arguments = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    found = stack(world["predictions"], **arguments, combiners=["simplex", "global_ridge"])
    best = choose(found.scores, found.nested, rule="best")
    names = [c.name for c in found.nested.combiners if c.candidate]
    assert best.chosen == max(names, key=lambda n: found.scores.mean(n, "r2_top20@pooled").value)
    assert "by the rule 'best'" in best.reasons[1]
    with pytest.raises(UnknownNameError, match="no_harm_ladder"):
        choose(found.scores, found.nested, rule="bets")


def test_without_rows_squared_error_stands_in_and_says_so():
    world = small_world()
    source, references = as_source(world)
    evidence = Evidence(reduce_blocks(source, references), "pooled", "spearman_all@own")
    fitted = make_combiner("best_single").fit(evidence)
    assert fitted.weights()["facts"]["metric"] == "mse_all" and any("squared error" in c for c in fitted.cautions)
