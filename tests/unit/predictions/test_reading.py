"""Views, exports, and other people's readers see the values that were committed."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from pertstack._base.errors import CorruptionError, InputError, LeakError, UnknownNameError
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore
from pertstack.predictions.exports import cell_eval_pair, export_anndata, export_npz
from pertstack.predictions.importers import add_predictions
from references.small_store import World, make_world

LINE, OTHER, ODD, TEST = Block("A375", 0), Block("A375", 1), Block("HT 29/x.y", 0), Block("A375", None)
MANY = {Block("A", 0): 30, Block("B", 1): 41, Block("A", None): 25}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path / "store")
    for block in (LINE, OTHER, TEST):
        world.commit(block, "m", seed=1)
    world.commit(LINE, "part/2", seed=2)
    return world


def test_tiles_pass_over_every_row_once_in_order(world: World) -> None:
    seen: dict[Block, list[Any]] = {}
    for tile in world.store.tile(["m", "treated"], memory=2 * 2 * 23 * 4 * 3):
        assert tile.stop - tile.start <= 3
        seen.setdefault(tile.block, []).append(tile.values.copy())
    assert list(seen) == [LINE, ODD, OTHER]
    for block, parts in seen.items():
        whole = np.concatenate(parts, axis=1)
        np.testing.assert_array_equal(whole[1], world.treated[block])
        np.testing.assert_array_equal(
            whole[0], world.prediction(block, 1) if block != ODD else np.full_like(whole[0], np.nan)
        )
    with pytest.raises(UnknownNameError):
        next(world.store.tile(["nobody"]))


def test_rows_by_id_and_genes_by_name(world: World) -> None:
    ids = [world.obs[OTHER].index[2], world.obs[LINE].index[5], world.obs[ODD].index[0]]
    table = world.store.rows(ids, ["m"])["m"]
    np.testing.assert_array_equal(table.iloc[0], world.prediction(OTHER, 1)[2])
    np.testing.assert_array_equal(table.iloc[1], world.prediction(LINE, 1)[5])
    assert list(table.index) == ids and table.iloc[2].isna().all()
    with pytest.raises(UnknownNameError, match="unknown: 'x'"):
        world.store.rows(["x"])
    gene = world.store.gene(world.genes[3])
    np.testing.assert_array_equal(gene.loc[world.obs[LINE].index, "m"], world.prediction(LINE, 1)[:, 3])
    np.testing.assert_array_equal(gene.loc[world.obs[ODD].index, "treated"], world.treated[ODD][:, 3])
    with pytest.raises(UnknownNameError, match="Did you mean"):
        world.store.gene("ensg00000000003")


@pytest.mark.parametrize("lazy", [True, False])
def test_one_anndata_over_all_blocks(world: World, lazy: bool) -> None:
    adata = world.store.to_anndata(lazy=lazy, role=None)
    assert sorted(adata.layers) == ["control", "m", "part/2", "treated"]
    values = np.asarray(adata[world.obs[OTHER].index].layers["m"])
    np.testing.assert_array_equal(values, world.prediction(OTHER, 1))
    assert np.isnan(np.asarray(adata[world.obs[TEST].index].layers["treated"])).all()
    assert adata.obs.loc[world.obs[TEST].index, "fold"].isna().all()
    if lazy:
        assert type(adata.layers["m"]).__module__.startswith("dask")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_an_export_opens_as_anndata_and_hides_the_test(world: World, tmp_path: Path, suffix: str) -> None:
    path = export_anndata(world.store, tmp_path / f"all{suffix}", role="all")
    adata = anndata.read_h5ad(path) if suffix == ".h5ad" else anndata.io.read_zarr(path)
    np.testing.assert_array_equal(adata[world.obs[TEST].index].layers["m"], world.prediction(TEST, 1))
    assert np.isnan(adata[world.obs[TEST].index].layers["treated"]).all()
    np.testing.assert_array_equal(adata[world.obs[LINE].index].layers["part∕2"], world.prediction(LINE, 2))
    truth = PredictionStore.create(tmp_path / f"truth{suffix}", world.genes)
    truth.add_block(TEST, world.obs[TEST])
    truth.commit(TEST, "treated", world.treated[TEST], fitted_on=None, **world.names(TEST))
    opened = export_anndata(world.store, tmp_path / f"open{suffix}", role="test", truth=truth)
    adata = anndata.read_h5ad(opened) if suffix == ".h5ad" else anndata.io.read_zarr(opened)
    np.testing.assert_array_equal(adata.layers["treated"], world.treated[TEST])
    with pytest.raises(InputError, match="exists"):
        export_anndata(world.store, path)


def test_cell_eval_pairs(world: World) -> None:
    predicted, real = cell_eval_pair(world.store, "m")
    assert predicted.n_obs == 24 and list(predicted.obs_names) == list(real.obs_names)
    ids = world.obs[LINE].index
    np.testing.assert_array_equal(predicted[ids].X, world.prediction(LINE, 1))
    np.testing.assert_array_equal(real[ids].X, world.treated[LINE])
    wells = real[real.obs["perturbation"] == "control"]
    np.testing.assert_array_equal(wells[[f"{i}:control" for i in ids]].X, world.control[LINE])
    with pytest.raises(LeakError):
        cell_eval_pair(world.store, "m", role="test")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exported_shuffled_split_and_added_again_is_the_same(tmp_path: Path) -> None:
    """Issue 3: the content digests agree, so every metric must."""
    world = make_world(tmp_path / "store", MANY)
    for block in MANY:
        world.commit(block, "m", seed=3)
    with np.load(export_npz(world.store, tmp_path / "m.npz", "m", role="all")) as file:
        frame = pd.DataFrame(file["predictions"], file["sample_ids"], file["gene_names"])
    rng = np.random.default_rng(1)
    frame = frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])]
    frame.iloc[:37].to_parquet(tmp_path / "1.parquet")
    anndata.AnnData(frame.iloc[37:]).write_h5ad(tmp_path / "2.h5ad")
    add_predictions(
        world.store, "again", [tmp_path / "1.parquet", tmp_path / "2.h5ad"], fitted_on="plan", scale="treated"
    )
    for block in MANY:
        assert world.store.record(block, "again").digest == world.store.record(block, "m").digest
    add_predictions(world.store, "npz", tmp_path / "m.npz", fitted_on="plan", scale="treated")


def test_an_npz_is_written_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """One block of 12 MB; the writer may hold 512 of its 6,000 rows (1 MB), a copy, and the names."""
    store = PredictionStore.create(tmp_path / "store", [f"g{i}" for i in range(500)], "p")
    obs = pd.DataFrame({"perturbation": "a"}, index=[f"s{i}" for i in range(6000)])
    store.add_block(LINE, obs)
    values = np.random.default_rng(0).normal(size=(6000, 500)).astype(np.float32)
    store.commit(
        LINE,
        "m",
        values[:, 3:],
        sample_ids=obs.index,
        gene_names=store.gene_names[3:],
        missing_genes=store.gene_names[:3],
        fitted_on=FittedOn.fold_of_plan("p", LINE.fold),
    )
    tracemalloc.start()
    path = export_npz(store, tmp_path / "m", "m", role="all")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 2, peak
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["m.npz"] == [path.name]
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["predictions"], values[:, 3:])
        assert file["sample_ids"].tolist() == obs.index.tolist()
        assert file["gene_names"].tolist() == list(store.gene_names[3:])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_block_opens_with_anndata_zarr_and_xarray_without_pertstack(world: World) -> None:
    block = world.store.root / "blocks" / f"{LINE.id}.zarr"
    script = """
import sys, warnings, numpy as np, anndata, xarray, zarr
warnings.simplefilter("ignore")
want, path = np.load(sys.argv[1]), sys.argv[2]
adata = anndata.io.read_zarr(path)
assert np.array_equal(adata.layers["m"], want), "anndata"
assert list(adata.layers) and sorted(adata.layers) == ["control", "m", "part%2F2", "treated"]
data = xarray.open_zarr(path, group="layers", consolidated=False)
assert np.array_equal(data["m"].to_numpy(), want) and data["m"].dims == ("sample", "gene"), "xarray"
array = zarr.open_array(path + "/layers/m", mode="r")
assert np.array_equal(array[:], want) and array.dtype == "float32", "zarr"
assert array.attrs["prediction"]["model"] == "m"
assert "pertstack" not in sys.modules
"""
    want = world.store.root.parent / "want.npy"
    np.save(want, world.prediction(LINE, 1))
    subprocess.run([sys.executable, "-c", script, str(want), str(block)], check=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_zarr_itself_notices_a_flipped_bit(world: World) -> None:
    """The checksum is Zarr's own crc32c codec, so every reader that knows Zarr is protected too."""
    chunk = world.store.root / "blocks" / f"{LINE.id}.zarr" / "layers/m/c/0/0"
    raw = bytearray(chunk.read_bytes())
    raw[17] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises(ValueError, match=r"[Cc]hecksum"):
        zarr.open_array(str(chunk.parents[2]), mode="r")[:]
    with pytest.raises(CorruptionError):
        world.store.read(LINE, "m", verify=True)
