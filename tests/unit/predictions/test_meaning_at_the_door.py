"""What the values and ids of foreign predictions mean: another logarithm, the truth itself, ids spelt otherwise."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import IntegrityError, MissingFileError, UnknownNameError
from pertstack.design.blocks import Block
from pertstack.predictions.importers import add_predictions
from pertstack.predictions.importers.cards import named_transform
from pertstack.predictions.importers.checks.scale import offset_after, other_logarithm
from pertstack.predictions.importers.readers.opening import as_paths
from references.small_store import World, make_world

SIZES = {Block("A", 0): 20, Block("A", 1): 20, Block("B", 0): 20, Block("A", None): 10}
DOUBLING = {"ln": np.log(2), "log2": 1.0, "log10": np.log10(2)}
"""What a doubling is in each logarithm, written down apart from the code."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store", SIZES, n_genes=30)


def frame(world: World, what: str = "prediction") -> pd.DataFrame:
    """Treated or predicted values of every block."""
    values = {b: world.prediction(b, 5) if what == "prediction" else world.treated[b] for b in SIZES}
    return pd.concat([pd.DataFrame(v, world.obs[b].index, world.genes) for b, v in values.items()])


def test_law_every_pair_of_logarithms_is_told_by_its_factor_and_mended_by_its_transform():
    rng = np.random.default_rng(0)
    means = rng.uniform(3, 14, 200)  # of genes, in log2
    for theirs in DOUBLING:
        for ours in DOUBLING:
            given, study = means * DOUBLING[theirs] + rng.normal(0, 0.02, 200), means * DOUBLING[ours]
            slope, r = np.polyfit(given, study, 1)[0], np.corrcoef(given, study)[0, 1]
            said = other_logarithm(slope, r, offset_after(slope, given, study))
            assert said == (None if theirs == ours else (theirs, ours))
            if theirs != ours:
                mapped = named_transform(f"{theirs}_to_{ours}", "treated")(given.astype(np.float32), "p")
                np.testing.assert_allclose(mapped, given * DOUBLING[ours] / DOUBLING[theirs], rtol=1e-5)


@pytest.mark.parametrize(
    ("slope", "r", "offset"), [(1.0, 1.0, 0.0), (1.2, 1.0, 0.0), (1.4427, 0.7, 0.0), (1.4427, 0.999, 0.6)]
)
def test_levels_that_are_no_other_logarithm(slope, r, offset):
    assert other_logarithm(slope, r, offset) is None


def levelled(world: World) -> World:
    """The same world with genes of different levels, as expression has."""
    level = np.linspace(-4, 5, len(world.genes), dtype=np.float32)
    store = type(world.store).create(world.store.root.parent / "levelled", world.genes, plan_digest="p" * 64)
    treated = {b: v + level for b, v in world.treated.items()}
    control = {b: v + level for b, v in world.control.items()}
    for b in SIZES:
        store.add_block(b, world.obs[b])
        store.commit(b, "control", control[b], fitted_on=None, **world.names(b))
        if b.role == "development":
            store.commit(b, "treated", treated[b], fitted_on=None, **world.names(b))
    return World(store, world.genes, world.obs, treated, control)


@pytest.mark.parametrize(("base", "factor"), [("ln", np.log(2)), ("log10", np.log10(2))])
def test_predictions_in_another_logarithm_are_refused_by_name_and_the_transform_named_mends_it(
    world: World, tmp_path: Path, base: str, factor: float
):
    world = levelled(world)
    values = frame(world)
    (values * factor).to_csv(tmp_path / "p.csv")
    with pytest.raises(IntegrityError, match=rf"--transform {base}_to_log2"):
        add_predictions(world.store, "m", tmp_path / "p.csv", fitted_on="plan", scale="treated")
    assert world.store.models() == []
    add_predictions(
        world.store, "m", tmp_path / "p.csv", fitted_on="plan", scale="treated", transform=f"{base}_to_log2"
    )
    kept = np.empty((20, 30), np.float32)
    world.store.read(Block("A", 0), "m", start=0, stop=20, out=kept)
    np.testing.assert_allclose(kept, values.loc[world.obs[Block("A", 0)].index], rtol=1e-4)


@pytest.mark.parametrize("where", ["obsm", "layer", "alone"])
def test_measured_values_in_x_are_refused_and_the_slot_that_holds_the_prediction_is_named(world, tmp_path, where):
    truth, values = frame(world, "treated"), frame(world)
    data = anndata.AnnData(truth.to_numpy(), obs=truth[[]], var=pd.DataFrame(index=truth.columns))
    if where == "obsm":
        data.obsm["CPA_pred"] = values.to_numpy()
        data.obsm["X_pca"] = values.to_numpy()[:, :2]
    if where == "layer":
        data.layers["pred"] = values.to_numpy()
    data.write_h5ad(tmp_path / "p.h5ad")
    named = {"obsm": "'obsm:CPA_pred': name", "layer": "'pred': name", "alone": "predictions of them. Provide"}[where]
    with pytest.raises(IntegrityError, match=f"are the measured values themselves.*{named}"):
        add_predictions(world.store, "m", tmp_path / "p.h5ad", fitted_on="plan", scale="treated")
    assert world.store.models() == []
    if where == "alone":
        return
    for layer in {"obsm": ("obsm:CPA_pred", "CPA_pred"), "layer": ("pred",)}[where]:
        add_predictions(world.store, "m", tmp_path / "p.h5ad", fitted_on="plan", scale="treated", layer=layer)
        assert world.store.models() == ["m"]
    with pytest.raises(UnknownNameError, match=r"'predd'.*Known: X, "):
        add_predictions(world.store, "n", tmp_path / "p.h5ad", fitted_on="plan", scale="treated", layer="predd")


def test_measured_differences_are_refused_too_and_so_are_some_rows_among_predictions(world, tmp_path):
    control = pd.concat([pd.DataFrame(world.control[b], world.obs[b].index, world.genes) for b in SIZES])
    (frame(world, "treated") - control).to_csv(tmp_path / "d.csv")
    with pytest.raises(IntegrityError, match=r"60 of 60 compared rows are the measured values"):
        add_predictions(world.store, "m", tmp_path / "d.csv", fitted_on="plan", scale="delta")
    some = frame(world)
    some.iloc[:10] = frame(world, "treated").iloc[:10]
    some.to_csv(tmp_path / "s.csv")
    with pytest.raises(IntegrityError, match=r"10 of 60 compared rows"):
        add_predictions(world.store, "m", tmp_path / "s.csv", fitted_on="plan", scale="treated")


def ids_of(world: World) -> list[str]:
    return [i for b in SIZES for i in world.obs[b].index]


@pytest.mark.parametrize(
    ("spelt", "said"),
    [
        (lambda i: i + "-1", "samples of the study in another spelling, such as 'A:0:0-1' for 'A:0:0'"),
        (str.lower, "in another spelling"),
        (lambda i: i.replace(":", "_"), "in another spelling"),
        (lambda i: i + " ", "in another spelling"),
        (lambda i: "GSM" + str(hash(i) % 10**6), "are no samples of this study"),
        (lambda i: f"{i};train", "are no samples of this study"),
    ],
)
def test_ids_of_fit_rows_that_are_no_samples_are_refused_and_never_believed(world, tmp_path, spelt, said):
    frame(world).to_csv(tmp_path / "p.csv")
    ids = ids_of(world)[:40]
    with pytest.raises(IntegrityError, match=said) as refused:
        add_predictions(world.store, "m", tmp_path / "p.csv", fitted_on=[spelt(i) for i in ids], scale="treated")
    assert "--fitted-on unknown" in str(refused.value) and "40 of 40" in str(refused.value)
    table = pd.DataFrame({"fold": [0, 1] * 20, "sample_id": [spelt(i) for i in ids]})
    with pytest.raises(IntegrityError, match=said):
        add_predictions(world.store, "m", tmp_path / "p.csv", fitted_on=table, scale="treated")
    assert world.store.models() == []


def test_a_few_foreign_fit_rows_are_no_matter_unless_they_are_samples_in_another_spelling(world, tmp_path):
    frame(world).to_csv(tmp_path / "p.csv")
    ids = ids_of(world)[:40]
    report = add_predictions(
        world.store, "m", tmp_path / "p.csv", fitted_on=[*ids, "DMSO_well_1", "DMSO_well_2"], scale="treated"
    )
    assert report is not None and world.store.models() == ["m"]
    with pytest.raises(IntegrityError, match=r"1 of 41 ids.*'b:0:3' for 'B:0:3'"):
        add_predictions(world.store, "n", tmp_path / "p.csv", fitted_on=[*ids, "b:0:3"], scale="treated")


def test_a_file_that_is_not_there_is_told_with_the_near_one(tmp_path):
    (tmp_path / "gears.npz").write_bytes(b"")
    with pytest.raises(MissingFileError, match=r"geers\.npz does not exist\. Did you mean '.*gears\.npz'\?"):
        as_paths(tmp_path / "geers.npz")
