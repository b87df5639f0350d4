"""Models that saw what they are judged on (issue 16, A6 and A7), through every door that takes predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from copies import copied
from pertstack.data import SimulationConfig, simulate_to_file

Writer = Callable[[Path, pd.DataFrame, ps.Study], Path]
ON_DISK = True
DONE = ("perturbation", "cell_line", "log10_dose", "time_h")


@pytest.fixture(scope="module")
def world_file():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.h5ad"
        simulate_to_file(path, SimulationConfig(samples=240, genes=40, cell_lines=2, perturbations=30, seed=3))
        yield path


@pytest.fixture(scope="module")
def made(world_file, tmp_path_factory):
    study = ps.Study.create(tmp_path_factory.mktemp("made") / "study", data=world_file, seed=1)
    assert all(r.ok for r in study.cross_fit(["mean_treated", "ridge", "perturbation_knn"], engine="inline"))
    return study


@pytest.fixture
def study(made, tmp_path):
    return ps.Study.open(copied(made.folder.root, tmp_path / "study"))


def leaking(study: ps.Study, role: str) -> pd.DataFrame:
    """What ridge says, and on the rows of a role their truth with little noise."""
    store, rng, parts = study.folder.store, np.random.default_rng(1), []
    truth = {"development": store, "test": study.folder.open_store("test_truth")}
    for block in store.blocks():
        seen = block.role == role
        values = (truth[role] if seen else store).read(block, "treated" if seen else "ridge")
        parts.append(pd.DataFrame(values, store.sample_ids(block), store.gene_names))
    frame = pd.concat(parts)
    return (frame + rng.normal(0, 0.05, frame.shape)).astype(np.float32)


def _npz(folder: Path, frame: pd.DataFrame, study: ps.Study) -> Path:
    ids, genes = np.array(frame.index, dtype=str), np.array(frame.columns, dtype=str)
    np.savez(folder / "p.npz", predictions=frame.to_numpy(), sample_ids=ids, gene_names=genes)
    return folder / "p.npz"


def _csv(folder: Path, frame: pd.DataFrame, study: ps.Study) -> Path:
    frame.rename_axis("sample_id").to_csv(folder / "p.csv.gz")
    return folder / "p.csv.gz"


def _parquet(folder: Path, frame: pd.DataFrame, study: ps.Study) -> Path:
    frame.to_parquet(folder / "p.parquet")
    return folder / "p.parquet"


def _layer(folder: Path, frame: pd.DataFrame, study: ps.Study) -> Path:
    data = anndata.AnnData(np.zeros(frame.shape, np.float32), frame.iloc[:, :0], frame.iloc[:0].T)
    data.layers["prediction"] = frame.to_numpy()
    data.write_h5ad(folder / "p.h5ad")
    return folder / "p.h5ad"


def _zarr(folder: Path, frame: pd.DataFrame, study: ps.Study) -> Path:
    anndata.AnnData(frame).write_zarr(folder / "p.zarr")
    return folder / "p.zarr"


def _folds(folder: Path, frame: pd.DataFrame, study: ps.Study) -> Path:
    table = study.plan.table.set_index("sample_id").reindex(frame.index)
    (folder / "folds").mkdir()
    for i, (_, part) in enumerate(frame.groupby(table["role"] + table["fold"].astype(str))):
        anndata.AnnData(part).write_h5ad(folder / "folds" / f"fold_{i}.h5ad")
    return folder / "folds"


def _key(folder: Path, frame: pd.DataFrame, study: ps.Study, cells: int = 1) -> Path:
    """Profiles of what was done, or cells of them: no sample is named."""
    samples = study.folder.samples.loc[frame.index]
    means = frame.groupby([samples[c] for c in DONE if c in samples]).mean()
    of_cell = np.repeat(np.arange(len(means)), cells)
    noise = np.random.default_rng(2).normal(0, 0.01, (len(of_cell), frame.shape[1])) * (cells > 1)
    obs = means.index.to_frame(index=False).iloc[of_cell].set_axis([f"r{i}" for i in range(len(of_cell))])
    data = anndata.AnnData((means.to_numpy()[of_cell] + noise).astype(np.float32), obs, frame.iloc[:0].T)
    data.write_h5ad(folder / "k.h5ad")
    return folder / "k.h5ad"


DOORS: dict[str, Writer] = {
    "npz": _npz,
    "csv": _csv,
    "parquet": _parquet,
    "layer": _layer,
    "zarr": _zarr,
    "folds": _folds,
    "key": _key,
    "cells": lambda f, p, s: _key(f, p, s, cells=3),
}


def admit(study: ps.Study, folder: Path, name: str, *, frame: pd.DataFrame, door: str = "parquet", **said) -> None:
    (folder / name).mkdir()
    path = DOORS[door](folder / name, frame, study)
    study.add(name, path, **{"fitted_on": "plan", "scale": "treated", **said})


@pytest.mark.slow
def test_a7_a_model_that_saw_its_rows_is_not_stacked_whatever_door_it_came_through(study, tmp_path):
    frame = leaking(study, "development")
    for door in DOORS:
        admit(study, tmp_path, f"by_{door}", frame=frame, door=door)
    result = study.stack(["mean"])
    assert {n for n in result.left_out if n.startswith("by_")} == {f"by_{door}" for door in DOORS}
    assert result.choice.best_single in ("mean_treated", "ridge", "perturbation_knn")


def fold_table(study: ps.Study, path: Path) -> str:
    table = study.plan.table[study.plan.table["role"] == "development"]
    rows = [(f, i) for f in sorted(table["fold"].unique()) for i in table["sample_id"][table["fold"] != f]]
    rows += [("test", i) for i in table["sample_id"]]
    pd.DataFrame(rows, columns=["fold", "sample_id"]).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize(
    "said",
    ["two folds", *(pytest.param(s, marks=pytest.mark.slow) for s in ("digest", "table", "unknown", "six genes"))],
)
def test_a7_whatever_it_says_of_its_fit_rows_and_however_little_it_predicts(study, tmp_path, said):
    frame, more, stack = leaking(study, "development"), {}, {}
    if said == "digest":
        more = {"fitted_on": study.plan.digest}
    elif said == "table":
        more = {"fitted_on": fold_table(study, tmp_path / "t.csv")}
    elif said == "unknown":
        more, stack = {"fitted_on": "unknown"}, {"accept_unverified": True}
    elif said == "two folds":
        table = study.plan.table.set_index("sample_id").reindex(frame.index)
        frame, more = frame[~(table["fold"] == 1).fillna(value=False).to_numpy(dtype=bool)], {"missing": "record"}
    else:
        frame, more = frame.iloc[:, :6], {"missing": "record"}
    admit(study, tmp_path, "liar", frame=frame, **more)
    assert "Noise cannot be predicted" in study.stack(["mean"], **stack).left_out["liar"]


@pytest.mark.slow
def test_a7_in_a_study_with_an_imported_plan(world_file, made, tmp_path):
    made.plan.table[["sample_id", "role", "fold"]].to_csv(tmp_path / "plan.csv", index=False)
    study = ps.Study.create(tmp_path / "s", data=world_file, plan=tmp_path / "plan.csv", group="perturbation", seed=1)
    assert all(r.ok for r in study.cross_fit(["mean_treated", "ridge"], engine="inline", nested=False))
    admit(study, tmp_path, "liar", frame=leaking(study, "development"), door="key")
    assert "liar" in study.stack(["mean"]).left_out


@pytest.mark.slow
def test_a7_an_external_program_that_opens_the_file_of_the_study_is_kept_out_or_accused(study, world_file, tmp_path):
    """Where it runs in a sandbox it cannot open the file, and its jobs fail."""
    (tmp_path / "thief.py").write_text(
        "import sys, anndata, numpy as np\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n"
        f"new, all_ = anndata.read_h5ad(folder / 'predict.h5ad'), anndata.read_h5ad({str(world_file)!r})\n"
        "p = np.asarray(all_[new.obs_names, new.var_names].X) * 0.98 + 0.02 * np.asarray(new.layers['control'])\n"
        "np.savez(folder / 'predictions.npz', predictions=p.astype('float32'),"
        " sample_ids=np.array(list(new.obs_names), dtype=str), gene_names=np.array(list(new.var_names), dtype=str))\n"
    )
    (tmp_path / "thief.toml").write_text(
        'format = 1\nname = "thief"\n\n[run]\nscript = "thief.py"\nscale = "treated"\n'
    )
    ran = study.cross_fit([str(tmp_path / "thief.toml")], engine="inline", nested=False)
    result = study.stack(["mean"])
    assert "thief" not in result.models and ("thief" in result.left_out or not any(r.ok for r in ran))


def verdict_on(study: ps.Study) -> ps.Study:
    assert not study.stack(["mean"]).accused  # out of fold there is nothing to see
    board = study.verdict()
    assert board.decision.light == "red" and board.headline.startswith("Do not trust this study: oracle_like")
    assert board.best_single != "oracle_like" and board.ships is None
    return study


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_a6_a_model_that_holds_the_truth_of_the_test_is_named_whatever_door_it_came_through(study, tmp_path, door):
    admit(study, tmp_path, "oracle_like", frame=leaking(study, "test"), door=door)
    verdict_on(study)


@pytest.mark.slow
@pytest.mark.parametrize("said", ["table", "half", "decoy"])
def test_a6_whatever_it_says_and_whoever_stands_beside_it(study, tmp_path, said):
    """A third model that predicts no row of the test silenced the comparison with the others for all."""
    frame, more = leaking(study, "test"), {}
    if said == "table":
        more = {"fitted_on": fold_table(study, tmp_path / "t.csv")}
    elif said == "half":
        group = study.plan.groups.reindex(frame.index)
        tested = sorted(set(group[study.plan.sample_ids("test")]))
        frame, more = frame[~group.isin(tested[::2]).to_numpy()], {"missing": "record"}
    else:
        door = study.plan.sample_ids("test")
        means = frame.groupby([study.folder.samples.loc[frame.index, c] for c in DONE]).transform("mean")
        admit(study, tmp_path, "decoy", frame=frame.drop(index=door) + 0.01, missing="record")
        frame = means  # the same for replicates: only the jump shows it
    admit(study, tmp_path, "oracle_like", frame=frame, **more)
    verdict_on(study)


@pytest.mark.slow
def test_a6_beside_one_other_model_alone_it_is_a_caution_on_the_row(study, tmp_path):
    """One model may have failed itself, so the jump is a warning; replicates told apart are named all the same."""
    admit(study, tmp_path, "oracle_like", frame=leaking(study, "test"), door="key")
    for model in ("mean_treated", "perturbation_knn"):
        study.withdraw(model, "two are left")
    study.stack(["mean"])
    board = study.verdict()
    cautions = next(r.cautions for r in board.rows if r.name == "oracle_like" and r.split == "test")
    assert any("ridge alone to hold it against" in c for c in cautions)
