"""Data and base models that quietly go wrong: pitfalls 5, 11; P2, P9 to P12, P14, P16, P20, P23, P27; leaks in the
design."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import InputError, LeakError
from pertstack.data.side.side import SideInformation
from pertstack.design.blocks import Block
from pertstack.design.leaks.check_plan import check_plan
from pertstack.design.plan.folds import FoldPlan
from pertstack.fit import Job, JobRows, cross_fit
from pertstack.fit.inner_split import inner_split
from pertstack.fit.registry import available, get_model, get_row
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from references.data_worlds import small, write
from references.fit_world import make_rows, split_by_perturbation, with_obs
from references.small_world import small_world

FEATURED = ["ridge", "low_rank", "perturbation_knn"]
ANY = ["mean_treated", "per_gene_linear", *FEATURED]


def fitted(name: str, rows, seed: int = 0):
    return get_model(name).fit(rows, rng=np.random.default_rng(seed))


# -- structures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURED)
def test_a_model_that_needs_structures_refuses_a_study_without_them(name):
    """P9: no column `smiles`, a zero vector for every row, and nobody noticed."""
    rows = replace(make_rows(), side=SideInformation())
    assert "structure" in str(available(get_row(name), rows.side, rows.obs))
    with pytest.raises(InputError, match="structure"):
        fitted(name, rows)


@pytest.mark.parametrize("name", FEATURED)
def test_a_missing_structure_is_no_molecule(name):
    """P10: methane or zeros in place of an unknown drug; here it is refused by name, or masked on request."""
    fit, held = split_by_perturbation(make_rows(unknown=("d03", "d22", "d23")))
    key = next(k for k in get_model(name).params() if k.startswith("on_missing"))
    with pytest.raises(InputError, match="d03"):
        get_model(name, {key: "raise"}).fit(fit, rng=np.random.default_rng(0))
    masked = get_model(name, {key: "mask"}).fit(fit, rng=np.random.default_rng(0))
    rows = held.without_treated()
    one, other, known = (masked.predict(with_obs(rows, perturbation=p)) for p in ("d22", "d23", "d01"))
    np.testing.assert_array_equal(one, other)
    assert np.abs(one - known).max() > 1e-3


@pytest.mark.parametrize("name", ["mean_treated_perturbation", "additive"])
def test_an_unseen_drug_is_not_the_first_one(name):
    """P11: unknown drug -> index 0, some arbitrary real drug; the order of a set decides which."""
    rows = make_rows(kinds=("genes",) if name == "additive" else ("structure",))
    fit, held = split_by_perturbation(rows)
    model = fitted(name, fit)
    new = model.predict(with_obs(held.without_treated(), perturbation="never seen"))
    for drug in sorted(set(fit.perturbation)):
        assert np.abs(new - model.predict(with_obs(held.without_treated(), perturbation=drug))).max() > 1e-6, drug


# -- what a fit may see ----------------------------------------------------------------------------------------------


class Rows:
    """Fit and predict rows; the truth of everything that is held out is replaced by ``shift``."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def __call__(self, job: Job) -> JobRows:
        rows = make_rows()
        held = np.isin(rows.perturbation.astype(str), ["d00", "d01", "d02"])
        rows = replace(rows, treated=rows.treated + np.float32(self.shift) * held[:, None])
        return JobRows(rows.take(~held), [(Block("A", 0), rows.take(held).without_treated())])


def predicted(name: str, shift: float, tmp_path: Path) -> np.ndarray:
    found = []
    row = get_row(name)
    results = cross_fit(
        [Job(name, row.target, {}, "pooled", 0)],
        rows_for=Rows(shift),
        done=lambda job: False,
        seed=1,
        commit=lambda job, block, values, embedding, record: found.append(values),
        log_dir=tmp_path / str(shift),
        engine="inline",
    )
    assert results[0].ok, results[0].error
    return found[0]


@pytest.mark.parametrize("name", [*ANY, "mlp"])
def test_permuting_held_out_targets_leaves_the_fit_bit_identical(name, tmp_path):
    """P2: early stopping on the split called "test"."""
    np.testing.assert_array_equal(predicted(name, 0.0, tmp_path), predicted(name, 1000.0, tmp_path))


def test_inner_validation_keeps_groups_whole():
    rows = make_rows()
    train, check = inner_split(rows, 0.2, np.random.default_rng(0))
    assert not set(rows.perturbation[train]) & set(rows.perturbation[check]) and check.any()


@pytest.mark.parametrize("name", [*ANY, "mlp"])
def test_a_prediction_depends_on_its_row_alone_and_twice_the_same(name):
    """P14 (row order), P20 (sampling while predicting), P23 (attention across the batch)."""
    fit, held = split_by_perturbation(make_rows())
    model, rows = fitted(name, fit), held.without_treated()
    whole = model.predict(rows)
    np.testing.assert_array_equal(whole, model.predict(rows))
    order = np.random.default_rng(0).permutation(held.n_samples)
    np.testing.assert_allclose(model.predict(held.take(order).without_treated()), whole[order], atol=1e-5)
    alone = model.predict(held.take(np.array([3])).without_treated())
    np.testing.assert_allclose(alone[0], whole[3], atol=1e-5)


class Broken:
    """Fails while predicting."""

    name = "broken"

    def fit(self, rows, *, rng):
        return self

    def params(self):
        return {}

    def predict(self, rows):
        raise FileNotFoundError("weights.pt")


def test_a_model_that_fails_is_absent_and_is_not_the_control(monkeypatch, tmp_path):
    """P12: any failure returned the control profile as "prediction"."""
    import pertstack.fit.jobs.worker as worker

    monkeypatch.setattr(worker, "build", lambda *a: Broken())
    kept = []
    results = cross_fit(
        [Job("broken", get_row("ridge").target, {}, "pooled", 0)],
        rows_for=Rows(0.0),
        done=lambda job: False,
        seed=1,
        commit=lambda *a: kept.append(a),
        log_dir=tmp_path,
        engine="inline",
    )
    assert results[0].status == "failed" and "weights.pt" in results[0].error and kept == []


# -- units, values, controls -----------------------------------------------------------------------------------------


def test_units_of_doses_are_kept_and_unknown_ones_refused(tmp_path):
    """P16: "500 nM" -> 500 and "10 uM" -> 10."""
    data = small()
    data.obs = data.obs.drop(columns=["dose", "dose_unit"]).assign(dose=["500 nM", "10 uM"] * 6)
    from pertstack.data import open_data

    file = open_data(write(tmp_path, data))
    assert sorted(set(file.obs["log10_dose"].round(3))) == [-0.301, 1.0]
    data.obs["dose"] = ["500 furlongs", "10 uM"] * 6
    with pytest.raises(InputError, match="furlongs"):
        open_data(write(tmp_path, data, "bad.h5ad"))


def test_pooled_controls_come_from_development_rows_alone():
    """P27: a control average over all samples, test included."""
    world = small_world(n=90, n_groups=18)
    folds = np.where(np.arange(90) % 18 < 15, np.asarray(world["folds"], dtype=float), np.nan)

    def pooled(shift: float) -> np.ndarray:
        control = world["control"] + np.float32(shift) * np.isnan(folds)[:, None]
        treated = world["treated"] + np.float32(shift) * np.isnan(folds)[:, None]
        source = ArraySource(
            world["predictions"],
            treated,
            control,
            folds=folds,
            perturbation=world["perturbation"],
            cell_line=world["cell_line"],
            role="all",
        )
        return References.collect(source).pooled("line0")

    np.testing.assert_array_equal(pooled(0.0), pooled(100.0))


def changed(world_file: Path, tmp_path: Path, change) -> Path:
    data = ad.read_h5ad(world_file)
    change(data)
    data.write_h5ad(tmp_path / "changed.h5ad")
    return tmp_path / "changed.h5ad"


def test_scaling_fitted_on_all_rows_is_found_by_its_extremes(world_file, tmp_path):
    """Pitfall 11, L6: min-max over development and test: genes whose 0 or 1 is a test sample give it away."""

    def scale(data):
        both = np.concatenate([data.X, data.layers["control"]])
        low, high = both.min(axis=0), both.max(axis=0)
        data.X = (data.X - low) / (high - low)
        data.layers["control"] = (data.layers["control"] - low) / (high - low)
        del data.layers["effect"]

    study = ps.Study.create(tmp_path / "s", data=changed(world_file, tmp_path, scale), seed=1)
    found = next(f for f in study.findings() if f.code == "scaling_fitted_on_all_rows")
    assert found.numbers["genes_scaled"] == 40 and found.numbers["genes_with_extreme_in_test_only"] >= 5


@pytest.mark.parametrize("apart", [False, True])
def test_z_scores_fitted_with_the_test_in_view_are_found_by_their_moments(world_file, tmp_path, apart):
    """Pitfall 11, L6: per gene over all rows; or validation and test each with their own statistics."""
    table = ps.Study.create(tmp_path / "plan", data=world_file, seed=1).plan.table
    test = set(table.loc[table["role"] == "test", "sample_id"])

    def scale(data):
        held = np.array([name in test for name in data.obs_names])
        control = np.asarray(data.layers["control"], dtype=np.float64)
        treated = np.asarray(data.X, dtype=np.float64)
        for part in (held, ~held) if apart else (np.ones(len(held), dtype=bool),):
            both = np.concatenate([treated[part], control[part]])
            mean, sd = both.mean(axis=0), both.std(axis=0)
            treated[part], control[part] = (treated[part] - mean) / sd, (control[part] - mean) / sd
        data.X, data.layers["control"] = treated.astype(np.float32), control.astype(np.float32)
        del data.layers["effect"]

    study = ps.Study.create(tmp_path / "s", data=changed(world_file, tmp_path, scale), seed=1)
    code = "test_scaled_by_itself" if apart else "scaling_fitted_on_all_rows"
    found = next(f for f in study.findings() if f.code == code)
    assert found.severity == "warning" and found.numbers["genes_scaled"] == 40


def test_the_preprocessing_card_of_new_data_must_be_that_of_the_study(judged, world_file, tmp_path):
    """Pitfall 11: other units at use than at learning."""

    def linear(data):
        data.X = None
        data.obs_names = [f"new{i}" for i in range(data.n_obs)]
        data.layers["control"] = 2.0 ** np.asarray(data.layers["control"], dtype=np.float32) * 50

    with pytest.raises(ValueError, match="preprocessed in another way"):
        judged.predict(changed(world_file, tmp_path, linear), tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()


# -- leaks in the design ---------------------------------------------------------------------------------------------


def design(n_perturbations: int = 40):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"perturbation": np.repeat([f"d{i}" for i in range(n_perturbations)], 4), "cell_line": "A"},
        index=[f"s{i}" for i in range(4 * n_perturbations)],
    )
    control = rng.normal(8, 1, (len(obs), 50)).astype(np.float32)
    return obs, control, (control + rng.normal(0, 1, control.shape)).astype(np.float32)


def test_row_wise_folds_are_an_error_with_the_share_of_test_samples_affected(tmp_path, world_file):
    """L2, L11: groups that do not reach the splitter; a plan by sample puts replicates on both sides."""
    ids = ad.read_h5ad(world_file, backed="r").obs_names
    table = pd.DataFrame({"sample_id": ids, "fold": np.arange(len(ids)) % 3, "role": "development"})
    table.loc[::5, ["fold", "role"]] = [None, "test"]
    table.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(LeakError, match=r"groups \(perturbation\) with \d+ samples are in development and"):
        ps.Study.create(tmp_path / "s", data=world_file, plan=tmp_path / "rows.csv")
    study = ps.Study.create(tmp_path / "s", data=world_file, plan=tmp_path / "rows.csv", group="sample")
    found = next(f for f in study.findings() if f.code == "perturbation_across")
    assert found.severity == "warning" and found.numbers["test_share"] > 0.5
    assert study.plan.group_by == "sample"


def test_a_copy_across_folds_is_an_error_and_a_near_copy_is_named_exactly():
    obs, control, treated = design()
    plan = FoldPlan.make(obs, seed=1)
    place = plan.table.set_index("sample_id")["fold"].fillna(-1).loc[obs.index].to_numpy()
    a, b = np.flatnonzero(place == 0)[0], np.flatnonzero(place == -1)[0]
    twice = treated.copy()
    twice[b] = treated[a]
    found = {f.code: f for f in check_plan(plan, obs, lambda: [(obs.index, control, twice)])}
    assert found["identical_rows_across"].severity == "error" and obs.index[b] in str(found["identical_rows_across"])
    near = treated.copy()
    near[b] = treated[a] + np.random.default_rng(3).normal(0, 0.01, 50)
    found = {f.code: f for f in check_plan(plan, obs, lambda: [(obs.index, control, near)])}
    close = found["near_duplicates_across"]
    assert close.numbers["exact"] and close.numbers["pairs"] == 1 and close.numbers["in_test"] == 1
    assert f"{obs.index[min(a, b)]} ~ {obs.index[max(a, b)]}" in close.examples[0]


def test_init_reads_the_rows_twice_for_exact_near_duplicates(world_file, tmp_path):
    def copy_one(data):
        line = data.obs["cell_line"].astype(str).to_numpy()
        drug = data.obs["perturbation"].astype(str).to_numpy()
        a = 0
        for b in np.flatnonzero((drug != drug[a]) & (line == line[a]))[::15]:
            data.X[b] = data.X[a] + np.random.default_rng(b).normal(0, 0.001, data.n_vars)

    study = ps.Study.create(tmp_path / "s", data=changed(world_file, tmp_path, copy_one), seed=1)
    found = next(f for f in study.findings() if f.code == "near_duplicates_across")
    assert found.numbers["exact"] is True and found.numbers["largest"] > 0.999


def test_one_compound_under_two_names_is_found():
    obs, control, treated = design()
    plan = FoldPlan.make(obs, seed=1)
    place = plan.table.assign(fold=plan.table["fold"].fillna(-1)).groupby("group")["fold"].first()
    a, b = place.index[place == 0][0], place.index[place == -1][0]
    smiles = obs["perturbation"].map(lambda p: "C" * (3 + int(p[1:])))
    smiles[obs["perturbation"] == b] = "C" * (3 + int(a[1:]))
    found = {f.code: f for f in check_plan(plan, obs.assign(smiles=smiles), [(obs.index, control, treated)])}
    assert found["structure_across"].severity == "error" and found["structure_across"].numbers["in_test"] >= 1
