"""Data files as other packages write them: in one command right to 1e-6, or refused with the mend."""

from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from e2e.conftest import python_c
from pertstack._base.errors import InputError
from pertstack.data import build_side
from pertstack.data.readers.open import open_data
from references import cell_worlds as worlds


def treated_of(file) -> pd.DataFrame:
    return pd.DataFrame(file.read(slice(None))[1], file.sample_ids)


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    np.testing.assert_allclose(ours.to_numpy(), theirs.loc[ours.index].to_numpy(), rtol=0, atol=1e-6)


def test_gears_has_a_flag_of_controls_two_names_for_genes_and_a_dose_that_is_none(tmp_path):
    conditions = [*(f"{g}+ctrl" for g in worlds.TARGETS[:4]), "GENE04+GENE05", "ctrl+GENE06"]
    names = ("condition", "cell_type", None)
    obs = worlds.design(conditions, batches=("1",), control="ctrl", names=names)
    obs["control"] = (obs["condition"] == "ctrl").astype(int)
    obs["dose_val"] = np.where(obs["condition"] == "ctrl", "1", "1+1")
    logs = worlds.lognormal(worlds.counts_of(obs, "condition", "cell_type"))
    var = pd.DataFrame({"gene_name": worlds.GENES}, index=[f"ENSG{i:011d}" for i in range(30)])
    file = open_data(worlds.write(tmp_path / "perturb_processed.h5ad", obs, logs, var=var))
    assert "log10_dose" not in file.obs and list(file.gene_names) == worlds.GENES
    assert_same(treated_of(file), worlds.means_of(logs, obs, ["condition", "cell_type"]))
    perturbed = build_side(file.obs, file.gene_names)[0].features["genes"]
    assert perturbed.known.all() and len(perturbed.columns) == 7


def test_perturbench_writes_combinations_and_control(tmp_path):
    names = ("condition", "cell_type", None)
    conditions = ["GENE01", "GENE02", "GENE01+GENE02"]
    obs = worlds.design(conditions, lines=("A549", "K562"), batches=("1",), control="control", names=names)
    logs = worlds.lognormal(worlds.counts_of(obs, "condition", "cell_type"))
    file = open_data(worlds.write(tmp_path / "norman19.h5ad", obs, logs))
    assert file.n_samples == 6
    assert_same(treated_of(file), worlds.means_of(logs, obs, ["condition", "cell_type"]))


def test_state_writes_cells_without_names_of_genes(tmp_path):
    obs = worlds.design(worlds.TARGETS, names=("target_gene", "cell_type", "gem_group"))
    logs = np.clip(worlds.lognormal(worlds.counts_of(obs, "target_gene", "cell_type")), 0, 14)
    path = worlds.write(tmp_path / "adata_real.h5ad", obs, logs, form="dense", genes=[str(i) for i in range(30)])
    file = open_data(path)
    assert_same(treated_of(file), worlds.means_of(logs, obs, ["target_gene", "cell_type", "gem_group"]))
    assert "genes_without_names" in [n.code for n in file.notes if n.severity == "warning"]


def test_state_writes_pseudobulks_with_their_number_of_cells(tmp_path):
    obs = worlds.design(worlds.TARGETS, lines=("a", "b"), batches=("1",), n=1, names=("target_gene", "cell_type", None))
    obs["pseudobulk_n_cells"] = 77
    logs = worlds.lognormal(worlds.counts_of(obs, "target_gene", "cell_type"))
    file = open_data(worlds.write(tmp_path / "pseudobulk.h5ad", obs, logs))
    assert file.n_samples == 18 and not file.made
    kept = obs["target_gene"] != "non-targeting"
    np.testing.assert_array_equal(treated_of(file).loc[obs.index[kept]].to_numpy(), logs[kept])


@pytest.mark.parametrize("column", ["psbulk_cells", "n_obs_aggregated"])
def test_sums_of_counts_of_decoupler_and_scanpy_are_made_profiles(tmp_path, column):
    cells = worlds.design(worlds.TARGETS, names=("target_gene", "cell_line", "batch"))
    x = worlds.counts_of(cells, "target_gene", "cell_line")
    key = ["target_gene", "cell_line", "batch"]
    total = pd.DataFrame(x).groupby([cells[k].to_numpy() for k in key]).sum()
    obs = total.index.to_frame(index=False, name=key).set_index(pd.Index(["_".join(i) for i in total.index]))
    obs[column] = 12
    values = sparse.csr_matrix(total.to_numpy(np.float32))
    data = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=worlds.GENES), layers={"sum": values})
    if column == "n_obs_aggregated":
        data.X = None
    data.write_h5ad(tmp_path / "pseudobulk.h5ad")
    if data.X is None:
        with pytest.raises(InputError, match=r"no X.*--treated-layer.*'sum'"):
            open_data(tmp_path / "pseudobulk.h5ad")
    file = open_data(tmp_path / "pseudobulk.h5ad", treated_layer="sum" if data.X is None else None)
    assert_same(treated_of(file), worlds.pseudobulk_of(x, cells, key))
    assert file.made.startswith("20 sums of cells -> 18 pseudobulk samples") and set(file.obs["n_cells"]) == {12}


def test_an_entry_of_the_virtual_cell_challenge_has_no_controls_and_is_refused(tmp_path):
    obs = worlds.design(worlds.TARGETS, names=("target_gene", "context", None), batches=("1",))
    obs = obs[obs["target_gene"] != "non-targeting"]
    path = worlds.write(tmp_path / "pred.h5ad", obs, worlds.counts_of(obs, "target_gene", "context"))
    with pytest.raises(InputError, match=r"rows are cells.*no control is known.*--control-label NAME"):
        open_data(path)


def test_predicted_cells_beside_measured_ones_are_no_data(tmp_path):
    obs = worlds.design(["stimulated", "predicted"], control="control", names=("condition", "cell_type", None))
    path = worlds.write(tmp_path / "scarchon.h5ad", obs, worlds.counts_of(obs, "condition", "cell_type"))
    with pytest.raises(InputError, match=r"24 rows are predictions.*'predicted'.*pertstack add"):
        open_data(path)


def test_doses_of_one_drug_are_summed_with_a_warning_and_kept_apart_when_asked(tmp_path):
    from pertstack.data.cells import CellChoice

    obs = worlds.design(["imatinib", "dasatinib"], n=20, control="DMSO", names=("compound", "cell_line", None))
    obs["dose_uM"] = np.where(obs["compound"] == "DMSO", 0.0, np.where(np.arange(len(obs)) % 2, 0.1, 10.0))
    x = worlds.counts_of(obs, "compound", "cell_line")
    path = worlds.write(tmp_path / "drugs.h5ad", obs, x)
    file = open_data(path)
    assert file.n_samples == 2 and "mixed_dose" in [n.code for n in file.notes if n.severity == "warning"]
    apart = open_data(path, cells=CellChoice(by=("dose",)))
    assert_same(treated_of(apart), worlds.pseudobulk_of(x, obs, ["compound", "cell_line", "dose_uM"]))
    said = [float(i.split("|")[2]) for i in apart.sample_ids]
    assert sorted(said) == [0.1, 0.1, 10.0, 10.0]
    np.testing.assert_allclose(apart.obs["log10_dose"], np.log10(said), rtol=1e-12)


def test_an_empty_perturbation_is_refused_and_named(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    obs.iloc[5, 0] = None
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs.fillna("x"), "target_gene", None))
    with pytest.raises(InputError, match=r"'target_gene' is empty for 1 of 240 cells: 'cell00005-1'"):
        open_data(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None))
    import h5py

    with h5py.File(path, "r+") as file:
        data = file["X/data"][:-100]
        del file["X/data"]
        file["X"].create_dataset("data", data=data)
    with pytest.raises(InputError, match=r"damaged.*Copy the file again"):
        treated_of(open_data(path))


def test_spellings_of_one_combination_are_one_sample(tmp_path):
    names = ("condition", "cell_type", None)
    obs = worlds.design(["GENE00+GENE01", "GENE02+ctrl", "GENE03"], n=20, batches=("1",), control="ctrl", names=names)
    x = worlds.counts_of(obs, "condition", "cell_type")
    plain = obs["condition"].replace({"GENE02+ctrl": "GENE02"}).to_numpy()
    turn = obs.groupby("condition").cumcount().to_numpy() % 2 == 0
    obs.loc[turn & (plain == "GENE00+GENE01"), "condition"] = "GENE01+GENE00"
    obs.loc[turn & (plain == "GENE02"), "condition"] = "GENE02"
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, x))
    assert_same(treated_of(file), worlds.pseudobulk_of(x, obs.assign(condition=plain), ["condition", "cell_type"]))
    assert list(file.obs["n_cells"]) == [20, 20, 20]
    assert [n.count for n in file.notes if n.code == "several_names"] == [2]


def follow(folder, error):
    """The command that a refusal ends with, run as a user would type it: the file it writes."""
    command, named = re.search(r'python -c "(.+?)", then --data (\S+)\.(?: |$)', " ".join(str(error).split())).groups()
    python_c(command, folder)
    return folder / named


def test_perturbations_in_the_names_of_rows_are_refused_with_a_command_that_writes_them_out(tmp_path, monkeypatch):
    """Replogle et al., one row a perturbation: ``7_AHR_P1P2_ENSG00000106546``, and no column that says it."""
    monkeypatch.chdir(tmp_path)
    names = [*worlds.TARGETS, "non-targeting", "non-targeting"]
    index = [f"{i}_{n}_P1P2_ENSG{i:011d}" if n != "non-targeting" else f"{i}_{n}_{n}_{n}" for i, n in enumerate(names)]
    obs = pd.DataFrame({"num_cells_filtered": 28, "fold_expr": 0.2, "core_control": False}, index=index)
    x = np.random.default_rng(0).normal(3, 1, (len(names), 30)).astype(np.float32)
    worlds.write(tmp_path / "bulk.h5ad", obs, x, form="dense")
    with pytest.raises(InputError, match="Names of rows hold it") as refused:
        open_data("bulk.h5ad")
    path = follow(tmp_path, refused.value)
    with pytest.raises(InputError, match="cell_line=const:"):
        open_data(path)
    file = open_data(path, mapping={"cell_line": "const:K562"})
    assert list(file.obs["perturbation"]) == worlds.TARGETS
    assert_same(treated_of(file), pd.DataFrame(x, index=index))


def test_a_table_of_differences_without_ids_ends_at_a_command_that_numbers_its_rows(tmp_path, monkeypatch):
    """Open Problems 2023, ``de_train.parquet``: signed log p, positive controls under ``control``, no names of rows."""
    monkeypatch.chdir(tmp_path)
    names = [(c, f"drug {i}") for c in ("NK cells", "B cells") for i in range(6)]
    table = pd.DataFrame(names, columns=["cell_type", "sm_name"]).assign(control=[n == "drug 0" for _, n in names])
    table["control"] |= table["sm_name"] == "drug 1"
    x = pd.DataFrame(np.random.default_rng(0).normal(0, 1.5, (12, 30)), columns=worlds.GENES)
    pd.concat([table, x], axis=1).to_parquet("de_train.parquet")
    with pytest.raises(InputError, match=r"positive controls.*differences already.*--delta"):
        open_data("de_train.parquet")
    with pytest.raises(InputError, match="no column of sample ids") as refused:
        open_data("de_train.parquet", delta=True)
    file = open_data(follow(tmp_path, refused.value), delta=True)
    assert [tuple(r) for r in file.obs[["cell_line", "perturbation"]].to_numpy()] == names
    np.testing.assert_allclose(treated_of(file), x, rtol=0, atol=1e-6)
