"""A notebook has tables, not files: every door takes them, or says what to write."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import InputError, UnknownNameError
from pertstack.data import SimulationConfig, simulate_to_file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with two fitted models, and the predictions of one of them as a table of development rows."""
    folder = tmp_path_factory.mktemp("objects")
    simulate_to_file(
        folder / "world.h5ad", SimulationConfig(samples=150, genes=20, cell_lines=1, perturbations=30, seed=3)
    )
    study = ps.Study.create(folder / "study", data=folder / "world.h5ad", seed=1)
    assert all(job.ok for job in study.cross_fit("ridge", engine="inline", nested=False))
    assert all(job.ok for job in study.cross_fit(("mean_treated",), engine="inline", nested=False))
    store = study.folder.store
    tables = [pd.DataFrame(store.read(b, "ridge"), store.sample_ids(b), store.gene_names) for b in store.blocks()]
    return folder, study, pd.concat(tables)


def test_one_name_is_a_list_of_one(made):
    """``cross_fit("ridge")`` looked for a model called 'r'."""
    folder, study, _ = made
    assert study.status().matrix.keys() == {"ridge", "mean_treated"}
    assert study.export(folder / "one.h5ad", models="ridge") == [folder / "one.h5ad"]
    assert {"ridge", "mean_treated"} & set(ad.read_h5ad(folder / "one.h5ad").layers) == {"ridge"}
    with pytest.raises(UnknownNameError, match="'rigde'"):
        study.stack("mean", accept_accused="rigde")


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("table", lambda t: [t]),
        ("anndata", lambda t: [ad.AnnData(t)]),
        ("halves", lambda t: [[t.iloc[: len(t) // 2], ad.AnnData(t.iloc[len(t) // 2 :])]]),
        ("shuffled", lambda t: [t.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=1)]),
    ],
)
def test_tables_in_memory_are_added_by_name(made, name, turn):
    """They ended in a TypeError about paths."""
    _, study, table = made
    shifted = table + np.linspace(0.01, 0.02, table.shape[1], dtype=np.float32)
    before = shifted.copy()
    study.add(name, *turn(shifted), fitted_on="plan", scale="treated")
    pd.testing.assert_frame_equal(shifted, before)
    store = study.folder.store
    for block in store.blocks():
        kept = pd.DataFrame(store.read(block, name), store.sample_ids(block), store.gene_names)
        np.testing.assert_array_equal(kept, before.loc[kept.index, kept.columns])
    line = study.folder.ledger.of_kind("model_added")[-1].facts
    assert line["model"] == name and all(f.startswith("in") and "memory" in f for f in line["files"])


@pytest.mark.parametrize("nameless", [lambda t: t.to_numpy(), lambda t: {"a": t}, lambda t: 3])
def test_what_has_no_names_of_rows_is_refused_in_words(made, nameless):
    _, study, table = made
    with pytest.raises(InputError, match=r"no names. Give a file, an AnnData, or a DataFrame"):
        study.add("nameless", nameless(table), fitted_on="plan", scale="treated")
    assert "nameless" not in study.folder.store.models()


def test_a_table_that_cannot_be_written_is_refused_in_words(made):
    _, study, table = made
    odd = table.astype(object)
    odd[odd.columns[0]] = [{"a": 1}, *["x"] * (len(odd) - 1)]
    with pytest.raises(InputError, match="cannot be written"):
        study.add("odd", odd, fitted_on="plan", scale="treated")


def test_a_study_is_made_from_a_file(made, tmp_path):
    folder, *_ = made
    with pytest.raises(InputError, match="write_h5ad"):
        ps.Study.create(tmp_path / "study", data=ad.read_h5ad(folder / "world.h5ad"))
    assert not (tmp_path / "study").exists()


def test_predictions_in_a_list_need_names(made):
    folder, _, table = made
    truth = ad.read_h5ad(folder / "world.h5ad")
    with pytest.raises(InputError, match="need names"):
        ps.evaluate(truth, [table])
    halves = [table.iloc[:60], table.iloc[60:]]
    one, two = ps.evaluate(truth, {"ridge": halves}), ps.evaluate(truth, {"ridge": table})
    pd.testing.assert_frame_equal(one.to_frame(), two.to_frame())


def test_new_samples_in_memory_are_predicted_as_those_of_a_file(made, tmp_path):
    folder, study, _ = made
    new = ad.read_h5ad(folder / "world.h5ad")[study.plan.sample_ids("test")[:5]].copy()
    new.X = None
    new.write_h5ad(tmp_path / "new.h5ad")
    study.stack("mean")
    counts = [
        study.predict(given, tmp_path / out, use="ridge")
        for given, out in ((new, "a.h5ad"), (tmp_path / "new.h5ad", "b.h5ad"))
    ]
    assert counts == [(5, 20), (5, 20)]
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "a.h5ad").X, ad.read_h5ad(tmp_path / "b.h5ad").X)
