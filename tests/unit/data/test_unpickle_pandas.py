"""Tables as pandas 2 and 3 pickle them: texts in Arrow, gaps, times; read alike, and only when their parts fit."""

from __future__ import annotations

import pickle
import pickletools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pertstack._base.errors import InputError
from pertstack._base.reading.unpickle import load_pickle

TEXTS = ["é", None, "", "日本", "b"]
TABLE = pd.DataFrame(
    {
        "arrow": pd.array(TEXTS, dtype="string[pyarrow]"),
        "python": pd.array(TEXTS, dtype="string[python]"),
        "str": pd.array(TEXTS, dtype=pd.StringDtype("pyarrow", na_value=np.nan)),
        "whole": pd.array([1, None, 3, 4, 5], dtype="Int64"),
        "small": pd.array([1, None, 3, 4, 5], dtype="UInt8"),
        "float": pd.array([1.5, None, 3, 4, 5], dtype="Float32"),
        "flag": pd.array([True, None, False, True, True], dtype="boolean"),
        "when": pd.to_datetime(["2020-01-01"] * 5),
        "took": pd.to_timedelta(range(5)),
        "kind": pd.Categorical(["u", "v", None, "u", "u"]),
        "mixed": pd.array([pd.NA, 1, "x", None, 2.5], dtype=object),
    },
    index=pd.Index(["s1", "s2", "s3", "s4", "s5"], dtype=pd.StringDtype("pyarrow", na_value=np.nan)),
)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_kind_of_column_comes_back(tmp_path, protocol: int) -> None:
    repr(TABLE["whole"].array)  # pandas keeps the type beside the values once it was asked for
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(TABLE, protocol=protocol))
    pd.testing.assert_frame_equal(load_pickle(tmp_path / "t.pkl"), TABLE)


def test_slices_and_no_rows_come_back(tmp_path) -> None:
    for part in (TABLE[1:4], TABLE[:0], pd.concat([TABLE, TABLE])):
        (tmp_path / "t.pkl").write_bytes(pickle.dumps(part))
        pd.testing.assert_frame_equal(load_pickle(tmp_path / "t.pkl"), part)


def test_pandas_3_names_its_classes_otherwise(tmp_path) -> None:
    """What pandas 3 writes, made of what this pandas writes: every class under its public name."""
    words = pickle.dumps(TABLE, protocol=2)
    ours = {(module, name) for module, name in _names(words) if module.startswith("pandas.core.arrays")}
    for module, name in ours:
        public = "pandas" if name.endswith("Dtype") or name == "Categorical" else "pandas.arrays"
        name_3 = name.replace("NumpySemantics", "")
        words = words.replace(f"c{module}\n{name}\n".encode(), f"c{public}\n{name_3}\n".encode())
    words = words.replace(b"cpandas._libs.missing\nNA\n", b"cpandas\nNA\n")
    (tmp_path / "t.pkl").write_bytes(words)
    pd.testing.assert_frame_equal(load_pickle(tmp_path / "t.pkl"), TABLE)


def _names(words: bytes) -> set[tuple[str, ...]]:
    return {tuple(arg.split(" ")) for op, arg, _ in pickletools.genops(words) if op.name == "GLOBAL"}


class _Says:
    """A pickle that says exactly this."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


def _arrow(length=2, offset=0, valid=None, ends=(0, 1, 2), content=b"ab", kind="large_string") -> _Says:
    buffers = [valid, np.array(ends, "<i8").tobytes(), content]
    alias = _Says(pa.lib.type_for_alias, (kind,))
    return _Says(pa.lib._restore_array, ((alias, length, 0, offset, buffers, [], None),))


def test_an_arrow_array_gives_the_texts_it_says(tmp_path) -> None:
    cases = {(2, 0, None): ["a", "b"], (1, 1, None): ["b"], (2, 0, b"\x02"): [None, "b"], (0, 0, None): []}
    for (length, offset, valid), expected in cases.items():
        (tmp_path / "t.pkl").write_bytes(pickle.dumps(_arrow(length, offset, valid)))
        assert load_pickle(tmp_path / "t.pkl").tolist() == expected


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"ends": (0, 1, 9)}, "do not lie within its bytes"),
        ({"ends": (0, 2, 1)}, "do not lie within its bytes"),
        ({"ends": (-1, 1, 2)}, "do not lie within its bytes"),
        ({"length": 9}, "cannot be read"),
        ({"length": 10**12}, "which are not there"),
        ({"length": -1}, "which are not there"),
        ({"offset": 7}, "cannot be read"),
        ({"valid": b""}, "which of its texts are missing"),
        ({"content": b"\xff\xfe"}, "cannot be read"),
        ({"kind": "int64"}, "only texts are read"),
    ],
)
def test_an_arrow_array_whose_parts_do_not_fit_is_refused(tmp_path, forged, message) -> None:
    """Arrow itself believes such parts, and reads beyond them."""
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(_arrow(**forged)))
    with pytest.raises(InputError, match=message):
        load_pickle(tmp_path / "t.pkl")


def test_an_arrow_buffer_is_made_of_the_bytes_in_the_file(tmp_path) -> None:
    """A number would be taken for an address, or for so many zeros."""
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(_Says(pa.py_buffer, (10**9,))))
    with pytest.raises(InputError, match="Arrow buffer of int"):
        load_pickle(tmp_path / "t.pkl")


def test_gaps_that_do_not_fit_the_values_are_refused(tmp_path) -> None:
    array = pd.array([1, 2], dtype="Int64")
    array._mask = np.array([True])
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(InputError, match=r"t\.pkl"):
        load_pickle(tmp_path / "t.pkl")


def test_no_state_reaches_the_missing_value_of_pandas(tmp_path) -> None:
    """There is one for the whole process."""
    (tmp_path / "t.pkl").write_bytes(b"\x80\x02cpandas\nNA\n}X\x01\x00\x00\x00xX\x01\x00\x00\x00ysb.")
    with pytest.raises(InputError, match="changes"):
        load_pickle(tmp_path / "t.pkl")
    assert not hasattr(pd.NA, "x")
