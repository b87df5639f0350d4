"""Nested predictions that come from files: committed beside the model, and nothing else taken for them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import ConflictError, InputError
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.predictions.sources.nested_source import has_nested
from pertstack.study.steps.add import add_model, nesting


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "world.h5ad"
    simulate_to_file(path, SimulationConfig(samples=120, genes=20, cell_lines=1, perturbations=24, seed=3))
    return path


@pytest.fixture
def study(world, tmp_path):
    return ps.Study.create(tmp_path / "study", data=world, seed=0)


def predictions(study, world, path, folds, seed=0):
    """Noise around the control for the samples of some folds (None: the test)."""
    data, table = ad.read_h5ad(world), study.plan.table.set_index("sample_id")
    fold = table["fold"].astype(object).where(table["fold"].notna(), None)
    ids = [s for s in data.obs_names if fold[s] in folds]
    control = np.asarray(data[ids].layers["control"])
    values = control + np.random.default_rng(seed).normal(0, 0.3, control.shape)
    ad.AnnData(values.astype("f4"), obs=pd.DataFrame(index=ids), var=pd.DataFrame(index=data.var_names)).write_h5ad(
        path
    )
    return path


def test_an_added_model_gets_its_nested_predictions_and_the_warning_goes(study, world, tmp_path):
    report = study.add(
        "mine", predictions(study, world, tmp_path / "all.h5ad", (0, 1, 2, None)), fitted_on="plan", scale="treated"
    )
    warned = [f for f in report.findings if f.code == "no_nested_predictions"]
    assert len(warned) == 1 and "without=k" in warned[0].message and "may not ship" in warned[0].message
    for k in range(3):
        assert not has_nested(study.predictions, "mine")
        others = predictions(study, world, tmp_path / f"without_{k}.h5ad", {0, 1, 2} - {k}, seed=k)
        add_model(study.folder, "mine", [others], fitted_on="plan", scale="treated", without=k)
    assert has_nested(study.predictions, "mine") and nesting(study.folder, "mine") == []
    assert list(study.predictions.models()) == ["mine"]
    block = study.predictions.blocks("development")[0]
    record = study.predictions.record(block, f"nested.f{(block.fold + 1) % 3}.mine")
    assert record.fitted_on.also_held_out == (block.fold + 1) % 3 and record.fitted_on.held_out_fold == block.fold


@pytest.mark.parametrize(
    ("folds", "without", "fitted_on", "words"),
    [
        ((0, 1, 2), 0, "plan", "lie in fold 0 or in the test"),
        ((1, 2, None), 0, "plan", "lie in fold 0 or in the test"),
        ((1, 2), 7, "plan", "this plan has the folds 0, 1, 2"),
        ((1, 2), 0, "unknown", "Use --fitted-on plan"),
    ],
)
def test_rows_that_are_not_nested_are_refused(study, world, tmp_path, folds, without, fitted_on, words):
    file = predictions(study, world, tmp_path / "x.h5ad", folds)
    with pytest.raises(InputError, match=words):
        add_model(study.folder, "mine", [file], fitted_on=fitted_on, scale="treated", without=without)
    assert not study.predictions.models()


def test_the_same_model_added_twice_is_the_same_model(study, world, tmp_path):
    """An exported model names its fit rows, the word 'plan' does not: still one claim, and no contradiction."""
    study.cross_fit(["mean_treated"], nested=False, engine="inline")
    study.export(tmp_path / "all.npz", models=["mean_treated"])
    again = study.add("mean_treated", tmp_path / "all.npz", fitted_on="plan", scale="treated")
    assert len(again.committed) == len(study.predictions.blocks())
    other = predictions(study, world, tmp_path / "other.h5ad", (0, 1, 2, None))
    with pytest.raises(ConflictError, match="Other predictions of 'mean_treated'"):
        study.add("mean_treated", other, fitted_on="plan", scale="treated")
