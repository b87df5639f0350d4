"""Greedy selection on R2 Top-k: the same models in the same numbers as a plain loop over rows."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiners.global_weights.greedy_r2 import bagged_greedy_r2, greedy_r2_counts
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import make_combiner
from pertstack.stacking.solvers.top_gene import top_gene_sums
from references.greedy_loops import loop_greedy_r2
from references.small_world import as_source, small_world
from references.stack_loops import rows_of


def evidence_of(world, **changes):
    source, references = as_source(world, **changes)
    return Evidence(reduce_blocks(source, references), source=source, references=references)


@pytest.mark.parametrize("start", [1, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counts_are_those_of_the_plain_loop(seed, start):
    world = small_world(n=45, seed=seed, n_models=5, scale=[0.5, 2.0, 1.0, 1.0, 3.0])
    sums = top_gene_sums(evidence_of(world).reduction.slices["pooled"], "pooled", 8)
    x, t = rows_of(world)
    np.testing.assert_array_equal(
        greedy_r2_counts(sums, 12, start=start), loop_greedy_r2(x, t, 8, rounds=12, start=start)
    )


def test_it_never_ends_below_the_best_single_model_in_sample():
    for seed in range(5):
        sums = top_gene_sums(evidence_of(small_world(seed=seed)).reduction.slices["pooled"], "pooled", 20)
        counts = greedy_r2_counts(sums, 20, start=4).astype(float)
        assert sums.value(counts) >= max(sums.value(w) for w in np.eye(4)) - 1e-12


def test_bags_average_greedy_runs_over_fewer_models_and_repeat_with_the_seed():
    sums = top_gene_sums(evidence_of(small_world()).reduction.slices["pooled"], "pooled", 20)
    usable = np.array([True, True, False, True])
    one, two = (
        bagged_greedy_r2(sums, 10, start=2, usable=usable, bags=7, share=0.7, rng=np.random.default_rng(5))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
    assert one.sum() == pytest.approx(1.0) and one[2] == 0 and (one >= 0).all()


def test_the_combiner_ships_counts_as_weights_and_says_which_models_are_left_out():
    world = small_world()
    predictions = {k: v.copy() for k, v in world["predictions"].items()}
    predictions["m0"][:, :25] = np.nan
    fitted = make_combiner("greedy_r2").fit(evidence_of(world, predictions=predictions))
    assert fitted.coefficients[0] == 0 and fitted.coefficients.sum() == pytest.approx(1.0)
    assert any(c.startswith("m0 predict") for c in fitted.cautions)
    with pytest.raises(InputError, match="rounds is 0"):
        make_combiner("greedy_r2", rounds=0).fit(evidence_of(world))
