"""AnnData files: the same numbers as anndata gives, read in parts."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._base.errors import InputError, MissingFileError
from pertstack.data import open_data
from pertstack.data.readers.anndata import tables
from pertstack.data.readers.matrices import ArrayRows, open_root, take
from references.data_worlds import small, write


@pytest.mark.parametrize("name", ["data.h5ad", "data.zarr"])
@pytest.mark.parametrize("how", ["dense", "csr", "csc"])
def test_chunks_and_reads_equal_the_whole_matrix(tmp_path, name: str, how: str) -> None:
    data = small()
    whole, control = np.array(data.X), np.array(data.layers["control"])
    if how != "dense":
        make = sp.csr_matrix if how == "csr" else sp.csc_matrix
        data.X, data.layers["control"] = make(whole), make(control)
    file = open_data(write(tmp_path, data, name))
    chunks = list(file.chunks(rows=5))
    assert [(c.start, c.stop) for c in chunks] == [(0, 5), (5, 10), (10, 12)]
    np.testing.assert_array_equal(np.concatenate([c.treated for c in chunks]), whole)
    np.testing.assert_array_equal(np.concatenate([c.control for c in chunks]), control)
    assert chunks[0].treated.dtype == np.float32
    rows = [7, 0, 7, 11]
    got_control, got_treated = file.read(rows)
    np.testing.assert_array_equal(got_treated, whole[rows])
    np.testing.assert_array_equal(got_control, control[rows])
    assert file.has_effect
    assert list(file.gene_names) == list(data.var_names)
    assert list(file.obs.index) == list(data.obs_names)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_taking_rows_equals_indexing(data) -> None:
    n = data.draw(st.integers(1, 200))
    values = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=40)), dtype=np.int64)
    gap, most = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 50))
    np.testing.assert_array_equal(take(ArrayRows(values), rows, gap=gap, most=most), values[rows].reshape(-1, 3))


def test_only_the_rows_asked_for_are_read(tmp_path) -> None:
    """The reader must not load the matrix whole: count what the dataset is asked for."""
    file = open_data(write(tmp_path, small(n=400, genes=5)))
    asked = []

    class Spy:
        shape, dtype = (400, 5), np.dtype("f4")

        def __getitem__(self, key: slice) -> np.ndarray:
            asked.append(key.stop - key.start)
            return np.zeros((key.stop - key.start, 5), np.float32)

    file.treated._open = Spy()
    file.treated.rows(10, 20)
    take(file.treated, np.array([3, 390]))
    assert asked == [10, 1, 1]


def test_a_data_file_can_be_handed_to_another_process(tmp_path) -> None:
    file = open_data(write(tmp_path, small()))
    before = file.read([1, 2])[1]
    again = pickle.loads(pickle.dumps(file.treated))
    np.testing.assert_array_equal(again.rows(1, 3), before)


def test_delta_files_have_a_zero_control(tmp_path) -> None:
    data = small()
    del data.layers["control"]
    file = open_data(write(tmp_path, data), delta=True)
    chunk = next(file.chunks())
    assert not chunk.control.any()
    np.testing.assert_array_equal(chunk.delta, np.array(data.X))
    assert file.card.scale == "delta" and file.card.pairing == "none"


def test_a_missing_control_layer_names_the_layers_and_both_mends(tmp_path) -> None:
    data = small()
    data.layers["ctrl"] = data.layers.pop("control")
    path = write(tmp_path, data)
    with pytest.raises(InputError, match=r"(?s)--control-label NAME.*--control-layer.*'ctrl', 'effect'.*--delta"):
        open_data(path)
    assert open_data(path, control_layer="ctrl").control_reference == "layer 'ctrl'"
    with pytest.raises(InputError, match="Did you mean 'ctrl'"):
        open_data(path, control_layer="ctrll")
    with pytest.raises(InputError, match="treatd"):
        open_data(path, control_layer="ctrl", treated_layer="treatd")


def test_delta_with_a_control_layer_is_a_contradiction(tmp_path) -> None:
    with pytest.raises(InputError, match="--delta"):
        open_data(write(tmp_path, small()), delta=True)


def test_treated_in_a_layer_and_control_in_x(tmp_path) -> None:
    data = small()
    data.layers["treated"], data.X = np.array(data.X), np.array(data.layers["control"])
    file = open_data(write(tmp_path, data), treated_layer="treated", control_layer="X")
    control, treated = file.read(slice(None))
    np.testing.assert_array_equal(treated, data.layers["treated"])
    np.testing.assert_array_equal(control, data.X)


@pytest.mark.parametrize("without_x", [True, False])
def test_samples_to_predict_need_no_treated_profiles(tmp_path, without_x: bool) -> None:
    data = small()
    control = np.array(data.layers["control"])
    if without_x:
        data.X = None
        file = open_data(write(tmp_path, data), treated_optional=True)
    else:
        data.X = data.layers.pop("control")
        file = open_data(write(tmp_path, data), treated_optional=True, control_layer="X")
    np.testing.assert_array_equal(file.read_control(slice(None)), control)
    assert np.isnan(file.read([0])[1]).all()


def test_wrong_paths_and_broken_files(tmp_path) -> None:
    path = write(tmp_path, small(), "profiles.h5ad")
    with pytest.raises(MissingFileError, match=r"profiles\.h5ad"):
        open_data(tmp_path / "profile.h5ad")
    with pytest.raises(MissingFileError, match="no folder"):
        open_data(tmp_path / "no" / "where.h5ad")
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"broken\.h5ad cannot be read"):
        open_data(broken)
    (tmp_path / "text.h5ad").write_text("not HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        open_data(tmp_path / "text.h5ad")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="zarr"):
        open_data(tmp_path / "empty.zarr")
    (tmp_path / "data.xlsx").write_text("")
    with pytest.raises(InputError, match=r"\.xlsx.*Save the sheet as CSV"):
        open_data(tmp_path / "data.xlsx")


def test_ids_are_looked_up_by_name(tmp_path) -> None:
    file = open_data(write(tmp_path, small()))
    assert file.positions(["s3", "s0"]).tolist() == [3, 0]
    with pytest.raises(InputError, match="'s99'"):
        file.positions(["s3", "s99"])
    with pytest.raises(InputError, match="outside"):
        file.read([12])


def test_a_column_named_like_the_control_layer_says_who_the_control_is(tmp_path) -> None:
    data = small()
    data.layers["paired"] = data.layers["control"]
    data.obs["paired"] = [f"well{i % 3}" for i in range(12)]
    path = write(tmp_path, data)
    assert "control_id" not in open_data(path).obs
    assert open_data(path, control_layer="paired").obs["control_id"].tolist()[:3] == ["well0", "well1", "well2"]


def test_zarr_of_the_third_format(tmp_path) -> None:
    import anndata

    data = small()
    with anndata.settings.override(zarr_write_format=3):
        path = write(tmp_path, data, "three.zarr")
    assert (path / "zarr.json").exists()
    np.testing.assert_array_equal(open_data(path).read(slice(None))[1], data.X)


def test_importing_the_room_is_light() -> None:
    """rdkit, torch and anndata are imported by the functions that need them, so that a command line starts fast."""
    code = "import sys, pertstack.data; print([m for m in ('rdkit', 'torch', 'anndata', 'zarr') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.strip() == "[]" and out.stderr == ""


def test_matrices_stored_by_columns_are_warned_about(tmp_path) -> None:
    data = small()
    data.layers["control"] = sp.csc_matrix(data.layers["control"])
    note = next(n for n in open_data(write(tmp_path, data)).notes if n.code == "stored_by_columns")
    assert note.examples == ("layers/control",)


@pytest.mark.parametrize("part", ["uns", "layers", "obsm"])
@pytest.mark.parametrize("name", ["data.h5ad", "data.zarr"])
def test_an_array_where_anndata_has_a_group_is_refused_at_once(tmp_path, name: str, part: str) -> None:
    """To ask whether it holds a name was to go through 10^12 values."""
    path = write(tmp_path, small(), name)
    if path.suffix == ".h5ad":
        with h5py.File(path, "a") as file:
            file.pop(part, None)
            file.create_dataset(part, (10**12,), "f4", chunks=(10**6,))
    else:
        (path / ".zmetadata").unlink(missing_ok=True)
        if (about := path / "zarr.json").exists():  # as zarr 3 says in one place what its members are
            about.write_text(json.dumps(json.loads(about.read_text()) | {"consolidated_metadata": None}))
        root = zarr.open_group(str(path), mode="a", use_consolidated=False)
        if part in root:
            del root[part]
        root.create_array(part, shape=(10**12,), dtype="f4", chunks=(10**6,))
    with pytest.raises(InputError, match=rf"{name}: '{part}' holds an array where AnnData has a group"):
        open_data(path)


def test_an_hdf5_file_is_walked_through_in_a_child_before_it_is_opened(tmp_path, monkeypatch) -> None:
    path, seen = write(tmp_path, small(), "data.h5ad"), []
    monkeypatch.setattr(tables, "tried_first", lambda p, reader: seen.append((p, reader, path in opened)))
    opened: list[object] = []
    monkeypatch.setattr(tables, "open_root", lambda p, kind: opened.append(p) or open_root(p, kind))
    open_data(path)
    assert seen[0] == (path, "pertstack._base.reading.walk_hdf5:walk", False) and opened == [path]


def test_equal_texts_of_a_table_are_one_object(tmp_path):
    """A name in a million rows costs eight bytes a row, not sixty."""
    path = tmp_path / "data.h5ad"
    names = [f"compound {i % 3}" for i in range(60)]
    with h5py.File(path, "w") as file:
        write_elem(
            file, "obs", pd.DataFrame({"drug": np.array(names, dtype=object)}, index=[f"s{i}" for i in range(60)])
        )
        table = tables.read_frame(file, "obs", path)
    assert table["drug"].tolist() == names
    assert len({id(name) for name in table["drug"]}) == 3
