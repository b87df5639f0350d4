"""Broken bytes named by file, and parts of a file that declare more than it can hold."""

from __future__ import annotations

import struct

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr

from pertstack._base.errors import CorruptionError, InputError, LeakError, StorageError
from pertstack._base.reading import damage
from pertstack._base.reading.damage import damage_named, require_modest
from pertstack._base.reading.tables import read_table
from pertstack.data import open_data
from pertstack.data.side.files import read_features
from pertstack.design.plan.files import ROWS, read_plan
from pertstack.predictions.importers.readers.opening import open_file
from pertstack.reduce.scoring.score_table import ScoreTable


class OfADefect(Exception):
    """What no library raises."""


@pytest.mark.parametrize("error", [struct.error("x"), KeyError("x"), EOFError("x"), SystemError("x"), OSError(5, "x")])
def test_what_libraries_say_of_broken_bytes_names_the_file(tmp_path, error):
    with (
        pytest.raises(InputError, match=r"mine\.h5ad is damaged or was cut.*Copy it again") as told,
        damage_named(tmp_path / "mine.h5ad"),
    ):
        raise error
    assert told.value.__cause__ is error


@pytest.mark.parametrize("error", [OfADefect("ours"), LeakError("ours"), KeyboardInterrupt()])
def test_what_is_no_damage_goes_through_as_it_is(tmp_path, error):
    with pytest.raises(type(error)) as told, damage_named(tmp_path / "mine.h5ad"):
        raise error
    assert told.value is error


def test_a_full_disk_and_too_little_memory_are_not_called_damage(tmp_path):
    with pytest.raises(StorageError, match="disk is full"), damage_named(tmp_path / "f"):
        raise OSError(28, "No space left on device")
    with pytest.raises(InputError, match="asks for more memory than there is"), damage_named(tmp_path / "f"):
        raise MemoryError("4 TiB")


def world(path):
    n = 12
    obs = pd.DataFrame(
        {"perturbation": [f"d{i % 6}" for i in range(n)], "cell_line": "A"}, index=[f"s{i}" for i in range(n)]
    )
    values = np.random.default_rng(0).normal(8, 1, (n, 4)).astype(np.float32)
    a = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=list("abcd")), layers={"control": values - 1})
    a.write_h5ad(path)
    return path


def declare(path, name):
    """A dataset of 10^12 numbers that takes no room."""
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, (10**12,), "f4", chunks=(10**6,), compression="gzip")


def test_what_nobody_reads_may_declare_anything_and_what_is_read_may_not(tmp_path):
    path = world(tmp_path / "w.h5ad")
    declare(path, "uns/movie")
    assert open_data(path).uns == {}
    declare(path, "uns/targets")
    with pytest.raises(InputError, match=r"w\.h5ad: /uns/targets declares 4,000,000,000,000 bytes"):
        _ = open_data(path).uns
    declare(path, "obs/perturbation")
    with pytest.raises(InputError, match=r"w\.h5ad: /obs declares 4,000,"):
        open_data(path)


def test_a_zarr_array_of_nothing_is_measured_by_its_folder(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(10**10,), dtype="f4", chunks=(10**6,))
    with pytest.raises(InputError, match=r"declares 40,000,000,000 bytes of values"):
        require_modest(array, tmp_path / "a.zarr")
    require_modest(zarr.create_array(tmp_path / "b.zarr", shape=(10**6,), dtype="f4"), tmp_path / "b.zarr")


def hollow(path, **others):
    """An archive of arrays in which one takes a thousand times its room."""
    np.savez_compressed(path, **others, **{"matrix" if "perturbations" in others else "sample_ids": np.zeros(10**7)})


ARRAYS = {
    "features": (read_features, {"perturbations": np.array(["a"])}),
    "predictions": (open_file, {"predictions": np.zeros((2, 2)), "gene_names": np.array(["a", "b"])}),
    "scores": (ScoreTable.load, {"meta": np.frombuffer(b"{}", dtype=np.uint8)}),
}


@pytest.mark.parametrize("door", ARRAYS)
def test_arrays_that_unpack_to_far_more_than_is_packed_are_refused_unread(tmp_path, monkeypatch, door):
    read, others = ARRAYS[door]
    monkeypatch.setattr(damage, "MODEST", 10**7)
    hollow(tmp_path / "mine.npz", **others)
    with pytest.raises(InputError, match=r"mine\.npz.* unpacks to 80,000,128 bytes"):
        read(tmp_path / "mine.npz")


@pytest.mark.parametrize("read", [read_table, lambda path: read_plan(path.parent)], ids=["table", "plan"])
def test_a_table_of_one_value_a_million_times_is_refused_unread(tmp_path, monkeypatch, read):
    monkeypatch.setattr(damage, "MODEST", 10**6)
    pd.DataFrame({"sample_id": ["a"] * 10**6, "fold": 0}).to_parquet(tmp_path / ROWS)
    with pytest.raises((InputError, CorruptionError), match=r"declares 1,000,000 rows of 2 columns"):
        read(tmp_path / ROWS)
