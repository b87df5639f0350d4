"""A file with more rows than are told apart is recognised as a whole, without a digest of each row being made first."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base import fingerprints
from pertstack._base.fingerprints import change, fingerprint


def test_an_npz_of_many_entries_costs_its_bytes_and_is_still_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.npz"
    text = np.zeros(100_000, dtype=np.int16)
    np.savez(path, meta=np.arange(3), samples=text)
    assert len(fingerprint(path)["rows"]) >= 8 * 100_000
    monkeypatch.setattr(fingerprints, "MOST_ROWS", 50_000)
    tracemalloc.start()
    facts = fingerprint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "rows" not in facts and peak < 10 * path.stat().st_size, peak
    assert change(path, facts) is None
    text[7] = 1
    np.savez(path, meta=np.arange(3), samples=text)
    differs = change(path, facts)
    assert differs is not None and differs.rows == ()


def test_a_file_without_rows_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "chunk.bin"
    path.write_bytes(bytes(20_000_000))
    tracemalloc.start()
    facts = fingerprint(path)
    assert change(path, facts) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000, peak


def test_bytes_of_a_table_inside_an_npz_are_one_entry(tmp_path: Path) -> None:
    """As score tables keep their samples: a digest of every byte would be eight times as long as the file."""
    path = tmp_path / "scores.npz"
    np.savez(path, samples=np.zeros(100_000, dtype=np.uint8), values=np.zeros((3, 4), dtype=np.float32))
    facts = fingerprint(path)
    assert len(facts["rows"]) == 8 * (2 + 4)  # a shape and one entry; a shape and three rows
    np.savez(path, samples=np.ones(100_000, dtype=np.uint8), values=np.zeros((3, 4), dtype=np.float32))
    differs = change(path, facts)
    assert differs is not None and differs.labels == ("samples",)


def test_rows_are_named_only_where_they_differ(tmp_path: Path) -> None:
    """A name for each of two million rows would be 160 MB of names that nobody reads."""
    path = tmp_path / "many.npz"
    rows = np.zeros(100_000, dtype=np.int16)
    np.savez(path, empty=np.zeros(0), meta=np.zeros((2, 3)), samples=rows)
    tracemalloc.start()
    facts = fingerprint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 90 * len(rows), peak  # a digest is 57 bytes and a place for it 8
    rows[[0, 7, 99_999]] = 1
    np.savez(path, empty=np.zeros(0), meta=np.zeros((2, 3)), samples=rows)
    differs = change(path, facts)
    assert differs is not None and differs.labels == ("samples[0]", "samples[7]", "samples[99999]")
    np.savez(path, empty=np.zeros(0), meta=np.ones((1, 3)), samples=rows)
    differs = change(path, {**facts, "rows": facts["rows"][: 8 * 4]})
    assert differs is not None and differs.labels[:2] == ("shape of meta", "meta[0]")


def test_rows_of_a_table_are_named_by_their_sample(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    table = pd.DataFrame({"dose": [1.0, 2.0, 3.0]}, index=pd.Index(["a", "b", "c"], name="sample_id"))
    table.to_parquet(path)
    facts = fingerprint(path)
    table["dose"] = [1.0, 2.5, 3.5]
    table.to_parquet(path)
    differs = change(path, facts)
    assert differs is not None and differs.labels == ("row 1 (b)", "row 2 (c)")
