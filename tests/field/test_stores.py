"""One screen of cells in every container that the field uses: the same samples, to 1e-6 as plain pandas makes them."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import anndata
import h5py
import numcodecs
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from e2e.conftest import ok, pertstack
from pertstack._base.errors import InputError
from pertstack.data.readers.open import open_data
from pertstack.study.new_rows.evaluation_rows import matched_values
from references import cell_worlds as worlds

KEY = ["target_gene", "cell_line", "gem_group"]
zarr = pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def screen():
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", "cell_line")
    return obs, x, worlds.pseudobulk_of(x, obs, KEY)


def zarr_of(path, data, version, shards):
    """A zarr group of format 2 or 3; with ``shards`` several chunks lie in one file."""
    from anndata.experimental import write_dispatched

    def write(write_func, store, key, elem, dataset_kwargs, iospec):
        more = {"shards": (1000,), "chunks": (100,)} if iospec.encoding_type == "csr_matrix" and shards else {}
        if iospec.encoding_type == "array" and np.ndim(elem) == 2 and shards:
            more = {"shards": (64, 30), "chunks": (16, 15)}
        write_func(store, key, elem, dataset_kwargs={**dataset_kwargs, **more})

    write_dispatched(zarr.open_group(str(path), mode="w", zarr_format=version), "/", data, write)
    return path


def lists(path, obs, x, tokens=False):
    """One row a cell: its genes and their values, as names, or as numbers behind a mark as in Tahoe-100M."""
    table, names = obs.copy(), np.array(worlds.GENES)
    if tokens:
        table = table.reset_index(names="BARCODE_SUB_LIB_ID")
    mark = [1] if tokens else []
    table["genes"] = [[*mark, *(np.flatnonzero(r) + 3 if tokens else names[r > 0])] for r in x]
    table["expressions"] = [[*(-2.0 for _ in mark), *r[r > 0]] for r in x]
    table.to_parquet(path)
    if tokens:
        named = {
            "token_id": np.arange(30) + 3,
            "gene_symbol": names,
            "ensembl_id": [f"ENSG{i:011d}" for i in range(30)],
        }
        pd.DataFrame(named).to_parquet(path.parent / "gene_metadata.parquet")
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["csr", "dense"])
@pytest.mark.parametrize("store", ["zarr-2", "zarr-3", "zarr-3-sharded", "h5ad-gzip", "h5ad-lzf"])
def test_containers_of_anndata(screen, tmp_path, store, form):
    obs, x, theirs = screen
    data = anndata.AnnData(sparse.csr_matrix(x) if form == "csr" else x, obs=obs, var=pd.DataFrame(index=worlds.GENES))
    if store.startswith("zarr"):
        path = zarr_of(tmp_path / "cells.zarr", data, int(store[5]), store.endswith("sharded"))
    else:
        path = tmp_path / "cells.h5ad"
        data.write_h5ad(path, compression=store.removeprefix("h5ad-"))
    file = open_data(path)
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


def packed_with_zstd(path):
    """The stored values of X packed again with zstd, as hdf5plugin writes them; it is not needed for that."""
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        del file["X/data"]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk(values.shape)
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
        h5py.h5d.create(file["X"].id, b"data", kind, space, made)
        file["X/data"].id.write_direct_chunk((0,), numcodecs.Zstd(3).encode(values))


def test_zstd_is_read_by_init_and_evaluate_where_its_package_is_here(screen, tmp_path):
    pytest.importorskip("hdf5plugin")
    obs, x, measured = screen
    foretold = worlds.counts_of(obs, "target_gene", "cell_line", seed=3)
    for name, values in (("cells.h5ad", x), ("model.h5ad", foretold)):
        packed_with_zstd(worlds.write(tmp_path / name, obs, values))
    ok("init", "study", "--data", "cells.h5ad", cwd=tmp_path)
    found = matched_values(tmp_path / "cells.h5ad", {"m": tmp_path / "model.h5ad"})
    for ours, theirs in ((found.treated, measured), (found.values["m"], worlds.pseudobulk_of(foretold, obs, KEY))):
        np.testing.assert_allclose(ours, theirs.loc[found.samples.index], rtol=0, atol=1e-6)


def test_zstd_without_its_package_is_refused_with_the_command_that_installs_it(screen, tmp_path, monkeypatch):
    """libhdf5 says that it cannot open a folder of plugins, and the advice was to write the file with anndata."""
    worlds.write(tmp_path / "plain.h5ad", *screen[:2])
    packed_with_zstd(worlds.write(tmp_path / "packed.h5ad", *screen[:2]))
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: number < 32000)
    for words in (("init", "study", "--data", "packed.h5ad"), ("evaluate", "plain.h5ad", "m=packed.h5ad")):
        done = pertstack(*words, cwd=tmp_path)
        said = " ".join(done.stderr.split())
        assert done.returncode == 2 and "packed.h5ad: X/data is packed with zstd" in said, said
        assert "pip install hdf5plugin" in said and "cannot be read" not in said


@pytest.mark.parametrize("form", ["names", "tokens", "folder"])
def test_parquet_with_one_row_a_cell(screen, tmp_path, form):
    obs, x, theirs = screen
    path = tmp_path / "cells.parquet"
    if form == "folder":
        path = tmp_path / "data"
        path.mkdir()
        for i, rows in enumerate(np.array_split(np.arange(len(obs)), 3)):
            lists(path / f"train-{i}.parquet", obs.iloc[rows], x[rows])
    else:
        lists(path, obs, x, tokens=form == "tokens")
    file = open_data(path)
    assert file.path == str(path) and set(file.gene_names) == set(worlds.GENES)
    ours = pd.DataFrame(file.read(slice(None))[1], file.sample_ids, file.gene_names)
    theirs = theirs.set_axis(worlds.GENES, axis=1)
    np.testing.assert_allclose(ours[worlds.GENES], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


def test_predicted_cells_in_such_a_parquet(screen, tmp_path):
    obs, x, _ = screen
    worlds.write(tmp_path / "truth.h5ad", obs, x)
    foretold = worlds.counts_of(obs, "target_gene", "cell_line", seed=3)
    plain = obs.reset_index(drop=True)
    found = matched_values(tmp_path / "truth.h5ad", {"m": lists(tmp_path / "pred.parquet", plain, foretold)})
    theirs = worlds.pseudobulk_of(foretold, obs, KEY).set_axis(worlds.GENES, axis=1)
    np.testing.assert_allclose(found.values["m"], theirs.loc[found.samples.index, found.genes], rtol=0, atol=1e-6)


def test_genes_as_numbers_without_their_table_are_refused(screen, tmp_path):
    path = lists(tmp_path / "cells.parquet", *screen[:2], tokens=True)
    (tmp_path / "gene_metadata.parquet").unlink()
    with pytest.raises(InputError, match=r"names genes by numbers.*gene_metadata\.parquet"):
        open_data(path)


def test_numbers_that_the_table_of_genes_lacks_are_refused(screen, tmp_path):
    path = lists(tmp_path / "cells.parquet", *screen[:2], tokens=True)
    table = tmp_path / "gene_metadata.parquet"
    pd.read_parquet(table).iloc[1:].to_parquet(table)
    with pytest.raises(InputError, match=r"1 gene numbers are not in the table of genes: '3'\."):
        open_data(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("store", ["h5ad", "zarr-2", "zarr-3"])
def test_a_trillion_stored_values_that_are_not_there_are_refused(tmp_path, store, form):
    path, n = tmp_path / ("cells.h5ad" if store == "h5ad" else "cells.zarr"), 1000
    label = pd.Categorical(np.where(np.arange(n) % 2, "non-targeting", "A"))
    obs = pd.DataFrame({"target_gene": label}, index=np.arange(n).astype(str))
    data = anndata.AnnData(sparse.csr_matrix((n, n)).asformat(form), obs=obs, var=pd.DataFrame(index=obs.index))
    if store == "h5ad":
        data.write_h5ad(path)
    else:
        zarr_of(path, data, int(store[5]), False)
    with h5py.File(path, "r+") if store == "h5ad" else nullcontext(zarr.open_group(path, mode="r+")) as root:
        x = root["X"]
        make = x.create_dataset if store == "h5ad" else x.create_array
        for name in ("data", "indices", "indptr"):
            del x[name]
        make("data", shape=(10**12,), dtype="f4", chunks=(10**6,))
        make("indices", shape=(10**12,), dtype="i4", chunks=(10**6,))
        make("indptr", shape=(n + 1,), dtype="i8", chunks=(n + 1,))[:] = np.linspace(0, 10**12, n + 1).astype(np.int64)
    with pytest.raises(InputError, match=r"declares 1,000,000,000,000 values .* Copy the file again"):
        open_data(path)
