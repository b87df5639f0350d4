"""``pertstack add`` of files that name no sample: matched by what was done, checked like any other addition."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import IntegrityError, LeakError, MisalignedError
from pertstack.study.study import Study
from references import prediction_files as files


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    data = files.truth(folder)
    study = Study.create(folder / "study", data=folder / "truth.h5ad", folds=2, test=0.2, seed=1)
    return folder, study, files.profiles(data)


def stored(study, model):
    """Every stored prediction by sample id."""
    store = study.folder.store
    parts = [
        pd.DataFrame(store.read(b, model, start=0, stop=store.n_samples(b)), store.sample_ids(b), store.gene_names)
        for b in store.blocks()
    ]
    return pd.concat(parts)


def test_a_dict_of_pairs_serves_every_sample_of_the_study(world, tmp_path):
    _, study, profiles = world
    report = study.add(
        "gears",
        files.gears_json(tmp_path / "run", profiles) / "all_predictions.json",
        fitted_on="plan",
        scale="treated",
    )
    assert report.n_samples == 36
    ours = stored(study, "gears")
    theirs = profiles.loc[study.folder.samples.loc[ours.index, "perturbation"].to_numpy(), ours.columns]
    np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=0, atol=1e-6)
    codes = {f.code for f in report.findings}
    assert {"matched_by_key", "genes_by_list"} <= codes
    assert {f.where for f in report.findings if f.code == "matched_by_key"} == {"gears"}


def test_changes_are_added_to_the_control_of_every_sample(world, tmp_path):
    _, study, profiles = world
    change = profiles - profiles.mean()
    study.add("change", files.gears_pickle(tmp_path / "change.pkl", change), fitted_on="plan", scale="delta")
    ours, store = stored(study, "change"), study.folder.store
    control = stored(study, "control")
    done = study.folder.samples.loc[ours.index, "perturbation"].to_numpy()
    theirs = control.loc[ours.index].to_numpy() + change.loc[done, list(store.gene_names)].to_numpy()
    np.testing.assert_allclose(ours.to_numpy(), theirs, rtol=0, atol=1e-5)


def test_pairs_that_are_not_predicted_are_refused_or_recorded(world, tmp_path):
    _, study, profiles = world
    path = files.gears_pickle(tmp_path / "some.pkl", profiles.iloc[3:])
    with pytest.raises(MisalignedError, match="are not predicted"):
        study.add("some", path, fitted_on="plan", scale="treated")
    report = study.add("some", path, fitted_on="plan", scale="treated", missing="record")
    assert report.n_samples == 30
    assert next(f for f in report.findings if f.code == "keys_missing").count == 3


def test_a_pair_in_two_folds_cannot_be_out_of_fold_for_both(world, tmp_path):
    """Split by sample: both replicates of a pair get one prediction, of one fit."""
    folder, _, profiles = world
    study = Study.create(tmp_path / "by_sample", data=folder / "truth.h5ad", folds=2, test=0.0, seed=1, group="sample")
    path = files.gears_pickle(tmp_path / "gears.pkl", profiles)
    with pytest.raises(LeakError, match=r"one prediction serves 'sample_\d+' in fold \d and 'sample_\d+' in fold \d"):
        study.add("gears", path, fitted_on="plan", scale="treated")
    assert study.folder.store.models() == []
    study.add("gears", path, fitted_on="unknown", scale="treated")


def test_the_truth_itself_is_no_prediction(world, tmp_path):
    """The measured rows of one batch, given as a prediction of their pairs."""
    folder, study, _ = world
    data = anndata.read_h5ad(folder / "truth.h5ad")
    one = data[(data.obs["batch"] == "1") & (data.obs["condition"] != "ctrl")]
    both = data[data.obs["condition"] != "ctrl"]
    with pytest.raises(IntegrityError, match="are the measured values themselves"):
        study.add(
            "copy",
            files.h5ad(tmp_path / "copy.h5ad", both.X, both.obs[[]], files.GENES),
            fitted_on="unknown",
            scale="treated",
        )
    obs = one.obs[["condition"]].set_axis([f"r{i}" for i in range(len(one))])
    with pytest.raises(IntegrityError, match="are the measured values themselves"):
        study.add(
            "half", files.h5ad(tmp_path / "half.h5ad", one.X, obs, files.GENES), fitted_on="unknown", scale="treated"
        )


def test_a_folder_of_folds_is_added_as_one_model(world, tmp_path):
    """Rows are numbered from 0 in every file; what they are is said by ``perturbation``."""
    _, study, profiles = world
    folder = tmp_path / "sclambda"
    folder.mkdir()
    for i in range(3):
        part = profiles.iloc[i::3]
        obs = pd.DataFrame({"perturbation": part.index}, index=[str(k) for k in range(len(part))])
        files.h5ad(folder / f"fold_{i}.h5ad", part, obs, files.GENES)
    assert study.add("sclambda", folder, fitted_on="unknown", scale="treated").n_samples == 36


def k_folds(path, names, k=3):
    """``kfold_splits.json``: train, val and test of every fold."""
    tests = [list(names[i::k]) for i in range(k)]
    folds = {}
    for i, test in enumerate(tests):
        rest = [n for n in names if n not in test]
        folds[f"fold_{i}"] = {"train": rest[2:], "val": rest[:2], "test": test}
    path.write_text(json.dumps(folds))
    return path


def test_models_of_scperteval_come_in_by_their_own_split(world, tmp_path):
    """Three files with repeated row names, and the split they were made on: train and val were seen, test was not."""
    folder, elsewhere, profiles = world
    split = k_folds(tmp_path / "kfold_splits.json", profiles.index)
    study = Study.create(tmp_path / "study", data=folder / "truth.h5ad", plan=split)
    run = tmp_path / "gears"
    run.mkdir()
    for i in range(3):
        part = profiles.iloc[i::3]
        obs = pd.DataFrame({"perturbation": part.index}, index=[str(k) for k in range(len(part))])
        files.h5ad(run / f"fold_{i}.h5ad", part, obs, files.GENES)
    report = study.add("gears", run, fitted_on=split, scale="treated")
    assert report.n_samples == 36 and not [f for f in report.findings if f.code in ("in_sample_rows", "unverified")]
    ours = stored(study, "gears")
    theirs = profiles.loc[study.folder.samples.loc[ours.index, "perturbation"].to_numpy(), ours.columns]
    np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=0, atol=1e-6)
    for record in report.committed:
        test = set(profiles.index[record.block.fold :: 3])
        seen = study.folder.samples.loc[list(record.fitted_on.fit_ids), "perturbation"]
        assert set(seen) == set(profiles.index) - test  # val among them
    with pytest.raises(LeakError, match=r"holds samples of folds .* of the split.*--plan"):
        elsewhere.add("other", run, fitted_on=split, scale="treated")


def single_cut(form, folder, samples, names):
    """A split that cuts once: ten perturbations to train on, two to validate on, six to test on."""
    part = {n: "train" if i < 10 else "val" if i < 12 else "test" for i, n in enumerate(names)}
    path = folder / f"split.{form.split()[0]}"
    table = pd.DataFrame({"perturbation": list(part), "split": list(part.values())})
    if form == "json":
        path.write_text(json.dumps({p: [n for n in names if part[n] == p] for p in ("train", "val", "test")}))
    elif form == "csv of samples":
        of = samples["perturbation"].map(part)
        pd.DataFrame({"sample_id": samples.index, "subset": of.to_numpy()}).to_csv(path, index=False)
    elif form == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("form", ["json", "csv", "parquet", "csv of samples"])
def test_a_single_cut_names_the_rows_a_model_saw(world, tmp_path, form):
    """A table of samples with parts was a list of ids: the test rows counted as seen too."""
    _, study, profiles = world
    path = single_cut(form, tmp_path, study.folder.samples, list(profiles.index))
    file = files.gears_pickle(tmp_path / "cut.pkl", profiles)
    report = study.add(f"cut by {form}", file, fitted_on=path, scale="treated")
    assert next(f for f in report.findings if f.code == "in_sample_rows").count == 24  # 12 pairs, twice


def test_values_of_another_scale_are_refused_after_a_match_by_key_too(world, tmp_path):
    _, study, profiles = world
    with pytest.raises(IntegrityError, match="another scale"):
        study.add(
            "exp", files.gears_pickle(tmp_path / "exp.pkl", np.expm1(profiles) * 50), fitted_on="plan", scale="treated"
        )


@pytest.mark.parametrize("form", ["csv", "parquet", "feather", "pkl"])
def test_columns_that_the_mapping_names_are_read_as_such_from_tables(world, tmp_path, form):
    """Names that nobody knows made the first column ids, which repeat, or a dose a gene; ``--map`` was not heard."""
    _, study, profiles = world
    lines = sorted(set(study.folder.samples["cell_line"].astype(str)))
    parts = [profiles.rename_axis("agent").reset_index().assign(grown=line, amount=10.0) for line in lines]
    table = pd.concat(parts, ignore_index=True)[["agent", "grown", "amount", *profiles.columns]]
    path = tmp_path / f"predictions.{form}"
    write = {"parquet": table.to_parquet, "feather": table.to_feather, "pkl": table.to_pickle}
    table.to_csv(path, index=False) if form == "csv" else write[form](path)
    mapping = {"perturbation": "agent", "cell_line": "grown", "dose": "amount"}
    report = study.add(f"by {form}", path, fitted_on="plan", scale="treated", mapping=mapping)
    assert report.n_samples == 36
    ours = stored(study, f"by {form}")
    theirs = profiles.loc[study.folder.samples.loc[ours.index, "perturbation"].to_numpy(), ours.columns]
    np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=0, atol=1e-5)
