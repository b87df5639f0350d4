"""Fit rows mapped from a file, taken piece by piece: the same fits, and memory that does not grow with the rows."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.references.fit_world import make_rows, split_by_perturbation

from pertstack._base.errors import StorageError
from pertstack._base.machine import scratch
from pertstack.fit.baselines import groups
from pertstack.fit.registry import build, get_row, load_target

EXACT = ("mean_shift", "mean_shift_cell_line", "mean_treated", "mean_treated_cell_line", "mean_treated_perturbation")
EXACT += ("per_gene_linear", "perturbation_knn", "perturbation_knn_treated", "low_rank", "perturbation_elsewhere")
NEAR = ("ridge", "ridge_treated", "mlp")  # products of matrices, summed piece by piece: other last bits


def fitted(name: str, rows, params=None):
    return build(load_target(get_row(name).target), params or {}, name).fit(rows, rng=np.random.default_rng(3))


def small_pieces(monkeypatch):
    for place in ("groups.PIECE", "ridge.PIECE", "per_gene_linear.PIECE", "mlp._PIECE"):
        monkeypatch.setattr(f"pertstack.fit.baselines.{place}", 7)
    monkeypatch.setattr("pertstack.fit.encoders._PIECE", 7)


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_pieces_do_not_change_a_fit(name: str, monkeypatch):
    fit, held = split_by_perturbation(make_rows(n_perturbations=40, replicates=5, unknown=("d03",)))
    params = {"max_epochs": 3} if name == "mlp" else {}
    whole = fitted(name, fit, params).predict(held)
    small_pieces(monkeypatch)
    pieces = fitted(name, fit, params).predict(held)
    if name in EXACT:
        np.testing.assert_array_equal(pieces, whole)
    else:
        np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_sums_by_label_are_those_of_a_plain_loop(piece: int, monkeypatch):
    rng = np.random.default_rng(1)
    values = (100 * rng.normal(size=(300, 9))).astype(np.float32)
    index = rng.choice([0, 1, 2, 4], size=300, p=[0.7, 0.1, 0.1, 0.1])  # label 3 has no row
    monkeypatch.setattr(groups, "PIECE", piece)
    sums, counts = groups.sums_by_index(groups.Made(values.shape, lambda some: values[some]), index, 5)
    for k in range(5):
        plain = np.zeros(9)
        for row in values[index == k]:
            plain += row
        np.testing.assert_array_equal(sums[k], plain)
        np.testing.assert_array_equal(values[index == k].sum(axis=0, dtype=np.float64), plain)
    np.testing.assert_array_equal(counts, np.bincount(index, minlength=5))


@pytest.mark.parametrize("name", ["mean_shift", "per_gene_linear", "low_rank", "perturbation_elsewhere", *NEAR])
def test_memory_of_a_fit_does_not_grow_with_its_rows(name: str, tmp_path: Path):
    rows = make_rows(n_perturbations=30, replicates=400, n_genes=500)  # 24 MB of control, 24 MB of treated
    mapped = {}
    for layer in ("control", "treated"):
        np.save(tmp_path / f"{layer}.npy", getattr(rows, layer))
        mapped[layer] = np.load(tmp_path / f"{layer}.npy", mmap_mode="r")
    rows = replace(rows, **mapped)
    params = {"max_epochs": 1, "batch_size": 4096} if name == "mlp" else {}
    tracemalloc.start()
    fitted(name, rows, params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (38e6 if name == "mlp" else 20e6), f"{peak / 1e6:.0f} MB"  # one float64 array of the rows: 48 MB


def test_space_is_in_memory_when_small_and_in_a_nameless_file_when_large(tmp_path: Path, monkeypatch):
    small = scratch.space((3, 4), np.float32, tmp_path)
    assert not isinstance(small.base, np.memmap) and not small.any()
    monkeypatch.setattr(scratch, "IN_MEMORY", 47)
    large = scratch.space((3, 4), np.float32, tmp_path)
    large[1] = 2
    assert large.sum() == 8 and not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(scratch.os, "posix_fallocate"), reason="no way to reserve room")
def test_room_is_reserved_before_anything_is_written(tmp_path: Path):
    """A map of a file that the disk cannot hold would end the process without a word."""
    with pytest.raises(StorageError, match=r"(?s)no space|No space|full|too large"):
        scratch.space((2**20, 2**32), np.float32, tmp_path)
    assert not list(tmp_path.iterdir())
