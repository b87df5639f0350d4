"""A compressed matrix is opened one row of chunks at a time, once, however few rows are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack.data.readers import matrices
from pertstack.data.readers.matrices import StoredRows

VALUES = np.random.default_rng(0).normal(size=(53, 6)).astype(np.float32)


class Counting:
    """A stored matrix that counts how often each of its rows is read."""

    def __init__(self, matrix: Any) -> None:
        self.matrix, self.shape, self.dtype, self.chunks = matrix, matrix.shape, matrix.dtype, matrix.chunks
        self.reads = np.zeros(matrix.shape[0], dtype=int)

    def __getitem__(self, rows: slice) -> Any:
        self.reads[rows] += 1
        return self.matrix[rows]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bands") / "values.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("compressed", data=VALUES, chunks=(10, 4), compression="gzip")
        file.create_dataset("plain", data=VALUES)
    return path


def counted(path: Path, key: str) -> tuple[StoredRows, Counting]:
    source = StoredRows(path, "hdf5", key)
    assert source.shape == VALUES.shape
    source._open = Counting(source._open)
    return source, source._open


@pytest.mark.parametrize("key", ["compressed", "plain"])
def test_a_pass_in_small_steps_reads_every_row_once(path: Path, key: str) -> None:
    source, stored = counted(path, key)
    parts = [source.rows(start, min(start + 3, 53)) for start in range(0, 53, 3)]
    np.testing.assert_array_equal(np.concatenate(parts), VALUES)
    assert (stored.reads == 1).all()


def test_chunks_too_large_to_keep_are_read_as_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrices, "BAND_BYTES", 10 * 6 * 4 - 1)
    source, stored = counted(path, "compressed")
    np.testing.assert_array_equal(source.rows(4, 7), VALUES[4:7])
    assert np.flatnonzero(stored.reads).tolist() == [4, 5, 6]


@given(st.lists(st.tuples(st.integers(0, 53), st.integers(0, 60)), max_size=8))
@settings(max_examples=40)
def test_any_sequence_of_reads_gives_the_rows_of_the_matrix(path: Path, asked: list[tuple[int, int]]) -> None:
    source = StoredRows(path, "hdf5", "compressed")
    for start, stop in asked:
        np.testing.assert_array_equal(source.rows(start, stop), VALUES[start:stop])


def test_what_was_read_can_be_changed_without_changing_what_is_read_next(path: Path) -> None:
    source = StoredRows(path, "hdf5", "compressed")
    source.rows(0, 10)[:] = 0
    np.testing.assert_array_equal(source.rows(0, 10), VALUES[:10])
