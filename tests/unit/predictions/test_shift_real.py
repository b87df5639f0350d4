"""The shift probe on a real L1000 plate: it sees a one-row shift where it can, and none where all is well."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import MisalignedError
from pertstack.design.blocks import Block
from pertstack.predictions import PredictionStore
from pertstack.predictions.importers import add_predictions
from realdata import real_data


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_one_row_shift_on_a_real_plate(tmp_path: Path) -> None:
    data = anndata.read_h5ad(real_data("l1000_single_line/ht115_cpc006.h5ad"))
    treated, control = (np.asarray(a, np.float32) for a in (data.X, data.layers["paired_control"]))
    store = PredictionStore.create(tmp_path / "store", data.var_names, "p")
    folds = np.arange(data.n_obs) % 3
    for fold in range(3):
        rows, block = np.flatnonzero(folds == fold), Block("HT115", fold)
        names = {"sample_ids": data.obs_names[rows], "gene_names": data.var_names}
        store.add_block(block, data.obs.iloc[rows][["perturbation", "cell_line"]])
        store.commit(block, "treated", treated[rows], fitted_on=None, **names)
        store.commit(block, "control", control[rows], fitted_on=None, **names)
    mean = treated.mean(axis=0)
    predictions = {
        "shrunken control": 0.6 * mean + 0.4 * control,  # as autoencoders behave
        "faint control": 0.9 * mean + 0.1 * control,
        "weak effect": mean + 0.15 * (treated - mean) + np.random.default_rng(0).normal(0, 0.5, treated.shape),
    }
    for name, values in predictions.items():
        frame = pd.DataFrame(values.astype(np.float32), data.obs_names, data.var_names)
        report = add_predictions(store, name, save(tmp_path, frame), fitted_on="plan", scale="treated")
        assert {"scale_checked", "rows_belong"} == {f.code for f in report.findings}
        for step in (-1, 1):
            moved = pd.DataFrame(np.roll(frame.to_numpy(), step, axis=0), frame.index, frame.columns)
            with pytest.raises(MisalignedError, match="look shifted"):
                add_predictions(store, f"{name} {step}", save(tmp_path, moved), fitted_on="plan", scale="treated")
    flat = pd.DataFrame(np.tile(mean, (len(treated), 1)), data.obs_names, data.var_names)
    report = add_predictions(store, "mean", save(tmp_path, flat), fitted_on="plan", scale="treated")
    assert "rows_unproven" in {f.code for f in report.findings}, "one profile for all leaves no trace, and that is said"


def save(folder: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(folder / "p.parquet")
    return folder / "p.parquet"
