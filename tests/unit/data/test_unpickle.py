"""The restricted unpickler reads numbers and tables, and refuses everything that could run."""

from __future__ import annotations

import gzip
import os
import pickle
import pickletools
import zipfile

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, MissingFileError
from pertstack._base.reading import damage
from pertstack._base.reading.unpickle import load_pickle, load_torch
from pertstack._base.reading.unpickle_parts import StoredTensor

FRAME = pd.DataFrame(
    {
        "pert_id": ["a", "b", "c"],
        "n": [1, 2, 3],
        "G1": [0.5, 1.5, 2.5],
        "kind": pd.Categorical(["u", "v", "u"]),
        "flag": [True, False, True],
    },
    index=["x", "y", "z"],
)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pandas_and_numpy_come_back_equal(tmp_path, protocol: int) -> None:
    value = {
        "frame": FRAME,
        "series": FRAME["G1"],
        "array": np.arange(6.0).reshape(2, 3),
        "text": np.array(["a", "b"]),
        "scalar": np.float32(2.5),
        "objects": np.array(["a", None], dtype=object),
        "list": [1, (2, "x"), {3}],
        "range": pd.DataFrame({"a": [1.0, 2.0]}),
        "bytes": b"ab",
    }
    path = tmp_path / "v.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    back = load_pickle(path)
    pd.testing.assert_frame_equal(back["frame"], FRAME)
    pd.testing.assert_series_equal(back["series"], FRAME["G1"])
    pd.testing.assert_frame_equal(back["range"], value["range"])
    for name in ("array", "text", "objects"):
        np.testing.assert_array_equal(back[name], value[name])
        assert back[name].dtype == value[name].dtype
    assert back["scalar"] == 2.5 and back["list"] == value["list"] and back["bytes"] == b"ab"


def test_gzipped_pickles(tmp_path) -> None:
    with gzip.open(tmp_path / "v.pkl.gz", "wb") as stream:
        pickle.dump(FRAME, stream)
    pd.testing.assert_frame_equal(load_pickle(tmp_path / "v.pkl.gz"), FRAME)


class Runs:
    """What an attacker would write."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("true",), "system"),
        (eval, ("1",), "eval"),
        (exec, ("1",), "exec"),
        (getattr, (1, "real"), "getattr"),
        (pickle.loads, (b"N.",), "loads"),
        (pd.read_csv, ("x",), "read_csv"),
        (np.load, ("x",), "load"),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path, function, args, name: str) -> None:
    ran = tmp_path / "ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"frame": FRAME, "x": Runs(function, *args)}))
    with pytest.raises(InputError, match=name):
        load_pickle(path)
    assert not ran.exists()


def test_nothing_runs_before_the_refusal(tmp_path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Runs(os.mkdir, str(marker))))
    with pytest.raises(InputError, match=r"mkdir.*\.h5ad"):
        load_pickle(path)
    assert not marker.exists()


def test_dotted_names_do_not_reach_deeper(tmp_path) -> None:
    """STACK_GLOBAL with a dotted name would walk attributes in the plain unpickler."""
    raw = b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."
    assert "STACK_GLOBAL" in [op.name for op, *_ in pickletools.genops(raw)]
    (tmp_path / "e.pkl").write_bytes(raw)
    with pytest.raises(InputError, match=r"ndarray.__class__"):
        load_pickle(tmp_path / "e.pkl")


def test_damaged_files_say_so(tmp_path) -> None:
    raw = pickle.dumps(FRAME)
    for cut in (0, 1, 10, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut.pkl").write_bytes(raw[:cut])
        with pytest.raises(InputError, match=r"cut\.pkl"):
            load_pickle(tmp_path / "cut.pkl")
    with pytest.raises(MissingFileError):
        load_pickle(tmp_path / "nowhere.pkl")
    with pytest.raises(InputError, match="zip format"):
        load_torch(tmp_path / "cut.pkl")


def test_torch_files_without_torch(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    value = {
        "plain": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "long": torch.tensor([1, 2, 3]),
        "bool": torch.tensor([True, False]),
        "double": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "half": torch.ones(2, dtype=torch.float16),
        "n": 3,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(value, tmp_path / "v.pt")
    back = load_torch(tmp_path / "v.pt")
    for name, tensor in value.items():
        if name != "n":
            np.testing.assert_array_equal(back[name], tensor.detach().numpy())
            assert back[name].dtype == tensor.detach().numpy().dtype, name
    assert back["n"] == 3
    lazy = load_torch(tmp_path / "v.pt", lazy=True)
    assert lazy["view"].shape == (2, 3)
    np.testing.assert_array_equal(lazy["view"].read(), base[1:3, ::2].numpy())


def test_torch_models_are_refused(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(InputError, match="Linear"):
        load_torch(tmp_path / "m.pt")


def test_a_tensor_may_not_reach_beyond_its_storage(tmp_path) -> None:
    from pertstack._base.reading.unpickle_parts import Storage

    storage = Storage(None, "0", "f4", 10)  # type: ignore[arg-type]
    StoredTensor(storage, 0, (2, 5), (5, 1))
    for offset, shape, stride in (
        (1, (2, 5), (5, 1)),
        (0, (11,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
    ):
        with pytest.raises(pickle.UnpicklingError):
            StoredTensor(storage, offset, shape, stride)


class _Says:
    """A pickle that says exactly this."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def test_a_small_tensor_may_not_stand_for_the_whole_memory(tmp_path) -> None:
    """A stride of 0 repeats one number: a file of a kilobyte asked for 40 gigabytes."""

    class One:
        numel = 1

    with pytest.raises(pickle.UnpicklingError, match=r"10,000,000,000 numbers out of 1"):
        StoredTensor(One(), 0, (10**5, 10**5), (0, 0))  # type: ignore[arg-type]
    StoredTensor(One(), 0, (10**3, 10**3), (0, 0))  # type: ignore[arg-type]


def test_a_storage_that_unpacks_to_the_whole_memory_is_refused_unread(tmp_path, monkeypatch) -> None:
    """torch packs nothing. Storages are read after the child was asked: a packed megabyte took a gigabyte."""
    monkeypatch.setattr(damage, "MODEST", 10**6)
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps([1], 2))
        archive.writestr("a/data/0", bytes(10**7))
    with pytest.raises(InputError, match=r"bomb.pt: a/data/0 unpacks to 10,000,000 bytes"):
        load_torch(path, lazy=True)


class Zeros:
    def __reduce__(self):
        return bytearray, (10**11,)


def test_a_bytearray_is_made_of_the_bytes_in_the_file(tmp_path) -> None:
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps(Zeros()))
    with pytest.raises(InputError, match="a bytearray made of int"):
        load_pickle(path)
    for protocol in range(3, 6):
        path.write_bytes(pickle.dumps({"a": bytearray(b"\x00\xff12")}, protocol))
        assert load_pickle(path)["a"] == bytearray(b"\x00\xff12")


def test_a_type_with_forged_flags_makes_no_array_of_pointers(tmp_path) -> None:
    """A type of objects whose flags say "plain numbers" made numpy follow addresses written in the file."""
    from numpy._core.multiarray import _reconstruct

    forged = _Says(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    array = _Says(_reconstruct, (np.ndarray, (0,), b"b"), (1, (2,), forged, False, b"\x41" * 16))
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(array))
    with pytest.raises(InputError, match="do not fill its shape"):
        load_pickle(tmp_path / "v.pkl")
    array = _Says(_reconstruct, (np.ndarray, (0,), b"b"), (1, (9,), np.dtype("f8"), False, b"\0" * 16))
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(array))
    with pytest.raises(InputError, match="do not fill its shape"):
        load_pickle(tmp_path / "v.pkl")


def test_a_state_never_reaches_a_class(tmp_path) -> None:
    """BUILD on pandas.Index replaced its ``tolist`` for the whole process."""
    before = pd.Index.tolist
    raw = b"\x80\x02cpandas.core.indexes.base\nIndex\nN}X\x06\x00\x00\x00tolistX\x01\x00\x00\x00xs\x86b."
    (tmp_path / "v.pkl").write_bytes(raw)
    with pytest.raises(InputError, match="changes"):
        load_pickle(tmp_path / "v.pkl")
    assert pd.Index.tolist is before


@pytest.mark.parametrize("spec", ["V8", "i8,i4", "datetime64[as]x", ("i4", 2)])
def test_only_numbers_and_texts_are_types(tmp_path, spec) -> None:
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(_Says(np.dtype, (spec, False, True))))
    with pytest.raises(InputError, match="none of numbers and texts"):
        load_pickle(tmp_path / "v.pkl")


def test_times_and_byte_orders_come_back(tmp_path) -> None:
    value = {"t": np.array(["2020-01-01"], "datetime64[ns]"), "big": np.arange(3, dtype=">f4"), "u": np.array(["a"])}
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(value))
    back = load_pickle(tmp_path / "v.pkl")
    for name, array in value.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype.kind == array.dtype.kind and type(back[name]) is np.ndarray
