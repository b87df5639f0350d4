"""Nested fits and the choice: who sees what, what ships, and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pertstack._base.errors import InputError, UnknownNameError
from pertstack._stats.group_means import GroupMeans
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.scoring.score import score
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking import choose as choose_module
from pertstack.stacking.choice import choice_in_words
from pertstack.stacking.choose import choose
from pertstack.stacking.combiners.references.mean import Mean
from pertstack.stacking.constants import constant_models, is_constant
from pertstack.stacking.nested import FINAL, fit_nested
from pertstack.stacking.panel import Panel
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
            part["predictions"],
            part["treated"],
            part["control"],
            folds=part["folds"],
            perturbation=part["perturbation"],
            cell_line=part["cell_line"],
        )
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
    columns = columns_for(nested, {"best_single": 0.0, "simplex": -0.003, "gene_ridge": -0.003}, rng)
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


def test_a_loss_on_a_metric_without_a_vote_bars_nothing_and_is_said(nested):
    rng = np.random.default_rng(3)
    gains = {"best_single": 0.0, "simplex": 0.02, "gene_ridge": -0.05}
    columns = columns_for(nested, gains, rng)
    own = {n: c[0] - 2 * gains.get(n, 0.0) for n, c in columns.items()}  # the opposite of the primary
    columns = {n: np.stack([c[0], own[n], c[1]]) for n, c in columns.items()}
    table = table_of(columns, np.arange(400) // 4, metrics=("r2_top20@pooled", "r2_top20@own", "rmse_all@own"))
    barred = choose(table, nested)
    assert barred.chosen == "best_single" and "r2_top20@own" in barred.marked["simplex"]
    assert barred.to_json()["no_vote"] == {}
    choice = choose(table, nested, no_vote={"r2_top20@own": "BDS 0.31 [0.20, 0.44], DRF -0.21, 90 conditions"})
    assert choice.chosen == "simplex" and "simplex" not in choice.marked
    assert [r for r in choice.reasons if "has no vote" in r and "BDS 0.31" in r and "own" in r]
    assert choice.to_json()["no_vote"] == dict(choice.no_vote) and len(choice.no_vote) == 1
    lost = {g.metric: g for g in choice.panel["simplex"]}["r2_top20@own"]
    assert lost.value < 0 and not lost.votes and not lost.lost and lost.not_inferior
    columns["simplex"][2] += 0.1 + rng.normal(0, 0.01, 400)
    table = table_of(columns, np.arange(400) // 4, metrics=("r2_top20@pooled", "r2_top20@own", "rmse_all@own"))
    assert "rmse_all@own" in choose(table, nested, no_vote={"r2_top20@own": ""}).marked["simplex"]


def test_a_loss_too_small_to_matter_is_not_held_against_a_gain(nested):
    """RMSE worse by 0.5 %, beyond any doubt: equal at the default tolerance of 1 %, a loss at none."""
    rng = np.random.default_rng(9)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.03}, rng, rmse={"simplex": 0.005})
    table = table_of(columns, np.arange(400) // 4)
    assert choose(table, nested).chosen == "simplex"
    strict = choose(table, nested, tolerance=0.0)
    assert strict.chosen == "best_single" and "rmse_all@own" in strict.marked["simplex"]


def test_under_the_rule_best_the_primary_metric_alone_decides(nested):
    """Another metric that says the opposite neither lets a combination ship nor stops it."""
    rng = np.random.default_rng(11)
    groups = np.arange(400) // 4
    better = columns_for(nested, {"best_single": 0.0, "simplex": 0.03}, rng, rmse={"simplex": 0.1})
    choice = choose(table_of(better, groups), nested, rule="best")
    assert choice.chosen == "simplex" and choice.ladder[-1].gain.value == pytest.approx(0.03, abs=0.005)
    worse = columns_for(nested, {"best_single": 0.0, "simplex": -0.01}, rng, rmse={"simplex": -0.1})
    choice = choose(table_of(worse, groups), nested, rule="best")
    assert choice.chosen == "best_single" and not choice.ladder[-1].passed


def test_few_groups_widen_the_bound(nested):
    """The same gain in 400 samples: clear when they are 100 drugs, not when they are 4."""
    rng = np.random.default_rng(4)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.004}, rng)
    columns["simplex"][0] += np.repeat([0.05, -0.06, 0.055, -0.045], 100)
    few = choose(table_of(columns, np.repeat(np.arange(4), 100)), nested)
    assert few.chosen == "best_single" and any("Only 4 groups" in r for r in few.reasons)


def test_standard_errors_and_gains_match_a_jackknife():
    """Leaving out one group at a time gives the same error to first order, missing values and all."""
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 60, 500)
    values = rng.normal(0.5, 0.2, (2, 1, 500)) + rng.normal(0, 0.2, 60)[groups]
    values[1, 0, ::7] = np.nan
    table = table_of({"best_single": values[0], "x": values[1]}, groups, metrics=("r2_top20@pooled",))
    gain = Panel.of(table, ["best_single", "x"], "best_single", metrics=["r2_top20@pooled"], level=0.05).gains["x"][0]

    def difference(rows):
        return np.nanmean(values[1, 0, rows]) - np.nanmean(values[0, 0, rows])

    left = np.array([difference(groups != g) for g in range(60)])
    assert gain.value == pytest.approx(difference(groups >= 0), abs=1e-6)
    assert gain.se == pytest.approx(np.sqrt(59 / 60 * ((left - left.mean()) ** 2).sum()), rel=0.05)
    assert gain.lower == pytest.approx(gain.value - stats.t.ppf(0.95, 59) * gain.se, rel=1e-6)
    assert gain.upper == pytest.approx(gain.value + stats.t.ppf(0.95, 59) * gain.se, rel=1e-6)


def test_two_groups_have_the_standard_error_of_the_mean_of_two_numbers():
    found = GroupMeans.of([[0.0, 1.0, 1.0, 0.0]], ["a", "b", "b", "a"])
    assert (found.means[0], found.errors()[0]) == (0.5, 0.5)


def test_one_sample_is_compared_and_none_is_refused():
    columns = {"a": [[0.4]], "b": [[0.6]]}
    gain = Panel.of(table_of(columns, ["g"], ("cod_all@own",)), ["a", "b"], "a", metrics=["cod_all@own"], level=0.05)
    assert gain.gains["b"][0].value == pytest.approx(0.2) and np.isnan(gain.gains["b"][0].lower)
    empty = table_of({name: np.zeros((1, 0)) for name in columns}, [], ("cod_all@own",))
    with pytest.raises(InputError, match="no samples"):
        Panel.of(empty, ["a", "b"], "a", metrics=["cod_all@own"], level=0.05)


def test_a_flexible_combiner_without_nested_fits_ships_only_where_that_was_asked_for(nested):
    rng = np.random.default_rng(8)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": 0.03, "gene_ridge": 0.06}, rng)
    table = table_of(columns, np.arange(400) // 4)
    assert choose(table, nested).chosen == "simplex"
    assert choose(table, nested, trust_partial=True).chosen == "gene_ridge"


def test_one_correction_for_all_that_was_tried():
    """Twelve candidates of no gain: the best of them is above its bound in about 5 of 100 worlds, not in thirty."""
    rng = np.random.default_rng(7)
    names, corrected, alone = [f"c{i}" for i in range(13)], 0, 0
    for _ in range(200):
        values = rng.normal(0.5, 0.2, (13, 1, 60)) + rng.normal(0, 0.2, 60)
        table = table_of(dict(zip(names, values, strict=True)), np.arange(60) // 2, metrics=("r2_top20@pooled",))
        panel = Panel.of(table, names, "c0", metrics=["r2_top20@pooled"], level=0.05)
        c = panel.critical(names[1:], "c0", 0.05, n_draws=300, seed=0)
        best = max(panel.gains[n][0].value / panel.gains[n][0].se for n in names[1:])
        corrected, alone = corrected + (best > c), alone + any(panel.gains[n][0].lower > 0 for n in names[1:])
    assert corrected / 200 < 0.1 < 0.15 < alone / 200


def test_a_sure_enough_gain_that_is_not_proven_ships_when_it_is_not_worse_anywhere(nested):
    """The plain mean gains 0.002 +- 0.002: not proven among all tried, and shown to lose less than 1 % of the range."""
    rng = np.random.default_rng(12)
    columns = columns_for(nested, {"best_single": 0.0}, rng)
    wobble = rng.normal(0, 1, 400)
    columns["mean"][0] = columns["best_single"][0] + 0.002 + 0.03 * (wobble - wobble.mean())
    table = table_of(columns, np.arange(400) // 2)
    choice = choose(table, nested, rule="safe_gain")
    assert choice.chosen == "mean" and choice.ladder[-1].bound < 0 and "not to be worse" in choice.ladder[-1].why
    assert choose(table, nested, rule="no_harm_ladder").chosen == "best_single"
    few = choose(table_of(columns, np.arange(400) // 200), nested, rule="safe_gain")
    assert few.chosen == "best_single" and few.critical > choice.critical


def test_a_constant_does_not_ship_beside_an_answer_as_good(nested):
    rng = np.random.default_rng(13)
    columns = columns_for(nested, {"best_single": 0.0, "simplex": -0.0005}, rng)
    table = table_of(columns, np.arange(400) // 2)
    assert choose(table, nested).chosen == "best_single"
    single = str(nested.final["best_single"].weights()["facts"]["chosen"])
    choice = choose(table, nested, constants=[single])
    assert choice.chosen == "simplex" and any("in place of a constant" in r for r in choice.reasons)
    assert not choice.constant
    columns["simplex"][0] -= 0.05
    choice = choose(table_of(columns, np.arange(400) // 2), nested, constants=[single])
    assert choice.chosen == "best_single" and choice.constant and any("is a constant" in r for r in choice.reasons)


def test_constant_models_are_found_from_the_sums():
    world = small_world(n=240, n_groups=48)
    level = np.zeros_like(world["treated"])
    for line in set(world["cell_line"]):
        for fold in range(3):
            rows = (world["cell_line"] == line) & (world["folds"] == fold)
            level[rows] = world["treated"][(world["cell_line"] == line) & (world["folds"] != fold)].mean(axis=0)
    shift = world["control"] + (world["treated"] - world["control"]).mean(axis=0)
    world["predictions"] = {"level": level, "shift": shift.astype(np.float32), **world["predictions"]}
    source, references = as_source(world)
    reduction = reduce_blocks(source, references)
    assert constant_models(reduction) == ("level", "shift")
    found = fit_nested(["best_informed", "simplex"], reduction, source=source, references=references)
    assert found.final["best_informed"].weights()["facts"]["chosen"] == "m0"
    assert not is_constant(found.final["best_informed"], ("level", "shift"))
    assert is_constant(found.final["mean"], found.final["mean"].models)


def test_bounds_cover_a_known_gain():
    """One-sided 95 % lower bounds stay below the true gain in about 95 of 100 worlds."""
    rng, below = np.random.default_rng(8), 0
    for _ in range(150):
        effect = np.repeat(rng.normal(0.02, 0.05, 40), 3)
        base = rng.uniform(0, 1, 120)
        columns = {"best_single": base[None], "x": (base + effect + rng.normal(0, 0.02, 120))[None]}
        panel = Panel.of(
            table_of(columns, np.repeat(np.arange(40), 3), metrics=("r2_top20@pooled",)),
            ["best_single", "x"],
            "best_single",
            metrics=["r2_top20@pooled"],
            level=0.05,
        )
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


def test_the_sentence_names_what_its_gain_is_over():
    """Two equal models: which one is picked changes from fold to fold, and the gain is over the picks."""
    nested, source, references = fitted(small_world(n_models=2, errors=[0.6, 0.6], n=60), ["mean", "simplex"])
    table = score(source, nested.combines(), references, metrics=["r2_top20@pooled"])
    choice = choose(table, nested, rule="best")
    assert choice.picked == tuple(str(nested.fits["best_single"][k].weights()["facts"]["chosen"]) for k in range(3))
    assert set(choice.picked) == {"m0", "m1"} and choice.chosen in ("mean", "simplex")
    row = table.mean(choice.chosen, "r2_top20@pooled").value - table.mean("best_single", "r2_top20@pooled").value
    gain = next(r for r in choice.ladder if r.passed).gain.value
    assert gain == pytest.approx(row, abs=1e-6)
    said = choice_in_words(choice)
    assert f"as picked without each fold ({', '.join(choice.picked)};" in said and "best in hindsight" in said
    alone = dataclasses.replace(choice, picked=(choice.best_single,) * 3)
    assert f"over {choice.best_single} on R² Top-20, pooled control" in choice_in_words(alone)


@pytest.mark.parametrize("gain, passes", [(0.4, False), (-0.4, False)])
def test_without_enough_groups_no_gain_passes_however_sure_it_looks(monkeypatch, gain, passes):
    """Nothing varies between the few groups, so the standard error is 0; the critical value is infinite."""
    panel = SimpleNamespace(gains={"mean": [SimpleNamespace(value=gain, se=0.0)]}, score=lambda name: 0.5)
    nested = SimpleNamespace(combiner=lambda name: SimpleNamespace(complexity=1))
    monkeypatch.setattr("pertstack.stacking.choose._rounding", lambda panel, name: 1e-9)
    found = choose_module._rung(panel, nested, "mean", critical=np.inf, why="")
    assert (found.bound, found.passed) == (-np.inf, passes)
    sure = choose_module._rung(panel, nested, "mean", critical=2.0, why="")
    assert (sure.bound, sure.passed) == (gain, gain > 0)
