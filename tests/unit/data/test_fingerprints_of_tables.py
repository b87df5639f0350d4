"""Rows of a table are fingerprinted a piece at a time, to the digests of the table read whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack._base import fingerprints
from pertstack._base.reading.tables import as_texts

N = 11
NAMES = [f"s{i}" for i in range(N)]
FRAMES = {
    "ids": pd.DataFrame({"a": np.arange(N)}, index=pd.Index(NAMES, name="sample_id")),
    "counted": pd.DataFrame({"a": NAMES}),
    "counted from five": pd.DataFrame({"a": NAMES}, index=pd.RangeIndex(5, 5 + N)),
    "two levels": pd.DataFrame({"a": NAMES}, index=pd.MultiIndex.from_arrays([NAMES, np.arange(N)])),
    "a gap in the last piece": pd.DataFrame({"a": [*map(float, range(N - 1)), None], "b": [*NAMES[1:], None]}),
    "whole numbers with gaps": pd.DataFrame({"a": pd.array([*range(N - 1), None], dtype="Int64")}),
    "truths with gaps": pd.DataFrame({"a": [*[True, False] * 5, None]}),
    "categories": pd.DataFrame({"a": pd.Categorical(NAMES)}),
    "days": pd.DataFrame({"a": pd.date_range("2026-01-01", periods=N)}),
    "empty": pd.DataFrame({"a": []}),
}


def whole(table: pd.DataFrame) -> str:
    found = table.reset_index()
    text = as_texts(found.astype(object).where(found.notna(), None))
    hashes = pd.util.hash_pandas_object(text, index=False).to_numpy(dtype=np.uint64)
    return "".join(f"{int(d) & 0xFFFFFFFF:08x}" for d in hashes)


@pytest.mark.parametrize("name", FRAMES)
def test_pieces_have_the_digests_of_the_whole(tmp_path, monkeypatch, name):
    path = tmp_path / "t.parquet"
    FRAMES[name].to_parquet(path)
    monkeypatch.setattr(fingerprints, "_PIECE", 3)
    assert fingerprints.fingerprint(path)["rows"] == whole(pd.read_parquet(path))


def test_whole_numbers_with_a_gap_that_another_program_wrote(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"a": pa.array([*range(N - 1), None], pa.int32())}), path)
    monkeypatch.setattr(fingerprints, "_PIECE", 3)
    assert fingerprints.fingerprint(path)["rows"] == whole(pd.read_parquet(path))


def test_the_row_that_changed_is_named_by_its_id(tmp_path, monkeypatch):
    path, table = tmp_path / "t.parquet", FRAMES["ids"]
    table.to_parquet(path)
    before = fingerprints.fingerprint(path)
    table.assign(a=[*range(N - 1), 99]).to_parquet(path)
    monkeypatch.setattr(fingerprints, "_PIECE", 3)
    found = fingerprints.change(path, before)
    assert found is not None and found.rows == (N - 1,) and found.labels == (f"row {N - 1} (s{N - 1})",)


def test_tables_of_more_rows_than_are_named_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    FRAMES["ids"].to_parquet(path)
    monkeypatch.setattr(fingerprints, "MOST_ROWS", N - 1)
    monkeypatch.setattr(pd, "read_parquet", None)
    assert "rows" not in fingerprints.fingerprint(path)
