"""Learning or scoring on rows that were seen: pitfalls 1, 2 and 7, leaks L1, L5, L7, L8, L12, L13, L14, L16, P29."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import InputError, LeakError, UnknownNameError
from pertstack.data.rows import FitRows
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.fit import Job, JobRows, cross_fit
from pertstack.predictions import StoreSource
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiner import FLEXIBLE
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.registry import COMBINERS
from references.fit_world import make_rows
from references.small_store import PLAN, World, make_world
from references.small_world import as_source, small_world


@pytest.fixture
def store(tmp_path) -> World:
    return make_world(tmp_path / "store", {Block("A", 0): 20, Block("A", 1): 20, Block("A", 2): 20}, n_genes=25)


# -- predictions the base models saw ---------------------------------------------------------------------------------


def test_rows_the_model_was_fitted_on_take_no_part(store):
    """L7: a model fitted on folds 1 and 2 provides predictions of all folds; only fold 0 may teach weights."""
    for block in store.obs:
        store.commit(block, "m", fitted_on=FittedOn.fold_of_plan(PLAN, 0))
    source = StoreSource(store.store, models=["m"])
    assert [int(source.sound(b, "m").sum()) for b in source.blocks()] == [20, 0, 0]
    reduction = reduce_blocks(source, References.collect(source), k=10)
    assert {b.fold for b in reduction.gene if reduction.gene[b].count.max() > 0} == {0}


def test_a_model_that_kept_rows_out_by_id_loses_exactly_the_rows_it_saw(store):
    block = Block("A", 0)
    seen = list(store.obs[block].index[:7])
    store.commit(block, "m", fitted_on=FittedOn.ids(seen))
    assert int(StoreSource(store.store, models=["m"]).sound(block, "m").sum()) == 13


def test_a_model_without_oof_is_refused_not_logged(store):
    """L13: others predict on the training rows and write a log line."""
    store.commit(Block("A", 0), "m", fitted_on=FittedOn.unknown())
    with pytest.raises(LeakError, match="samples that 'm' was fitted on are unknown"):
        StoreSource(store.store, models=["m"]).sound(Block("A", 0), "m")


def in_sample_arrays(noise_only: bool):
    """120 rows, 4 replicates of 30 conditions; the "model" has memorised the truth, as a grown tree does."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(30), 4)
    effect = 0 if noise_only else rng.normal(size=(30, 40))[who]
    control = 8 + rng.normal(size=(120, 40))
    treated = 8 + effect + rng.normal(size=(120, 40))
    memory = treated + 0.01 * rng.normal(size=treated.shape)
    honest = np.full_like(treated, 8.0) + 0.1 * (control - 8)
    return who, control, treated, {"tree": memory, "honest": honest}


@pytest.mark.parametrize("noise_only", [True, False])
def test_in_sample_predictions_are_flagged_with_numbers(noise_only):
    """L1: scikit-learn's prefit stack reports R2 = 0.99999 for a tree on pure noise, without a word."""
    who, control, treated, predictions = in_sample_arrays(noise_only)
    with pytest.warns(UserWarning, match=r"below the .* by which replicates of one condition vary"):
        fit = ps.stack(
            predictions,
            treated=treated,
            control=control,
            folds=who % 3,
            perturbation=[f"d{w}" for w in who],
            condition=[f"d{w}" for w in who],
            combiners=["mean", "simplex"],
        )
    found = {(f.code, f.where): f for f in fit.findings}
    grave = found["too_good_to_be_true", "tree"]
    assert grave.severity == "error" and grave.numbers["error"] < 0.001 < 0.5 < grave.numbers["noise"]
    assert found["knows_replicate_noise", "tree"].numbers["mean_correlation"] > 0.9
    assert not [f for f in fit.findings if f.where == "honest" and f.severity == "error"]


def test_arrays_leave_an_accused_model_out_of_choice_and_best_single():
    """The best single model was the leaker itself; ``accept_accused`` puts it back by name, and nothing else does."""
    who, control, treated, predictions = in_sample_arrays(noise_only=False)
    mean = {"fold_mean": np.stack([treated[who % 3 != k].mean(axis=0) for k in range(3)])[who % 3]}
    names = [f"d{w}" for w in who]
    given = {"treated": treated, "control": control, "folds": who % 3, "perturbation": names, "condition": names}
    with pytest.warns(UserWarning, match="takes no part, unless accept_accused"):
        fit = ps.stack({**predictions, **mean}, **given, combiners=["mean", "simplex"])
    assert list(fit.accused) == ["tree"] and "replicates" in fit.accused["tree"] and fit.accepted == ()
    assert "tree" not in fit.scores.names and fit.choice.best_single != "tree"
    without = {"honest": predictions["honest"], **mean}
    np.testing.assert_array_equal(
        fit.predict({**predictions, **mean}, control=control), fit.predict(without, control=control)
    )
    with pytest.warns(UserWarning):
        back = ps.stack({**predictions, **mean}, **given, combiners=["mean", "simplex"], accept_accused=["tree"])
    assert back.choice.best_single == "tree" and back.accepted == ("tree",) and not back.accused
    with pytest.warns(UserWarning), pytest.raises(UnknownNameError, match="'three'"):
        ps.stack({**predictions, **mean}, **given, combiners=["mean"], accept_accused=["three"])
    with pytest.warns(UserWarning), pytest.raises(InputError, match="No probe shows that honest"):
        ps.stack({**predictions, **mean}, **given, combiners=["mean"], accept_accused=["honest"])
    with pytest.warns(UserWarning), pytest.raises(InputError, match="nothing is left to stack"):
        ps.stack({"tree": predictions["tree"]}, **given, combiners=["mean"])


def test_a_model_fitted_on_all_rows_lacks_the_mark_of_its_folds():
    """L5: the "out-of-fold" model is fitted on all rows inside the fold loop (R2 0.317 on pure noise there)."""
    world = small_world(n=240, n_groups=60, noise=0.4, seed=4)
    y, fold = world["treated"].astype(float), np.asarray(world["folds"])
    line = world["cell_line"]
    y = y + np.random.default_rng(1).normal(0, 0.6, (60, y.shape[1]))[np.arange(240) % 60]
    everything, folds_out = np.empty_like(y), np.empty_like(y)
    for name in np.unique(line):
        here = line == name
        everything[here] = y[here].mean(axis=0)
        for k in range(3):
            folds_out[here & (fold == k)] = y[here & (fold != k)].mean(axis=0)
    # a model with memory of every group, and one without
    cheat = 0.5 * everything + 0.5 * pd.DataFrame(y).groupby(world["perturbation"]).transform("mean").to_numpy()
    fit = ps.stack(
        {"cheat": cheat, "honest": folds_out},
        treated=y,
        control=world["control"],
        folds=fold,
        perturbation=world["perturbation"],
        cell_line=line,
        combiners=["mean"],
    )
    codes = {f.where: f for f in fit.findings if f.code.startswith("fold_fingerprint")}
    assert codes["cheat"].code == "fold_fingerprint_missing" and codes["cheat"].numbers["p"] > 0.1
    assert codes["honest"].code == "fold_fingerprint_found" and codes["honest"].numbers["z"] < -3
    assert codes["cheat"].severity == "note"  # honest flexible models lack the mark too


def test_the_call_of_the_readme_finds_a_memoriser_without_being_told_conditions():
    """Replicates are known by perturbation and cell line; 0 of 8 memorisers were found without ``condition``."""
    found = {}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        drug, line = np.tile(np.repeat(np.arange(30), 2), 2), np.repeat(["A", "B"], 60)
        effect = rng.normal(0, 0.4, (2, 30, 50))[(line == "B").astype(int), drug]
        control = 8 + rng.normal(0, 0.4, (120, 50))
        y, fold = 9 + effect + rng.normal(0, 0.4, (120, 50)), drug % 3
        honest = np.stack([y[fold != k].mean(axis=0) for k in range(3)])[fold] + 0.3 * (control - 8)
        memory = 0.5 * y + 0.5 * honest
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            fit = ps.stack(
                {"memory": memory, "honest": honest},
                treated=y,
                control=control,
                folds=fold,
                perturbation=[f"d{d}" for d in drug],
                cell_line=line,
                combiners=["mean"],
            )
        for f in fit.findings:
            if f.severity != "note":
                found.setdefault(f.where, []).append(f)
    assert set(found) == {"memory"} and len({id(f) for f in found["memory"]}) >= 8
    assert all(f.severity == "warning" and "condition=" in f.message for f in found["memory"])  # doses are not known


# -- the fitting side --------------------------------------------------------------------------------------------------


class Peeks:
    """Counts what a job is handed."""

    def __init__(self, leak: str) -> None:
        self.leak = leak

    def __call__(self, job: Job) -> JobRows:
        rows = make_rows()
        held = rows.take(np.arange(rows.n_samples) < 24)
        fit = rows.take(np.arange(rows.n_samples) >= (0 if self.leak == "same rows" else 24))
        part = held if self.leak == "truth" else held.without_treated()
        return JobRows(fit, [(Block("A", 0), part)])


@pytest.mark.parametrize(
    ("leak", "words"), [("same rows", "would predict 24 samples it was fitted on"), ("truth", "with their treated")]
)
def test_a_job_that_leaks_stops_the_run_and_commits_nothing(leak, words, tmp_path):
    """L5, L14: fit rows among the predicted rows, or held-out truth handed to a model."""
    kept = []
    job = Job("m", "pertstack.fit.baselines.ridge:Ridge", {}, "pooled", 0)
    with pytest.raises(LeakError, match=words):
        cross_fit(
            [job],
            rows_for=Peeks(leak),
            commit=lambda *a: kept.append(a),
            done=lambda job: False,
            log_dir=tmp_path,
            seed=0,
            engine="inline",
        )
    assert kept == []


def test_rows_to_predict_carry_no_truth():
    part = make_rows().without_treated()
    assert not isinstance(part, FitRows) and not hasattr(part, "treated")


# -- scoring the stack -------------------------------------------------------------------------------------------------


def test_a_fold_is_never_scored_by_weights_that_saw_it():
    """L8, L12, L16: fold 0's truth is replaced; weights that score fold 0 must not move, all others must."""
    world = small_world(n=180, n_groups=36, seed=2)
    fold = np.asarray(world["folds"])
    other = world["treated"].copy()
    other[fold == 0] += np.random.default_rng(0).normal(0, 3, other[fold == 0].shape).astype(np.float32)
    fits = []
    for treated in (world["treated"], other):
        source, references = as_source(world, treated=treated)
        reduction = reduce_blocks(source, references, k=20)
        fits.append(fit_nested(["gene_ridge", "simplex"], reduction, source=source, references=references))
    for name in ("gene_ridge", "simplex"):
        here, there = (f.fits[name] for f in fits)
        assert here[0].weights()["mean"] == pytest.approx(there[0].weights()["mean"], abs=1e-6)
        assert np.abs(np.subtract(here[1].weights()["mean"], there[1].weights()["mean"])).max() > 1e-3


def test_on_pure_noise_the_gap_between_in_sample_and_out_of_fold_is_shown():
    """Pitfalls 2 and 7, P29: per-gene weights from few rows score well on their own rows and nowhere else."""
    rng = np.random.default_rng(5)
    n, genes = 60, 50
    group = np.arange(n) % 20
    control, treated = rng.normal(size=(2, n, genes))
    predictions = {f"m{i}": control + rng.normal(size=(n, genes)) for i in range(8)}
    source = ArraySource(predictions, treated, control, folds=group % 3, perturbation=[f"d{g}" for g in group])
    references = References.collect(source)
    reduction = reduce_blocks(source, references, k=20)
    nested = fit_nested(["gene_ridge"], reduction, source=source, references=references)
    out = score(source, nested.combines(), references, metrics=["cod_all@pooled"])
    inside = score(source, nested.final_combines(), references, metrics=["cod_all@pooled"], base_models=False)
    honest, hopeful = out.mean("gene_ridge", "cod_all@pooled").value, inside.mean("gene_ridge", "cod_all@pooled").value
    assert hopeful > honest + 0.02 and honest < 0.02


def test_a_test_block_cannot_teach_weights():
    world = small_world(n=90, n_groups=18)
    folds = np.where(np.arange(90) % 18 < 15, np.asarray(world["folds"], dtype=float), np.nan)
    source = ArraySource(
        world["predictions"],
        world["treated"],
        world["control"],
        folds=folds,
        perturbation=world["perturbation"],
        role="all",
    )
    references = References.collect(
        ArraySource(
            world["predictions"], world["treated"], world["control"], folds=folds, perturbation=world["perturbation"]
        )
    )
    reduction = reduce_blocks(source, references, k=10)
    assert sum(b.role == "test" for b in source.blocks()) == 1 and all(b.role != "test" for b in reduction.gene)
    smuggled = SimpleNamespace(gene={**reduction.gene, Block("all", None): next(iter(reduction.gene.values()))})
    with pytest.raises(InputError, match="learn from development rows; the reduction holds the test block"):
        fit_nested(["mean"], smuggled)


# -- the leak of partial nesting (decision 0005) --------------------------------------------------------------------


def fold_mean_world():
    """Three folds of 40 rows whose gene means differ by chance alone; the only model is the mean of its fit rows."""
    rng = np.random.default_rng(8)
    fold = np.repeat(np.arange(3), 40)
    y = rng.normal(size=(120, 60)) + rng.normal(0, 0.5, (3, 60))[fold]
    means = np.stack([y[fold == k].mean(axis=0) for k in range(3)])
    model = np.stack([means[[j for j in range(3) if j != k]].mean(axis=0) for k in range(3)])[fold]
    return fold, y, means, model


def test_partial_nesting_reads_the_scored_fold_out_of_predictions_that_never_saw_it():
    """The number: slope -(K - 1) = -2, and the mean of the scored fold to the last digit."""
    fold, y, means, model = fold_mean_world()
    learn = fold != 2
    slope = np.array([np.polyfit(model[learn, g], y[learn, g], 1) for g in range(60)])
    np.testing.assert_allclose(slope[:, 0], -2, atol=1e-6)
    np.testing.assert_allclose(slope[:, 0] * model[fold == 2][0] + slope[:, 1], means[2], atol=1e-6)
    honest = ((y[fold == 2] - model[fold == 2]) ** 2).mean()
    fake = ((y[fold == 2] - means[2]) ** 2).mean()
    assert 1 - fake / honest > 0.15  # "15 % less error" out of fold, and all of it fake
    # nested fits: the models behind folds 0 and 1 never saw fold 2, and the scored fold cannot be read any more
    nested = np.where((fold == 0)[:, None], means[1], means[0])
    again = np.array([np.polyfit(nested[learn, g], y[learn, g], 1) for g in range(60)])
    predicted = again[:, 0] * model[fold == 2][0] + again[:, 1]
    assert np.corrcoef(predicted - model[fold == 2][0], means[2] - model[fold == 2][0])[0, 1] ** 2 < 0.2
    np.testing.assert_allclose(again[:, 0], -1, atol=1e-6)
    np.testing.assert_allclose(predicted, (means[0] + means[1]) / 2, atol=1e-6)


def test_per_gene_weights_do_not_gain_by_fold_means():
    """The same world through ps.stack: slopes are learned within folds, so the fake gain is not there."""
    fold, y, _, model = fold_mean_world()
    extra = model + np.random.default_rng(1).normal(0, 0.3, y.shape)
    fit = ps.stack(
        {"mean_of_fit_rows": model, "noisy": extra},
        treated=y,
        folds=fold,
        perturbation=[f"d{i}" for i in range(120)],
        combiners=["gene_ridge", "gene_eb", "gene_shrunken"],
        primary="rmse_all@pooled",
    )
    single = fit.leaderboard.loc["mean_of_fit_rows", "rmse_all@own"]
    for name in ("gene_ridge", "gene_eb", "gene_shrunken"):
        assert fit.leaderboard.loc[name, "rmse_all@own"] > 0.995 * single, name


def test_flexible_weights_do_not_ship_on_partial_nesting():
    """Arrays carry no nested fits: what is flexible is shown, marked with the reason, and never chosen."""
    world = small_world(n=180, n_groups=36, seed=2)
    given = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    fit = ps.stack(world["predictions"], **given, combiners=["gene_ridge", "mean"], trust_partial=False)
    assert "partial nesting" in fit.choice.marked["gene_ridge"] and fit.chosen != "gene_ridge"
    assert fit.nested.settings["nesting"] == "partial"


def test_a_study_nests_fully_and_level_one_rows_of_the_scored_fold_are_refused(fitted):
    from pertstack.study.development.rows import DevelopmentRows

    models = ("mean_treated", "perturbation_knn", "ridge")
    development = DevelopmentRows(fitted.folder, models, memory="100 MB")
    rows = development.level_one
    assert rows is not None and all(b.fold != k for k, (reduction, _) in rows.items() for b in reduction.gene)
    whole, source = development.reduction, development.source
    mistake = dict.fromkeys(rows, (whole, source))
    with pytest.raises(LeakError, match=r"hold block .* which it is scored on"):
        fit_nested(["gene_ridge"], whole, source=source, references=fitted.folder.references, level_one=mistake)


BELIEVED = [n for n, c in COMBINERS.items() if c.family in FLEXIBLE and not c.needs_nested and c.default]


def test_flexible_weights_that_are_believed_without_nested_fits_read_no_fold_means():
    """Non-negative, or shared by many genes: beside a mean of fit rows, half of it and a near-perfect prior, which
    together hold the mean of the scored fold, they gain no more than global weights do, which were always believed."""
    gains = {name: [] for name in (*BELIEVED, "simplex", "global_ridge")}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        fold, base = np.repeat(np.arange(3), 40), rng.normal(size=60)
        y = base + rng.normal(size=(120, 60)) + rng.normal(0, 0.5, (3, 60))[fold]
        means = np.stack([y[fold == k].mean(axis=0) for k in range(3)])
        fitted = np.stack([means[[j for j in range(3) if j != k]].mean(axis=0) for k in range(3)])[fold]
        prior = np.repeat((base + rng.normal(0, 0.1, 60))[None], 120, axis=0)
        models = {"fitted": fitted, "half": 0.5 * fitted + rng.normal(0, 0.1, 60), "prior": prior}
        names = [f"d{i}" for i in range(120)]
        wanted = {"combiners": list(gains), "primary": "rmse_all@pooled"}
        fit = ps.stack(models, treated=y, folds=fold, perturbation=names, **wanted)
        error = fit.leaderboard["rmse_all@own"]
        assert not set(BELIEVED) & {n for n, why in fit.choice.marked.items() if "partial nesting" in why}
        for name in gains:
            gains[name].append(1 - error[name] / error[list(models)].min())
    believed = max(np.mean(gains[n]) for n in BELIEVED)
    assert len(BELIEVED) == 7 and believed < 0.005 and max(max(gains[n]) for n in BELIEVED) < 0.015, gains
