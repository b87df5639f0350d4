"""Sample tables written without AnnData are read by it, and what it writes is read without it."""

from __future__ import annotations

import json
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import read_elem, write_elem
from numcodecs import Zstd
from pandas.testing import assert_frame_equal

from pertstack._base.errors import CorruptionError
from pertstack.design.blocks import Block
from pertstack.predictions.store.files import skeleton
from pertstack.predictions.store.files.zarr_tables import can_write, read_table, write_table


def table(n):
    words = np.array(["Zürich", "a b", "", "日本"], dtype=object)[np.arange(n) % 4]
    return pd.DataFrame(
        {
            "word": pd.Categorical(words),
            "some": pd.Categorical([w if i % 3 else None for i, w in enumerate(words)]),
            "none": pd.Categorical([None] * n),
            "many": pd.Categorical([f"c{i}" for i in range(n)]),
            "dose": np.where(np.arange(n) % 2, np.nan, np.arange(n) / 3),
            "small": np.arange(n, dtype=np.float32),
            "count": np.arange(n, dtype=np.int64) - 2,
            "flag": np.arange(n) % 2 == 0,
            "maybe": pd.array([None if i % 2 else i for i in range(n)], dtype="Int64"),
            "perhaps": pd.array([None if i % 2 else True for i in range(n)], dtype="boolean"),
            "zero": np.zeros(n),
        },
        index=pd.Index([f"s/{i}" for i in range(n)], dtype=object),
    )


def by_anndata(path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_elem(zarr.open_group(str(path), mode="r", use_consolidated=False)[name])


@pytest.mark.parametrize("n", [1, 7, 300])
def test_what_is_written_is_read_by_anndata_and_the_other_way_round(tmp_path, n):
    expected = table(n)
    with warnings.catch_warnings(), anndata.settings.override(auto_shard_zarr_v3=False):
        warnings.simplefilter("ignore")
        write_elem(zarr.open_group(str(tmp_path / "z"), mode="w", zarr_format=3), "theirs", expected)
    write_table(tmp_path / "z" / "ours", expected)
    theirs = by_anndata(tmp_path / "z", "theirs")
    assert_frame_equal(by_anndata(tmp_path / "z", "ours"), theirs, check_categorical=False)  # kind of no category
    for name in ("ours", "theirs"):
        found = read_table(tmp_path / "z" / name)
        assert found is not None
        assert_frame_equal(found, expected, check_categorical=False)
        assert_frame_equal(found.astype(object), theirs.astype(object), check_dtype=False, check_index_type=False)


def test_a_block_is_an_anndata_store(tmp_path):
    obs = table(9).astype({"word": object, "some": object, "none": object, "many": object})
    path = skeleton.write_skeleton(tmp_path, Block("A 375", 0), obs, gene_names=["g1", "g2", "g3"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = anndata.read_zarr(path)
    assert found.shape == (9, 3) and list(found.var_names) == ["g1", "g2", "g3"]
    assert list(found.obs_names) == list(obs.index)
    back = skeleton.read_obs(path)
    assert_frame_equal(back.astype(object).where(back.notna(), None), obs.astype(object).where(obs.notna(), None))
    assert skeleton.read_block_facts(path)["n"] == 9


def test_columns_of_unusual_kinds_are_left_to_anndata(tmp_path):
    obs = pd.DataFrame({"half": np.arange(3, dtype=np.float16)}, index=["a", "b", "c"])
    assert not can_write(skeleton.plain_obs(obs))
    path = skeleton.write_skeleton(tmp_path, Block("A", 0), obs, gene_names=["g"])
    np.testing.assert_array_equal(skeleton.read_obs(path)["half"], [0, 1, 2])


def test_what_is_laid_out_otherwise_is_not_guessed_at(tmp_path):
    write_table(tmp_path / "t", table(8))
    meta = tmp_path / "t" / "dose" / "zarr.json"
    value = json.loads(meta.read_text())
    value["chunk_grid"]["configuration"]["chunk_shape"] = [3]
    meta.write_text(json.dumps(value))
    assert read_table(tmp_path / "t") is None
    (tmp_path / "t" / "dose" / "c" / "0").write_bytes(b"broken")
    assert read_table(tmp_path / "t") is None


def test_a_part_that_declares_other_counts_is_refused_before_room_is_made(tmp_path):
    """One changed number in a packed chunk asked for 29 GB."""
    write_table(tmp_path / "obs", table(4))
    chunk = tmp_path / "obs" / "_index" / "c" / "0"
    data = Zstd().decode(chunk.read_bytes())
    chunk.write_bytes(Zstd().encode((3_906_250_000).to_bytes(4, "little") + bytes(data[4:])))
    with pytest.raises(CorruptionError, match="_index holds 3,906,250,000 texts, not 4"):
        read_table(tmp_path / "obs")
    write_table(tmp_path / "hollow", table(4))
    meta = json.loads((tmp_path / "hollow" / "dose" / "zarr.json").read_text())
    meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"] = [10**12], [10**12]
    (tmp_path / "hollow" / "dose" / "zarr.json").write_text(json.dumps(meta))
    (tmp_path / "hollow" / "dose" / "c" / "0").unlink()
    with pytest.raises(CorruptionError, match="dose declares 1,000,000,000,000 values and holds none"):
        read_table(tmp_path / "hollow")
