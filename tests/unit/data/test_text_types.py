"""What pandas 3 changes for texts (a type of their own, missing values that stay missing), tried under any pandas."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd

from pertstack._base.reading.tables import as_texts, plain_texts, read_table, with_numbers
from pertstack._base.reading.unpickle import load_pickle


def test_texts_of_any_type_become_numbers_or_objects_with_none() -> None:
    table = pd.DataFrame({"n": ["1", ""], "name": ["p", None]}, dtype="string")
    read = with_numbers(table, {"name"})
    assert read["n"].tolist()[0] == 1.0 and np.isnan(read["n"][1])
    assert plain_texts(table)["name"].tolist() == read["name"].tolist() == ["p", None]
    assert plain_texts(table)["name"].dtype == object


def test_a_parquet_of_texts_is_read_as_objects(tmp_path) -> None:
    pd.DataFrame({"name": ["p", None]}, dtype="string").to_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")["name"]
    assert read.dtype == object and read.tolist() == ["p", None]


def test_keys_joined_of_columns_with_gaps_are_never_missing() -> None:
    for missing in ("string", object):
        table = pd.DataFrame({"a": ["x", None], "b": ["1", "2"]}, dtype=missing)
        joined = as_texts(table).agg("|".join, axis=1).tolist()
        assert joined[0] == "x|1" and joined[1].endswith("|2")


def test_pickles_that_name_tables_as_pandas_3_does(tmp_path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    words = pickle.dumps(frame, protocol=2).replace(b"cpandas.core.frame\n", b"cpandas\n")
    (tmp_path / "t.pkl").write_bytes(words)
    pd.testing.assert_frame_equal(load_pickle(tmp_path / "t.pkl"), frame)
