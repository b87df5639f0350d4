"""Prediction files as the field writes them: one command each, right to 1e-6 against plain pandas, or refused."""

from __future__ import annotations

import gzip
import json
import pickle
import re

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import python_c
from pertstack._base.errors import InputError, IntegrityError, MisalignedError
from pertstack.data.readers.open import open_data
from pertstack.predictions.importers.by_key import by_id_or_key
from pertstack.predictions.importers.readers.opening import open_file
from pertstack.study.new_rows.evaluation_rows import matched_values
from references import cell_worlds as cells
from references import prediction_files as files


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    data = files.truth(folder)
    return folder, data, files.profiles(data)


def values_of(world, path, **options):
    """The predicted profile of every measured sample, by its id, as evaluate sees it."""
    found = matched_values(world[0] / "truth.h5ad", {"model": path}, **options)
    return pd.DataFrame(found.values["model"], found.samples.index, found.genes), found


def assert_right(world, path, expected, **options):
    """Every sample has the profile that plain pandas gives its perturbation."""
    ours, found = values_of(world, path, **options)
    condition = world[1].obs["condition"].astype(str)
    treated = condition[condition != "ctrl"]
    theirs = expected.loc[treated.to_numpy()]
    np.testing.assert_allclose(ours.loc[treated.index].to_numpy(), theirs.to_numpy(), rtol=0, atol=1e-6)
    return found


def test_a_file_of_the_linear_benchmark_with_its_gene_list_beside_it(world, tmp_path):
    """Keys are A_B in the other order and A+ctrl; genes are named by ``gene_names.json`` in the folder."""
    folder = files.gears_json(tmp_path / "run_7", world[2])
    found = assert_right(world, folder, world[2])
    assert "gene_names.json" in next(f for f in found.findings if f.code == "genes_by_list").message


def test_a_pickled_dict_with_its_gene_list_is_read_without_running_it(world, tmp_path):
    assert_right(world, files.gears_pickle(tmp_path / "gears.pkl", world[2]), world[2])


def test_a_pickle_that_would_run_something_is_refused(world, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    path = tmp_path / "bomb.pkl"
    path.write_bytes(pickle.dumps({"A": Bomb()}))
    with pytest.raises(InputError, match="print"):
        values_of(world, path)


def test_pickled_anndata_are_refused_with_the_mend(world, tmp_path):
    """PerturBench keeps a dict of AnnData per model; such objects are not unpickled."""
    path = tmp_path / "perturbench.pkl"
    path.write_bytes(pickle.dumps({"model": anndata.AnnData(np.zeros((2, 2), np.float32))}))
    with pytest.raises(InputError, match="anndata"):
        values_of(world, path)


@pytest.mark.parametrize("year", [2025, 2026])
def test_an_entry_of_the_virtual_cell_challenge(world, tmp_path, year):
    x, obs = files.cells_of(world[2])
    obs["context"] = files.LINE
    inner = files.h5ad(tmp_path / "pred.h5ad", x, obs, files.GENES)
    entry = files.vcc(tmp_path / "entry.vcc", inner, year=year)
    assert_right(world, entry, files.mean_of_cells(x, obs))


def test_a_vcc_cut_short_is_refused(world, tmp_path):
    x, obs = files.cells_of(world[2])
    inner = files.h5ad(tmp_path / "pred.h5ad", x, obs, files.GENES)
    entry = files.vcc(tmp_path / "entry.vcc", inner, cut=9_000)
    with pytest.raises(InputError, match="cut short"):
        values_of(world, entry)


def test_cells_of_state_without_gene_names_take_those_of_their_sibling(world, tmp_path):
    """Positional columns; ``adata_real.h5ad`` beside them names the genes."""
    x, obs = files.cells_of(world[2])
    run = tmp_path / "state"
    run.mkdir()
    path = files.h5ad(run / "adata_pred.h5ad", x, obs)
    files.h5ad(run / "adata_real.h5ad", x[:3], obs[:3], files.GENES)
    assert_right(world, path, files.mean_of_cells(x, obs))


def test_without_gene_names_a_list_is_asked_for(world, tmp_path):
    x, obs = files.cells_of(world[2])
    path = files.h5ad(tmp_path / "adata_pred.h5ad", x, obs)
    with pytest.raises(InputError, match=r"does not name its 40 columns.*--genes FILE"):
        values_of(world, path)
    listed = tmp_path / "order.txt"
    listed.write_text("\n".join(files.GENES))
    assert_right(world, path, files.mean_of_cells(x, obs), genes=listed)


def test_a_gene_list_in_another_order_is_seen_from_the_means(world, tmp_path):
    x, obs = files.cells_of(world[2])
    path = files.h5ad(tmp_path / "adata_pred.h5ad", x, obs)
    listed = tmp_path / "order.txt"
    listed.write_text("\n".join(np.random.default_rng(0).permutation(files.GENES)))
    with pytest.raises(IntegrityError, match="another order"):
        values_of(world, path, genes=listed)


def test_ensembl_ids_with_versions_meet_symbols_through_the_second_names(world, tmp_path):
    """The file is indexed by ENSG... .7, the truth by symbols with ``ensembl_id`` beside them."""
    obs = pd.DataFrame({"condition": world[2].index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    order = np.random.default_rng(3).permutation(40)
    path = files.h5ad(
        tmp_path / "versions.h5ad", world[2].to_numpy()[:, order], obs, [f"{files.ENSEMBL[i]}.7" for i in order]
    )
    assert_right(world, path, world[2])


def test_symbols_in_a_column_of_a_file_indexed_by_ensembl(world, tmp_path):
    """GEARS data: Ensembl index and ``gene_name``."""
    obs = pd.DataFrame({"condition": world[2].index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    var = pd.DataFrame({"gene_name": files.GENES}, index=[f"X{i}" for i in range(40)])
    assert_right(world, files.h5ad(tmp_path / "gears.h5ad", world[2], obs, var=var), world[2])


def test_two_names_for_one_gene_that_collide_are_refused(world, tmp_path):
    obs = pd.DataFrame({"condition": world[2].index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    names = [*files.GENES[:39], files.GENES[0]]
    var = pd.DataFrame({"gene_name": names}, index=[f"X{i}" for i in range(40)])
    with pytest.raises(MisalignedError, match=r"more than one column: 'GENE00'"):
        values_of(world, files.h5ad(tmp_path / "twice.h5ad", world[2], obs, var=var))


def test_pseudobulk_of_state_with_its_number_of_cells(world, tmp_path):
    """``--pseudobulk``: one row per context and perturbation."""
    obs = pd.DataFrame({"target_gene": world[2].index, "cell_type": files.LINE, "pseudobulk_n_cells": 100})
    path = files.h5ad(tmp_path / "adata_pred.h5ad", world[2], obs.set_axis(map(str, obs.index)), files.GENES)
    assert_right(world, path, world[2])


def test_a_folder_of_folds_with_row_names_that_repeat(world, tmp_path):
    """scPertEval: ``fold_<i>.h5ad`` of the held-out perturbations, rows numbered from 0 in every file."""
    folder = tmp_path / "sclambda"
    folder.mkdir()
    for i in range(3):
        part = world[2].iloc[i::3]
        obs = pd.DataFrame({"perturbation": part.index}, index=[str(k) for k in range(len(part))])
        files.h5ad(folder / f"fold_{i}.h5ad", part, obs, files.GENES)
    (folder / "kfold_splits.json").write_text(json.dumps({}))
    assert_right(world, folder, world[2])


def test_folds_that_predict_the_same_pair_twice_are_refused(world, tmp_path):
    folder = tmp_path / "twice"
    folder.mkdir()
    for i in range(2):
        obs = pd.DataFrame({"perturbation": world[2].index}, index=[str(k) for k in range(18)])
        files.h5ad(folder / f"fold_{i}.h5ad", world[2] + i, obs, files.GENES)
    with pytest.raises(MisalignedError, match="are in more than one file"):
        values_of(world, folder)


def test_open_problems_keeps_predictions_in_a_layer(world, tmp_path):
    obs = pd.DataFrame({"condition": world[2].index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    path = files.h5ad(
        tmp_path / "layer.h5ad", np.zeros((18, 40)), obs, files.GENES, layers={"prediction": world[2].to_numpy()}
    )
    assert_right(world, path, world[2])


def test_the_raw_part_of_a_file_is_a_layer_with_genes_of_its_own(world, tmp_path):
    """X cut to some genes, all of them in ``.raw``: as ``init --treated-layer raw`` reads data."""
    frame = world[2]
    obs = pd.DataFrame({"condition": frame.index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    data = anndata.AnnData(frame.to_numpy(), obs, pd.DataFrame(index=files.GENES))
    data.raw = data.copy()
    data[:, :5].copy().write_h5ad(tmp_path / "m.h5ad")
    assert_right(world, tmp_path / "m.h5ad", frame, layer="raw")


def test_perturbench_keeps_control_cells_among_the_predicted(world, tmp_path):
    """An AnnData per model, written to a file: ``condition``, ``cell_type``, control cells in it."""
    x, obs = files.cells_of(world[2])
    obs = obs.rename(columns={"target_gene": "condition"}).assign(cell_type=files.LINE)
    obs["condition"] = ["+".join(reversed(c.split("+"))) for c in obs["condition"]]
    path = files.h5ad(tmp_path / "latent_additive.h5ad", x, obs, files.GENES)
    named = obs.assign(condition=["+".join(sorted(c.split("+"))) for c in obs["condition"]])
    found = assert_right(world, path, files.mean_of_cells(x, named, "condition"))
    assert "7 control rows are not used" in next(f for f in found.findings if f.code == "matched_by_key").message


def test_scarchon_keeps_control_treated_and_predicted_cells_in_one_file(world, tmp_path):
    """Only rows whose status says predicted are predictions: the treated ones are the truth."""
    x, obs = files.cells_of(world[2])
    obs["status"] = np.where(obs["target_gene"] == "ctrl", "control", "predicted")
    treated = pd.DataFrame({"target_gene": world[2].index, "status": "treated"}, index=[f"t{i}" for i in range(18)])
    path = files.h5ad(
        tmp_path / "scarchon.h5ad", np.vstack([x, world[2].to_numpy() + 5]), pd.concat([obs, treated]), files.GENES
    )
    found = assert_right(world, path, files.mean_of_cells(x, obs))
    assert "18 rows are not predictions" in " ".join(f.message for f in found.findings)


def test_a_table_with_columns_that_say_what_was_done(world, tmp_path):
    """CSV and parquet: perturbation and cell line in front of the genes."""
    frame = world[2].reset_index(names="perturbation")
    frame.insert(1, "cell_line", files.LINE)
    for write, name in ((frame.to_csv, "table.csv"), (frame.to_parquet, "table.parquet")):
        write(tmp_path / name, index=False)
        assert_right(world, tmp_path / name, world[2])


def test_a_table_indexed_by_perturbation_alone(world, tmp_path):
    world[2].to_csv(tmp_path / "wide.csv")
    assert_right(world, tmp_path / "wide.csv", world[2])


def test_ragged_profiles_in_a_json_are_refused(world, tmp_path):
    (tmp_path / "predictions.json").write_text(json.dumps({"GENE00": [1, 2, 3], "GENE01": [1, 2]}))
    with pytest.raises(InputError, match="different lengths"):
        values_of(world, tmp_path / "predictions.json")


def test_a_json_that_would_not_fit_into_memory_is_refused_unread(world, tmp_path):
    path = tmp_path / "huge_predictions.json"
    with path.open("wb") as stream:
        stream.truncate(2_000_000_000)  # sparse: takes no room
    with pytest.raises(InputError, match=r"2\.0 GB.*to_parquet"):
        values_of(world, path)


def test_the_truth_of_this_corpus_is_read_as_samples(world):
    """18 perturbations in two batches, each with the control of its batch."""
    file = open_data(world[0] / "truth.h5ad")
    assert file.n_samples == 36 and set(file.obs["perturbation"]) == {*files.SINGLES, *files.DOUBLES}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A truth of counts, 8 targets in two batches, and the same perturbations predicted as counts of cells."""
    folder = tmp_path_factory.mktemp("counted")
    obs = cells.design(cells.TARGETS[:8], lines=("K562", "RPE1"))
    x = cells.counts_of(obs, "target_gene", "cell_line")
    cells.write(folder / "truth.h5ad", obs, x)
    foretold = cells.design(cells.TARGETS[:8], lines=("K562", "RPE1"), batches=("1",), n=20, seed=5)
    y = cells.counts_of(foretold, "target_gene", "cell_line") + (np.arange(30) % 3 == 0)
    return folder, foretold[["target_gene", "cell_line"]].set_axis(map(str, range(len(foretold)))), y.astype(np.float32)


KEYS = ["target_gene", "cell_line"]


def by_pair(found, values):
    """What every pair was given, by ``perturbation|cell line``; equal for all its samples."""
    pairs = (found.samples["perturbation"] + "|" + found.samples["cell_line"]).to_numpy()
    table = pd.DataFrame(values, pairs)
    assert np.ptp(table.groupby(level=0).transform("std").fillna(0).to_numpy()) == 0
    return table.groupby(level=0).first()


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_predicted_counts_are_summed_as_the_counts_of_the_truth_were(counted, tmp_path, form):
    folder, obs, y = counted
    path = cells.write(tmp_path / "pred.h5ad", obs, y, form=form)
    found = matched_values(folder / "truth.h5ad", {"model": path})
    theirs = cells.pseudobulk_of(y, obs, KEYS).drop(index=["non-targeting|K562", "non-targeting|RPE1"])
    np.testing.assert_allclose(by_pair(found, found.values["model"]).loc[theirs.index], theirs, rtol=0, atol=1e-6)
    assert len(found.samples) == 32  # both batches of every pair


def test_logarithms_of_cells_are_averaged_as_expression_for_a_truth_of_counts(counted, tmp_path):
    folder, obs, y = counted
    logs = cells.lognormal(y)
    found = matched_values(folder / "truth.h5ad", {"model": cells.write(tmp_path / "logs.h5ad", obs, logs)})
    mean = cells.means_of(np.expm1(logs.astype(np.float64)), obs, KEYS).drop(
        index=["non-targeting|K562", "non-targeting|RPE1"]
    )
    theirs = np.log1p(mean.div(mean.sum(axis=1), axis=0) * 1e4)
    np.testing.assert_allclose(by_pair(found, found.values["model"]).loc[theirs.index], theirs, rtol=0, atol=1e-5)
    assert any(f.code == "averaged_as_expression" for f in found.findings)


@pytest.mark.parametrize("pattern", ["{}|{}", "{}_{}", "{1}/{0}"])
def test_names_of_two_cell_lines_are_told_apart(counted, tmp_path, pattern):
    """Every profile is another one: a line taken for the other would show."""
    folder, obs, y = counted
    profiles = cells.pseudobulk_of(y, obs, KEYS).drop(index=["non-targeting|K562", "non-targeting|RPE1"])
    names = [pattern.format(*pair.split("|")) for pair in profiles.index]
    content = {"genes": cells.GENES, "predictions": dict(zip(names, profiles.to_numpy().tolist(), strict=True))}
    (tmp_path / "p.json").write_text(json.dumps(content))
    found = matched_values(folder / "truth.h5ad", {"model": tmp_path / "p.json"})
    np.testing.assert_allclose(by_pair(found, found.values["model"]).loc[profiles.index], profiles, rtol=0, atol=1e-6)


@pytest.mark.parametrize("depth", [1e4, 1523.0, 1e6])
def test_logarithms_of_another_depth_are_brought_to_that_of_the_truth(counted, tmp_path, depth):
    """scanpy divides by the depth of the median cell unless it is told another."""
    folder, obs, y = counted
    logs = np.log1p(y / y.sum(axis=1, keepdims=True) * depth).astype(np.float32)
    found = matched_values(folder / "truth.h5ad", {"model": cells.write(tmp_path / "logs.h5ad", obs, logs)})
    (said,) = [f.message for f in found.findings if f.code == "averaged_as_expression"]
    assert (f"{depth:,.0f} counts a cell" in said) == (depth != 1e4)
    mean = cells.means_of(y / y.sum(axis=1, keepdims=True).astype(np.float64), obs, KEYS)
    theirs = np.log1p(mean.drop(index=["non-targeting|K562", "non-targeting|RPE1"]) * 1e4)
    np.testing.assert_allclose(by_pair(found, found.values["model"]).loc[theirs.index], theirs, rtol=0, atol=1e-4)


def test_cells_of_a_model_score_as_its_profiles_do(counted, tmp_path):
    """Predicted cells rarely add up to the depth of the truth; made to, they said another thing than their mean."""
    folder, obs, y = counted
    draw = np.random.default_rng(0)
    logs = (cells.lognormal(y) * draw.lognormal(0, 0.02, (1, y.shape[1])) + 0.05).astype(np.float32)
    found = matched_values(folder / "truth.h5ad", {"model": cells.write(tmp_path / "logs.h5ad", obs, logs)})
    mean = cells.means_of(np.expm1(logs.astype(np.float64)), obs, KEYS)
    theirs = np.log1p(mean.drop(index=["non-targeting|K562", "non-targeting|RPE1"]))
    np.testing.assert_allclose(by_pair(found, found.values["model"]).loc[theirs.index], theirs, rtol=0, atol=1e-5)


def test_normalised_counts_without_a_logarithm_ask_for_the_transform(counted, tmp_path):
    """They were taken for logarithms, and the answer was that the file held infinite values."""
    folder, obs, y = counted
    path = cells.write(tmp_path / "m.h5ad", obs, np.expm1(cells.lognormal(y)))
    with pytest.raises(InputError, match=r"normalised counts rather than.*--transform log1p_cp10k"):
        matched_values(folder / "truth.h5ad", {"m": path})
    found = matched_values(folder / "truth.h5ad", {"m": path}, transform="log1p_cp10k")
    logs = matched_values(folder / "truth.h5ad", {"m": cells.write(tmp_path / "l.h5ad", obs, cells.lognormal(y))})
    np.testing.assert_allclose(found.values["m"], logs.values["m"], rtol=0, atol=1e-5)


def test_counts_for_a_truth_of_logarithms_ask_for_the_transform(counted, tmp_path):
    _, obs, y = counted
    truth = cells.design(cells.TARGETS[:8], lines=("K562", "RPE1"))
    logs = cells.lognormal(cells.counts_of(truth, "target_gene", "cell_line"))
    cells.write(tmp_path / "truth.h5ad", truth, logs)
    path = cells.write(tmp_path / "pred.h5ad", obs, y)
    with pytest.raises(InputError, match="--transform log1p_cp10k"):
        matched_values(tmp_path / "truth.h5ad", {"model": path})
    found = matched_values(tmp_path / "truth.h5ad", {"model": path}, transform="log1p_cp10k")
    theirs = cells.means_of(cells.lognormal(y), obs, KEYS).drop(index=["non-targeting|K562", "non-targeting|RPE1"])
    np.testing.assert_allclose(by_pair(found, found.values["model"]).loc[theirs.index], theirs, rtol=0, atol=1e-5)


def test_counts_and_logarithms_in_one_file_are_refused(counted, tmp_path):
    folder, obs, y = counted
    mixed = np.vstack([y[:600] if len(y) > 600 else y[: len(y) // 2], cells.lognormal(y[len(y) // 2 :])])
    rows = pd.concat([obs, obs]).iloc[: len(mixed)].set_axis(map(str, range(len(mixed))))
    path = cells.write(tmp_path / "mixed.h5ad", rows, mixed)
    with pytest.raises(InputError, match=r"[Cc]ounts and\s+logarithms"):
        matched_values(folder / "truth.h5ad", {"model": path})


def tahoe(folder, doses=(0.05, 0.5)):
    """Labels as lists of tuples, 50 cell lines on one plate (here two), DMSO_TF as control; means of log values."""
    rng = np.random.default_rng(8)
    base = {line: rng.gamma(2, 1, 40) for line in ("CVCL_0023", "CVCL_0480")}
    effect = {(d, dose): rng.normal(0, 0.5, 40) for d in "ABCDEF" for dose in (0.05, 0.5)}
    rows = [(f"[('{d}', {dose}, 'uM')]", line, d, dose) for d in "ABCDEF" for dose in doses for line in base]
    rows += [("[('DMSO_TF', 0.0, 'uM')]", line, None, None) for line in base for _ in range(3)]
    obs = pd.DataFrame(
        {"drugname_drugconc": [r[0] for r in rows], "cell_line": [r[1] for r in rows], "plate": "plate1"},
        index=[f"s{i}" for i in range(len(rows))],
    )
    x = np.stack([base[r[1]] + (effect[r[2], r[3]] if r[2] else 0) for r in rows]) + rng.normal(0, 0.1, (len(rows), 40))
    return obs, x.astype(np.float32), files.h5ad(folder / "tahoe.h5ad", x, obs, files.GENES)


def test_tahoe_labels_are_matched_by_drug_dose_and_line(tmp_path):
    obs, x, truth = tahoe(tmp_path)
    kept = ~obs["drugname_drugconc"].str.contains("DMSO")
    order = np.random.default_rng(1).permutation(np.flatnonzero(kept))
    foretold = x[order] + np.float32(0.3) * np.random.default_rng(2).normal(size=(len(order), 40)).astype(np.float32)
    rows = obs.iloc[order].set_axis([str(i) for i in range(len(order))])
    path = files.h5ad(tmp_path / "adata_pred.h5ad", foretold, rows, files.GENES)
    found = matched_values(truth, {"state": path})
    theirs = pd.DataFrame(foretold, obs.index[order])
    np.testing.assert_allclose(found.values["state"], theirs.loc[found.samples.index], rtol=0, atol=1e-6)
    assert "log10_dose" in found.models[0].matches[0].key


def test_doses_that_were_not_predicted_are_missing_rather_than_served_by_another(tmp_path):
    _, _, truth = tahoe(tmp_path)
    folder = tmp_path / "one"
    folder.mkdir()
    obs, x, _ = tahoe(folder, doses=(0.5,))
    kept = (~obs["drugname_drugconc"].str.contains("DMSO")).to_numpy()
    path = files.h5ad(folder / "adata_pred.h5ad", x[kept] + 0.2, obs[kept].set_axis(map(str, range(12))), files.GENES)
    found = matched_values(truth, {"state": path})
    assert len(found.samples) == 12
    missing = next(f for f in found.findings if f.code == "keys_missing")
    assert missing.count == 12


def test_predictions_of_several_doses_for_a_truth_without_doses_are_averaged_with_a_warning(world, tmp_path):
    twice = pd.concat([world[2] + 0.1, world[2] - 0.1])
    obs = pd.DataFrame({"condition": twice.index, "dose": np.repeat([1.0, 10.0], 18), "dose_unit": "uM"})
    path = files.h5ad(tmp_path / "doses.h5ad", twice, obs.set_axis(map(str, range(36))), files.GENES)
    found = assert_right(world, path, world[2])
    warned = next(f for f in found.findings if f.code == "averaged_over_doses")
    assert warned.severity == "warning" and warned.count == 18


def keys_behind_the_genes(folder, frame):
    frame.reset_index(names="perturbation")[[*files.GENES, "perturbation"]].to_csv(folder / "p.csv", index=False)
    return "p.csv"


def keys_behind_row_numbers(folder, frame):
    frame.reset_index(names="Perturbation").to_csv(folder / "p.csv")
    return "p.csv"


def text_beside_the_keys(suffix):
    def made(folder, frame):
        table = frame.reset_index(names="perturbation").assign(model="gears", n_cells=50)
        table = table[["perturbation", "model", "n_cells", *files.GENES]]
        table.to_parquet(folder / "p.parquet") if suffix == "parquet" else table.to_csv(folder / "p.csv", index=False)
        return f"p.{suffix}"

    return made


def two_indices(folder, frame):
    index = pd.MultiIndex.from_tuples([(p, files.LINE) for p in frame.index], names=["perturbation", "cell_line"])
    frame.set_axis(index).to_parquet(folder / "p.parquet")
    return "p.parquet"


def pairs_for_names(folder, frame):
    obs = pd.DataFrame(index=[f"{p}|{files.LINE}" for p in frame.index])
    return files.h5ad(folder / "p.h5ad", frame, obs, files.GENES).name


def dict_of_series(folder, frame):
    (folder / "p.pkl").write_bytes(pickle.dumps({k: v.sample(frac=1, random_state=1) for k, v in frame.iterrows()}))
    return "p.pkl"


def arrays_by_perturbation(folder, frame):
    """In any order of rows; the cell line is that of the truth."""
    mixed = frame.sample(frac=1, random_state=2)
    lines = np.full(len(mixed), files.LINE)
    arrays = {"perturbation": np.array(mixed.index, dtype=str), "cell_line": lines, "genes": np.array(mixed.columns)}
    np.savez(folder / "p.npz", predictions=mixed.to_numpy(), **arrays)
    return "p.npz"


def arrays_of_anndata(folder, frame):
    names = {"obs_names": np.array(frame.index, dtype=str), "var_names": np.array(frame.columns, dtype=str)}
    np.savez(folder / "p.npz", X=np.asfortranarray(frame.to_numpy()), **names)
    return "p.npz"


def an_array_for_each_perturbation(folder, frame):
    np.savez(folder / "p.npz", gene_names=np.array(frame.columns), **{k: v.to_numpy() for k, v in frame.iterrows()})
    return "p.npz"


def pickled_arrays_by_perturbation(folder, frame):
    content = {"pred": frame.to_numpy(), "perturbation": list(frame.index), "gene_names": list(frame.columns)}
    (folder / "p.pkl").write_bytes(pickle.dumps(content))
    return "p.pkl"


def pickled_table_with_keys(folder, frame):
    frame.rename_axis("perturbation").reset_index().assign(cell_line=files.LINE).to_pickle(folder / "p.pkl")
    return "p.pkl"


def pickled_table_with_two_indices(folder, frame):
    index = pd.MultiIndex.from_tuples([(p, files.LINE) for p in frame.index], names=["perturbation", "cell_line"])
    frame.set_axis(index).to_pickle(folder / "p.pkl")
    return "p.pkl"


def names_beside_a_line_in_arrays(folder, frame):
    arrays = {"cell_line": np.full(len(frame), files.LINE), "split": np.full(len(frame), "test")}
    names = {"sample_ids": np.array(frame.index, dtype=str), "gene_names": np.array(frame.columns)}
    np.savez(folder / "p.npz", predictions=frame.to_numpy(), **names, **arrays)
    return "p.npz"


def names_beside_numbers_of_cells(folder, frame):
    obs = pd.DataFrame({"n_cells": np.arange(len(frame)), "cell_line": files.LINE}, index=frame.index)
    return files.h5ad(folder / "p.h5ad", frame, obs, files.GENES).name


def names_beside_a_line(suffix):
    def make(folder, frame):
        table = frame.assign(cell_line=files.LINE)
        table.to_pickle(folder / "p.pkl") if suffix == "pkl" else table.to_csv(folder / f"p.{suffix}")
        return f"p.{suffix}"

    return make


def names_that_say_both(form, pattern):
    def make(folder, frame):
        names = [pattern.format(p, files.LINE) for p in frame.index]
        if form == "json":
            content = {
                "genes": files.GENES,
                "predictions": dict(zip(names, frame.astype(float).to_numpy().tolist(), strict=True)),
            }
            (folder / "p.json").write_text(json.dumps(content))
        elif form == "csv":
            frame.assign(perturbation=names).to_csv(folder / "p.csv", index=False)
        else:
            np.savez(folder / "p.npz", predictions=frame.to_numpy(), sample_ids=names, gene_names=list(frame.columns))
        return f"p.{form}"

    return make


def dict_of_dicts(folder, frame):
    (folder / "p.json").write_text(json.dumps({k: v.astype(float).to_dict() for k, v in frame.iterrows()}))
    return "p.json"


def packed_json(folder, frame):
    content = {"gene_names": files.GENES, "predictions": {k: v.astype(float).tolist() for k, v in frame.iterrows()}}
    (folder / "p.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    return "p.json.gz"


def controls_joined_by_a_dash(folder, frame):
    obs = pd.DataFrame({"condition": [p.replace("+", "_") if "+" in p else f"{p}_ctrl" for p in frame.index]})
    return files.h5ad(folder / "p.h5ad", frame, obs.set_axis(map(str, obs.index)), files.GENES).name


@pytest.mark.parametrize(
    "make",
    [
        keys_behind_the_genes,
        keys_behind_row_numbers,
        text_beside_the_keys("csv"),
        text_beside_the_keys("parquet"),
        two_indices,
        pairs_for_names,
        arrays_by_perturbation,
        arrays_of_anndata,
        an_array_for_each_perturbation,
        pickled_arrays_by_perturbation,
        pickled_table_with_keys,
        pickled_table_with_two_indices,
        names_beside_a_line_in_arrays,
        names_beside_numbers_of_cells,
        names_beside_a_line("pkl"),
        names_beside_a_line("csv"),
        names_that_say_both("json", "{}|{}"),
        names_that_say_both("csv", "{1}_{0}"),
        names_that_say_both("npz", "{}::{}"),
        dict_of_series,
        dict_of_dicts,
        packed_json,
        controls_joined_by_a_dash,
    ],
)
def test_neighbours_of_the_forms_that_are_read(world, tmp_path, make):
    assert_right(world, tmp_path / make(tmp_path, world[2]), world[2])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_genes_as_rows_are_refused_with_the_command_that_turns_them(world, tmp_path, suffix):
    """Perturbations of a screen are genes too: such a table was read the other way round once."""
    path, turned = tmp_path / f"p.{suffix}", tmp_path / f"turned.{suffix}"
    world[2].T.to_parquet(path) if suffix == "parquet" else world[2].T.to_csv(path)
    with pytest.raises(MisalignedError, match="genes as rows and perturbations as columns") as refused:
        values_of(world, path)
    follow(str(refused.value), tmp_path)
    assert_right(world, turned, world[2])


def follow(message, folder):
    """Do what a message says in Python, as a user would."""
    command = re.search(r'python -c "(.*)", then name', message)[1]
    python_c(command, folder)


WRITTEN = {
    "csv": lambda t, path: t.to_csv(path),
    "named.csv": lambda t, path: t.rename_axis("gene").to_csv(path),
    "tsv": lambda t, path: t.to_csv(path, sep="\t"),
    "parquet": lambda t, path: t.to_parquet(path),
    "feather": lambda t, path: t.rename_axis("gene").reset_index().to_feather(path),
    "pkl": lambda t, path: t.to_pickle(path),
}


@pytest.mark.parametrize("suffix", WRITTEN)
def test_genes_as_rows_are_told_where_every_perturbation_is_a_measured_gene(tmp_path, suffix):
    """Rows that are genes were then taken for perturbations, and columns that are perturbations for genes."""
    genes = [f"GENE{i}" for i in range(20)]
    frame = pd.DataFrame(np.random.default_rng(0).normal(3, 1, (5, 20)).astype(np.float32), genes[:5], genes)
    samples = pd.DataFrame({"perturbation": genes[:5], "cell_line": "A"}, [f"s{i}" for i in range(5)])
    path = tmp_path / f"p.{suffix}"
    WRITTEN[suffix](frame.T, path)
    with pytest.raises(MisalignedError, match="genes as rows and perturbations as columns") as refused:
        by_id_or_key(open_file(path), samples, own_genes=genes)
    follow(str(refused.value), tmp_path)
    turned = open_file(next(tmp_path.glob("turned.*")))
    assert by_id_or_key(turned, samples, own_genes=genes).n_keys == 5
    found = pd.concat([pd.DataFrame(c.values, c.sample_ids, c.gene_names) for c in turned.chunks()])
    pd.testing.assert_frame_equal(found.loc[genes[:5], genes], frame, check_names=False, check_index_type=False)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.parquet", "p.feather"])
def test_a_row_for_every_perturbation_and_gene_is_refused_with_the_command_that_gives_genes_columns(
    world, tmp_path, name
):
    long = world[2].rename_axis("perturbation").reset_index().melt("perturbation", var_name="gene", value_name="value")
    write = {"csv": "to_csv", "tsv": "to_csv", "parquet": "to_parquet", "feather": "to_feather"}[name[2:]]
    how = {"csv": {"index": False}, "tsv": {"index": False, "sep": "\t"}}.get(name[2:], {})
    getattr(long, write)(tmp_path / name, **how)
    with pytest.raises(InputError, match="a row for every gene of every profile") as refused:
        values_of(world, tmp_path / name)
    follow(str(refused.value), tmp_path)
    assert_right(world, tmp_path / "wide.csv", world[2])


def test_a_file_for_each_perturbation_lacks_nothing(world, tmp_path):
    """Each was once said to lack what the others hold."""
    (tmp_path / "run").mkdir()
    for name in world[2].index[:-1]:
        world[2].loc[[name]].to_csv(tmp_path / "run" / f"{name}.csv")
    _, found = values_of(world, tmp_path / "run")
    said = [f for f in found.findings if f.code == "keys_missing"]
    assert len(said) == 1 and said[0].count == 1 and world[2].index[-1] in said[0].message
