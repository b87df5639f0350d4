"""Nested fits and the choice: who sees what, what ships, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.predictions.array_source import ArraySource
from pertstack.reduce.one_pass import reduce_blocks
from pertstack.reduce.score import score
from pertstack.reduce.score_table import ScoreTable
from pertstack.stack.choose import choose
from pertstack.stack.group_bootstrap import GroupSums
from pertstack.stack.mean import Mean
from pertstack.stack.nested import FINAL, fit_nested
from pertstack.stack.panel import Panel
from references.small_world import as_source, small_world


def fitted(world, combiners=None, **options):
    source, references = as_source(world)
    reduction = reduce_blocks(source, references)
    return fit_nested(combiners, reduction, source=source, references=references, **options), source, references


@dataclass(frozen=True)
class Breaks(Mean):
    """A combiner that cannot do without fold 1."""

    name: ClassVar[str] = "breaks"

    def fit(self, evidence):
        if 1 not in evidence.folds:
            raise np.linalg.LinAlgError("no fold 1")
        return super().fit(evidence)


def test_a_failing_combiner_is_reported_and_the_others_go_on():
    nested, _, _ = fitted(small_world(), ["simplex", Breaks()])
    assert "breaks" not in nested.names and "simplex" in nested.names
    assert [(f.combiner, f.left_out) for f in nested.failures] == [("breaks", 1)]
    assert "no fold 1" in str(nested.failures[0])


def test_every_fold_is_scored_by_a_fit_without_it_and_the_final_sees_all():
    world = small_world()
    nested, _, references = fitted(world, ["global_ridge"])
    assert sorted(nested.fits["global_ridge"]) == [0, 1, 2] and set(nested.final) == set(nested.names)
    for fold in range(3):
        rest = world["folds"] != fold
        part = {k: world[k][rest] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
        part["predictions"] = {m: p[rest] for m, p in world["predictions"].items()}
        alone = ArraySource(
            part["predictions"], part["treated"], part["control"], folds=part["folds"],
            perturbation=part["perturbation"], cell_line=part["cell_line"],
        )  # fmt: skip
        again = fit_nested(["global_ridge"], reduce_blocks(alone, references))
        np.testing.assert_allclose(
            nested.fits["global_ridge"][fold].coefficients, again.final["global_ridge"].coefficients, rtol=1e-9
        )
    assert "no_change" not in nested.combines() and FINAL not in nested.combines()["global_ridge"]


def test_bad_requests_are_refused():
    world = small_world()
    with pytest.raises(UnknownNameError, match="simplex"):
        fitted(world, ["simplx"])
    with pytest.raises(InputError, match="only one fold"):
        fitted({**world, "folds": np.zeros(120, dtype=int)}, ["mean"])
    with pytest.raises(InputError, match="only one cell line"):
        fitted({**world, "cell_line": np.array(["A"] * 120)}, ["mean"], left="cell_line")
    with pytest.raises(InputError, match="'pooled' or 'own'"):
        fitted(world, ["simplex"], reference="centroid")


def table_of(columns, groups, metrics=("r2_top20@pooled", "rmse_all@own")):
    """Score table from {name: (n_metrics, n)}."""
    values = np.stack([np.asarray(v, dtype=np.float32) for v in columns.values()])
    samples = pd.DataFrame({"sample_id": range(values.shape[2]), "group": groups, "fold": 0, "cell_line": "A"})
    return ScoreTable(samples, tuple(columns), tuple(metrics), values, np.isfinite(values).any(axis=1))


@pytest.fixture(scope="module")
def nested():
    return fitted(small_world(), ["simplex", "gene_ridge"])[0]


def columns_for(nested, gains, rng, n=400, rmse=None):
    base = rng.uniform(0.3, 0.7, n)
    found = {}
    for name in nested.names:
        if name == "no_change":
            continue
        noise = rng.normal(0, 0.02, n) if name != "best_single" else 0.0
        found[name] = np.stack([base + gains.get(name, -0.05) + noise, 1.0 + (rmse or {}).get(name, 0.0) + 0.0 * base])
    return found


def test_a_clear_gain_ships_and_says_so(nested):
    rng = np.random.default_rng(0)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.03, "gene_ridge": 0.01}, rng)
    choice = choose(table_of(columns, np.arange(400) // 4), nested, seed=1)
    assert choice.chosen == "simplex" and choice.ladder[-1].passed
    assert "simplex" in choice.reasons[1] and "gain +0.02" in choice.reasons[1]
    assert choice == choose(table_of(columns, np.arange(400) // 4), nested, seed=1)


def test_no_gain_means_the_best_single_model_ships(nested):
    rng = np.random.default_rng(1)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.0, "gene_ridge": 0.0}, rng)
    choice = choose(table_of(columns, np.arange(400) // 4), nested)
    assert choice.chosen == "best_single" and not any(r.passed for r in choice.ladder)
    assert any("ships alone" in r for r in choice.reasons)


def test_one_standard_error_prefers_the_simpler(nested):
    rng = np.random.default_rng(2)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.0300, "gene_ridge": 0.0301}, rng)
    wobble = rng.normal(0, 0.02, 400)
    columns["gene_ridge"][0] = columns["simplex"][0] + wobble - wobble.mean() + 1e-4
    choice = choose(table_of(columns, np.arange(400) // 4), nested, trust_partial=True)
    assert choice.chosen == "simplex"
    told = [
        r for r in choice.to_json()["reasons"] if r.startswith("simplex (within one s.e. of gene_ridge, which scores ")
    ]
    assert len(told) == 1 and "behind, s.e. 0.00" in told[0]


def test_a_gain_bought_with_another_metric_is_marked_and_not_shipped(nested):
    rng = np.random.default_rng(3)
    gains = {"best_single": 0.0, "simplex": 0.02, "gene_ridge": 0.05}
    columns = columns_for(nested, gains, rng, rmse={"gene_ridge": 0.1})
    columns["gene_ridge"][1] += rng.normal(0, 0.05, 400)
    choice = choose(table_of(columns, np.arange(400) // 4), nested)
    assert choice.chosen == "simplex" and "rmse_all@own" in choice.marked["gene_ridge"]
    assert any("r2_top20@own" in r and "Not judged" in r for r in choice.reasons)


def test_a_loss_too_small_to_matter_is_not_held_against_a_gain(nested):
    """RMSE worse by 0.5 %, beyond any doubt: equal at the default tolerance of 1 %, a loss at none."""
    rng = np.random.default_rng(9)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.03}, rng, rmse={"simplex": 0.005})
    table = table_of(columns, np.arange(400) // 4)
    assert choose(table, nested).chosen == "simplex"
    strict = choose(table, nested, tolerance=0.0)
    assert strict.chosen == "best_single" and "rmse_all@own" in strict.marked["simplex"]


def test_few_groups_widen_the_bound(nested):
    """The same gain in 400 samples: clear when they are 100 drugs, not when they are 4."""
    rng = np.random.default_rng(4)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.004}, rng)
    columns["simplex"][0] += np.repeat([0.05, -0.06, 0.055, -0.045], 100)
    few = choose(table_of(columns, np.repeat(np.arange(4), 100)), nested)
    assert few.chosen == "best_single" and any("Only 4 groups" in r for r in few.reasons)


def test_group_bootstrap_is_the_loop():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(2, 3, 50)).astype(np.float32)
    values[0, 1, :20] = np.nan
    groups = rng.integers(0, 9, 50).astype(str)
    sums = GroupSums.of(values, groups)
    np.testing.assert_allclose(sums.means(), np.nanmean(values, axis=2), rtol=1e-6)
    draws, outside = sums.resampled(40, seed=6, outside=True)
    times = np.random.default_rng(6).multinomial(9, np.full(9, 1 / 9), size=40)
    labels = sorted(set(groups))
    for b in range(40):
        often = dict(zip(labels, times[b], strict=True))
        rows = np.concatenate([np.flatnonzero(groups == g) for g in labels for _ in range(often[g])])
        left = np.flatnonzero([often[g] == 0 for g in groups])
        np.testing.assert_allclose(draws[b], np.nanmean(values[:, :, rows], axis=2), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outside[b], np.nanmean(values[:, :, left], axis=2), rtol=1e-5, atol=1e-6)


def test_optimism_is_what_picking_the_best_of_equals_gains():
    """Twelve candidates of equal worth: the best of them looks better than it is, and the estimate says by how much."""
    rng = np.random.default_rng(7)
    shown, estimated = [], []
    for _ in range(30):
        names = [f"c{i}" for i in range(12)]
        values = rng.normal(0.5, 0.2, (12, 1, 60))
        table = table_of(dict(zip(names, values, strict=True)), np.arange(60), metrics=("r2_top20@pooled",))
        panel = Panel.of(table, names, "c0", ["r2_top20@pooled"], level=0.05, n_draws=300, seed=0)
        estimated.append(panel.optimism(names))
        shown.append(panel.primary.max() - 0.5)
    assert np.mean(estimated) == pytest.approx(np.mean(shown), rel=0.3)


def test_bounds_cover_a_known_gain():
    """One-sided 95 % lower bounds stay below the true gain in about 95 of 100 worlds."""
    rng, below = np.random.default_rng(8), 0
    for _ in range(150):
        effect = np.repeat(rng.normal(0.02, 0.05, 40), 3)
        base = rng.uniform(0, 1, 120)
        columns = {"best_single": base[None], "x": (base + effect + rng.normal(0, 0.02, 120))[None]}
        panel = Panel.of(
            table_of(columns, np.repeat(np.arange(40), 3), metrics=("r2_top20@pooled",)), ["best_single", "x"],
            "best_single", ["r2_top20@pooled"], level=0.05, n_draws=400, seed=0,
        )  # fmt: skip
        below += panel.gains["x"][0].lower <= 0.02
    assert 0.89 <= below / 150 <= 0.99


def test_the_whole_way_through_on_a_small_world():
    nested, source, references = fitted(small_world(n=240, n_groups=48))
    table = score(source, nested.combines(), references)
    choice = choose(table, nested)
    best = choice.best_single
    assert best == "m0" and choice.chosen in nested.names
    assert table.mean(choice.chosen, choice.primary).value >= table.mean("best_single", choice.primary).value
    goodness = nested.final["best_single"].weights()["facts"]["goodness"]
    for model in source.models:
        assert goodness[model] == pytest.approx(table.mean(model, "r2_top20@pooled").value, rel=1e-5)
