"""Laying out a study reads the file once from front to end, in any row order, and holds a few rows of it at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack.data import DataFile, open_data
from pertstack.data.readers.matrices import Float32, RowSource
from pertstack.predictions.store.store import PredictionStore
from pertstack.study import laid_out
from pertstack.study.choices import PlanChoices
from pertstack.study.steps.init import _make_plan

GENES = 300


class Watched:
    """A source that notes which rows were asked for, in order."""

    def __init__(self, source: RowSource) -> None:
        self.source, self.asked = source, np.zeros(0, dtype=int)
        self.shape = source.shape

    def rows(self, start: int, stop: int) -> Float32:
        self.asked = np.concatenate([self.asked, np.arange(start, stop)])
        return self.source.rows(start, stop)


def data_file(path: Path, n: int, lines: int = 3) -> DataFile:
    """Cell lines and perturbations in no order, so that every block's rows lie all over the file."""
    rng = np.random.default_rng(n)
    values = rng.normal(8, 1, (n, GENES)).astype(np.float32)
    drugs, cells = rng.integers(0, 40, n), rng.integers(0, lines, n)
    obs = pd.DataFrame(
        {"perturbation": [f"p{i}" for i in drugs], "cell_line": [f"l{i}" for i in cells]},
        index=[f"s{i}" for i in rng.permutation(n)],
    )
    var = pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    layers = {"control": values - 1, "effect": values + 1}
    anndata.AnnData(values, obs=obs, var=var, layers=layers).write_h5ad(path)
    return open_data(path)


def lay_out(root: Path, file: DataFile) -> None:
    root.mkdir()
    (root / "plan").mkdir()
    plan = _make_plan(file, PlanChoices(), None)
    laid_out.lay_out_blocks(root, file, plan, obs=file.obs.loc[plan.table["sample_id"]])


def test_one_pass_and_every_row_in_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laid_out, "POUR_BYTES", 50 * 6 * 4 * GENES)  # fifty rows at a time
    file = data_file(tmp_path / "data.h5ad", 700)
    file.treated, file.control = Watched(file.treated), Watched(file.control)
    lay_out(tmp_path / "study", file)
    for source in (file.treated, file.control):
        assert isinstance(source, Watched)
        np.testing.assert_array_equal(source.asked, np.arange(700))

    whole = anndata.read_h5ad(tmp_path / "data.h5ad").to_df()
    store, truth = (PredictionStore.open(tmp_path / "study" / name) for name in ("store", "test_truth"))
    seen: list[str] = []
    for block in store.blocks():
        ids = store.sample_ids(block)
        measured = store if block.role == "development" else truth
        np.testing.assert_array_equal(measured.read(block, "treated"), whole.loc[ids].to_numpy())
        np.testing.assert_array_equal(store.read(block, "control"), whole.loc[ids].to_numpy() - 1)
        np.testing.assert_array_equal(measured.read(block, "effect"), whole.loc[ids].to_numpy() + 1)
        seen += ids
    assert sorted(seen) == sorted(whole.index)
    assert truth.blocks() == store.blocks("test")
    assert all(store.status(b, "treated") == "missing" for b in store.blocks("test"))


def test_memory_does_not_follow_the_number_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the rows may cost a few hundred bytes for each of them, but never the rows themselves."""
    monkeypatch.setattr(laid_out, "POUR_BYTES", 50 * 6 * 4 * GENES)
    peaks, pour = [], laid_out._pour

    def watched(*arguments: Any) -> list[bytes]:
        tracemalloc.start()
        marks = pour(*arguments)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return marks

    monkeypatch.setattr(laid_out, "_pour", watched)
    for n in (600, 2400):
        lay_out(tmp_path / f"study{n}", data_file(tmp_path / f"{n}.h5ad", n, lines=1))
    more_rows = 2400 - 600
    assert peaks[1] - peaks[0] < 0.5 * more_rows * GENES * 4, peaks
