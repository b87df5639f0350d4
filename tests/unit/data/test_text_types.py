"""What pandas 3 changes for texts (a type of their own, missing values that stay missing), tried under any pandas."""

from __future__ import annotations

import contextlib
import pickle

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack._base.reading.tables import as_texts, plain_texts, read_table, with_numbers
from pertstack._base.reading.unpickle import load_pickle
from pertstack.data.readers.columns.columns import canonical_obs
from pertstack.data.readers.open import open_data
from pertstack.design.plan.folds import FoldPlan
from references import cell_worlds as cells


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


def as_pandas_3():
    """Texts of a type of their own, in which missing values stay missing; the only kind there is from pandas 3 on."""
    is_3 = int(pd.__version__.split(".")[0]) >= 3
    return contextlib.nullcontext() if is_3 else pd.option_context("future.infer_string", True)


def test_a_missing_value_is_a_text_too() -> None:
    with as_pandas_3():
        for missing in ("category", object, "string"):
            said = as_texts(pd.Series(["x", None], dtype=missing))
            assert said[0] == "x" and said[1].casefold() in {"nan", "none", "<na>"}
        assert pd.Series(["x", None]).astype(str).isna()[1]  # what nothing must rely on


def test_controls_without_a_batch_serve_none_and_without_a_name_are_counted(tmp_path) -> None:
    obs = cells.design(cells.TARGETS)
    counts, control = cells.counts_of(obs, "target_gene", None), (obs["target_gene"] == "non-targeting").to_numpy()
    lacking = control & (np.arange(len(obs)) % 3 == 0)
    cells.write(tmp_path / "removed.h5ad", obs[~lacking], counts[~lacking])
    cells.write(tmp_path / "kept.h5ad", obs.assign(gem_group=obs["gem_group"].mask(lacking)), counts)
    cells.write(tmp_path / "unnamed.h5ad", obs.assign(target_gene=obs["target_gene"].mask(control)), counts)
    with as_pandas_3():
        removed, kept = (open_data(tmp_path / name).read(slice(None)) for name in ("removed.h5ad", "kept.h5ad"))
        for ours, expected in zip(kept, removed, strict=True):
            np.testing.assert_array_equal(ours, expected)
        with pytest.raises(InputError, match=f"{control.sum()} rows have no name there. If they are the controls"):
            open_data(tmp_path / "unnamed.h5ad")


def test_names_and_plans_are_objects_from_the_start(tmp_path) -> None:
    """As they come back from a file: one kind in memory and on disk."""
    obs = pd.DataFrame({"perturbation": [f"p{i}" for i in range(40)], "cell_line": "A", "plate": ["x", None] * 20})
    obs.index = obs.index.map("s{}".format)
    with as_pandas_3():
        canonical, _ = canonical_obs(obs)
        assert canonical["plate"].tolist() == ["x", None] * 20
        plan = FoldPlan.make(canonical)
        plan.save(tmp_path)
        pd.testing.assert_frame_equal(FoldPlan.load(tmp_path).table, plan.table)
        again = FoldPlan.from_table(plan.table.astype({"role": str, "sample_id": str}), canonical)
        pd.testing.assert_frame_equal(again.table, plan.table)
