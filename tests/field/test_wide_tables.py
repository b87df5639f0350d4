"""Tables with one row a cell and its genes as columns: the samples that plain pandas makes of them."""

from __future__ import annotations

import gzip
import re

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem
from scipy import sparse
from scipy.io import mmwrite

from e2e.conftest import pertstack, python_c
from pertstack._base.errors import InputError
from pertstack.data.readers.open import open_data
from references import cell_worlds as worlds


@pytest.fixture(scope="module")
def screen():
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", "cell_line")
    return obs, x, worlds.pseudobulk_of(x, obs, ["target_gene", "cell_line", "gem_group"])


@pytest.mark.parametrize("form", ["csv", "tsv.gz", "txt", "parquet", "beside"])
def test_wide_tables_of_cells(screen, tmp_path, form):
    obs, x, theirs = screen
    said, values = obs.assign(n_counts=x.sum(axis=1)), pd.DataFrame(x, index=obs.index, columns=worlds.GENES)
    wide, path, metadata = pd.concat([said, values], axis=1), tmp_path / f"cells.{form}", None
    wide["pct_of_my_panel"], wide["stress_score"] = 0.5, 1.0  # behind the genes, under names that no list has
    if form == "parquet":
        wide.to_parquet(path)
    elif form == "beside":
        path, metadata = tmp_path / "matrix.csv", tmp_path / "cells.csv"
        values.to_csv(path)
        said.sample(frac=1, random_state=0).to_csv(metadata, index_label="barcode")
    else:
        wide.to_csv(path, sep="," if form == "csv" else "\t", index_label="barcode")
    file = open_data(path, metadata=metadata)
    assert sorted(file.gene_names) == sorted(worlds.GENES)
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)
    note = next(n for n in file.notes if n.code == "genes_taken")
    assert "n_counts" in note.message or form == "beside"


def test_genes_as_rows_are_refused_with_a_command_that_turns_them(screen, tmp_path):
    obs, x, _ = screen
    pd.DataFrame(x.T, columns=obs.index, index=worlds.GENES).to_csv(tmp_path / "m.csv")
    obs.to_csv(tmp_path / "cells.csv", index_label="barcode")
    with pytest.raises(InputError, match=r"cells are its columns and genes its rows.*to_parquet"):
        open_data(tmp_path / "m.csv", metadata=tmp_path / "cells.csv")


def test_a_table_without_control_rows_still_asks_for_the_controls(screen, tmp_path):
    obs, x, _ = screen
    treated = (obs["target_gene"] != "non-targeting").to_numpy()
    wide = pd.concat([obs, pd.DataFrame(x, index=obs.index, columns=worlds.GENES)], axis=1)[treated]
    wide.to_csv(tmp_path / "cells.csv", index_label="barcode")
    with pytest.raises(InputError, match=r"says no control of its rows.*--control-label.*--control FILE"):
        open_data(tmp_path / "cells.csv")


@pytest.mark.parametrize("order", ["genes first", "genes on both sides", "a number between"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_genes_are_told_from_metadata_wherever_they_stand(screen, tmp_path, order, form):
    """Genes before a column of text were taken for metadata once, and left out with a note."""
    obs, x, theirs = screen
    values = pd.DataFrame(x, index=obs.index, columns=worlds.GENES)
    parts = {
        "genes first": [values, obs],
        "genes on both sides": [values.iloc[:, :3], obs, values.iloc[:, 3:]],
        "a number between": [obs.assign(age=3), values],
    }
    wide, path = pd.concat(parts[order], axis=1), tmp_path / f"cells.{form}"
    wide.to_parquet(path) if form == "parquet" else wide.to_csv(path, index_label="barcode")
    file = open_data(path)
    assert list(file.gene_names) == worlds.GENES
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


def test_numbers_apart_from_the_genes_are_named(screen, tmp_path):
    obs, x, theirs = screen
    values = pd.DataFrame(x, index=obs.index, columns=worlds.GENES)
    wide = pd.concat([pd.Series(3, obs.index, name="panel"), obs, values], axis=1)
    wide.to_csv(tmp_path / "cells.csv", index_label="barcode")
    file = open_data(tmp_path / "cells.csv")
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)
    assert "'panel'" in next(n for n in file.notes if n.code == "columns_apart").message


def test_values_without_a_word_on_their_rows_ask_for_the_table_that_has_it(screen, tmp_path):
    obs, x, _ = screen
    pd.DataFrame(x, index=obs.index, columns=worlds.GENES).to_csv(tmp_path / "matrix.csv")
    with pytest.raises(InputError, match=r"no column says what was done to its rows.*--metadata FILE"):
        open_data(tmp_path / "matrix.csv")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="cell_line"), r"screen\.csv has no column that says the cell line"),
        (lambda t: t.assign(perturbation=[*t["perturbation"][:-1], None]), r"screen\.csv: column 'perturbation'"),
        (lambda t: t.assign(perturbation="ctrl"), r"screen\.csv: all 30 rows are controls"),
        (lambda t: t.replace("b", "predicted"), r"/screen\.csv: 10 rows are predictions by their name"),
    ],
)
def test_errors_name_the_table_and_not_what_was_made_of_it(tmp_path, change, said):
    """They named a file of AnnData that nobody has."""
    rng = np.random.default_rng(0)
    names = {"perturbation": ["ctrl", "a", "b"] * 10, "cell_line": "A"}
    table = pd.DataFrame(rng.normal(7, 1, (30, 8)), columns=[f"GENE{i}" for i in range(8)]).assign(**names)
    change(table).to_csv(tmp_path / "screen.csv")
    with pytest.raises(InputError, match=said) as told:
        open_data(tmp_path / "screen.csv")
    assert "h5ad" not in str(told.value)
    assert "/" not in said or str(told.value).startswith(str(tmp_path / "screen.csv"))


def long_table(folder, obs, x):
    cell, gene = np.nonzero(x)
    table = obs.iloc[cell].reset_index(names="cell")
    table.assign(gene=np.array(worlds.GENES)[gene], count=x[cell, gene]).to_parquet(folder / "long.parquet")
    return "long.parquet"


def feather(folder, obs, x):
    values = pd.DataFrame(x, index=obs.index, columns=worlds.GENES)
    pd.concat([obs, values], axis=1).reset_index(names="barcode").to_feather(folder / "cells.feather")
    return "cells.feather"


def tenx_folder(folder, obs, x):
    place = folder / "filtered"
    place.mkdir()
    with gzip.open(place / "matrix.mtx.gz", "wb") as stream:
        mmwrite(stream, sparse.coo_matrix(x.T.astype(int)))
    with gzip.open(place / "barcodes.tsv.gz", "wt") as stream:
        stream.write("".join(f"{i}\n" for i in obs.index))
    with gzip.open(place / "features.tsv.gz", "wt") as stream:
        stream.write("".join(f"ENSG{i:011d}\t{g}\tGene Expression\n" for i, g in enumerate(worlds.GENES)))
    return "filtered"


def tenx_file(folder, obs, x):
    m = sparse.csr_matrix(x.astype("i4"))
    with h5py.File(folder / "filtered.h5", "w") as file:
        parts = {"data": m.data, "indices": m.indices, "indptr": m.indptr, "shape": np.array(m.shape[::-1])}
        names = {"barcodes": list(obs.index), "features/name": worlds.GENES}
        for name, values in (parts | names | {"features/id": [f"ENSG{i:011d}" for i in range(30)]}).items():
            file[f"matrix/{name}"] = values
    return "filtered.h5"


def loom(folder, obs, x):
    with h5py.File(folder / "cells.loom", "w") as file:
        file["matrix"] = x.T
        file["row_attrs/Gene"] = worlds.GENES
        for name in obs.columns:
            file[f"col_attrs/{name}"] = list(obs[name])
        file["col_attrs/CellID"] = list(obs.index)
    return "cells.loom"


def muon(folder, obs, x):
    with h5py.File(folder / "cells.h5mu", "w") as file:
        write_elem(
            file.create_group("mod"),
            "rna",
            anndata.AnnData(sparse.csr_matrix(x), obs, pd.DataFrame(index=worlds.GENES)),
        )
    return "cells.h5mu"


def folder_of_parts(folder, obs, x):
    (folder / "parts").mkdir()
    for name, rows in (("a", slice(0, 100)), ("b", slice(100, None))):
        worlds.write(folder / "parts" / f"{name}.h5ad", obs[rows], x[rows])
    return "parts"


@pytest.mark.parametrize("make", [long_table, feather, tenx_folder, tenx_file, loom, muon, folder_of_parts])
def test_files_that_are_not_read_name_the_command_that_turns_them(screen, tmp_path, make):
    """The command is run as printed, and what it writes is right to 1e-6."""
    obs, x, theirs = screen
    obs.to_csv(tmp_path / "CELLS.csv")
    done = pertstack("init", "study", "--data", make(tmp_path, obs, x), cwd=tmp_path)
    said = " ".join(done.stderr.split())
    found = re.search(r'python -c "(.*)", then --data (\S+)\.$', said)
    assert done.returncode == 2 and found, said
    python_c(found[1], tmp_path)
    file = open_data(tmp_path / found[2])
    assert sorted(file.gene_names) == worlds.GENES
    ours = pd.DataFrame(file.read(slice(None))[1], file.sample_ids, list(file.gene_names))[worlds.GENES]
    np.testing.assert_allclose(ours, theirs.loc[ours.index], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cells.rds", "cells.xlsx", "cells.h5seurat"])
def test_files_of_other_programs_are_refused_in_words(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"are not read. (Write it as .h5ad in R|Save the sheet)"):
        open_data(tmp_path / name)
