"""A file with more rows than are told apart is recognised as a whole, without a digest of each row being made first."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
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
