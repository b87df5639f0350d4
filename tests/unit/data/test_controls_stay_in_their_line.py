"""No control crosses a cell line, whatever the reader and the choice of controls."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data import open_data, validate

LINES = ("T cell", "B cell", "NK")


def pooled(drop: tuple[str, str] | None = None) -> tuple[np.ndarray, pd.DataFrame]:
    """Two plates with three cell lines each. Gene 0 says the line (10, 20, 30), gene 1 the plate, gene 2 the row.

    ``drop`` leaves out the controls of one (line, plate).
    """
    rows = [
        (line, plate, name)
        for plate in ("P1", "P2")
        for line in LINES
        for name in ("DMSO", "DMSO", "d1", "d2", "d3")
        if not (name == "DMSO" and (line, plate) == drop)
    ]
    obs = pd.DataFrame(rows, columns=["cell_id", "rna_plate", "pert_id"])
    obs["pert_type"] = np.where(obs["pert_id"] == "DMSO", "ctl_vehicle", "trt_cp")
    obs["is_control"] = obs["pert_id"] == "DMSO"
    obs.index = [f"{r.rna_plate}:w{i:02d}" for i, r in enumerate(obs.itertuples())]
    code = {line: 10.0 * (i + 1) for i, line in enumerate(LINES)}
    x = np.column_stack(
        [obs["cell_id"].map(code), obs["rna_plate"].str[1:].astype(float), np.arange(len(obs), dtype=float)]
    )
    return x.astype(np.float32), obs


def write(folder: Path, how: str, x: np.ndarray, obs: pd.DataFrame) -> Path:
    path = folder / f"d.{how}"
    if how in ("h5ad", "zarr"):
        data = anndata.AnnData(x, obs=obs.drop(columns="pert_type"), var=pd.DataFrame(index=list("abc")))
        (data.write_h5ad if how == "h5ad" else data.write_zarr)(path)
    elif how == "gctx":
        with h5py.File(path, "w") as file:
            file["0/DATA/0/matrix"] = x
            file["0/META/ROW/id"] = np.array(list("abc"), dtype="S")
            file["0/META/COL/id"] = np.array(obs.index, dtype="S")
            for column in ("cell_id", "rna_plate", "pert_id", "pert_type"):
                file[f"0/META/COL/{column}"] = np.array(obs[column], dtype="S")
    else:
        meta = obs.drop(columns="is_control")
        lines = ["#1.3", f"3\t{len(obs)}\t0\t{meta.shape[1]}", "\t".join(["id", *obs.index])]
        lines += ["\t".join([c, *meta[c]]) for c in meta.columns]
        lines += ["\t".join([g, *(f"{v:g}" for v in x[:, k])]) for k, g in enumerate("abc")]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("choice", ["plate_mean", "plate_random", "line_mean", "line_random"])
@pytest.mark.parametrize("how", ["h5ad", "zarr", "gctx", "gct"])
def test_no_control_crosses_a_cell_line(tmp_path, how: str, choice: str) -> None:
    x, obs = pooled(drop=("NK", "P2"))
    file = open_data(write(tmp_path, how, x, obs), controls=choice)
    control, treated = file.read(slice(None))
    assert len(treated) == 18
    np.testing.assert_array_equal(control[:, 0], treated[:, 0])  # the cell line, of every sample
    at_home = ~((file.obs["cell_line"] == "NK") & (file.obs["plate"] == "P2")).to_numpy()
    if choice.startswith("plate"):
        np.testing.assert_array_equal(control[at_home, 1], treated[at_home, 1])  # the plate, wherever there is a choice
    codes = [f.code for f in validate(file)]
    assert ("controls_from_other_plates" in codes) == choice.startswith("plate")
    assert "control_of_several_cell_lines" not in codes


def test_the_mean_control_is_that_of_cell_line_and_plate_as_pandas_says(tmp_path) -> None:
    x, obs = pooled(drop=("NK", "P2"))
    file = open_data(write(tmp_path, "h5ad", x, obs))
    controls = obs.assign(v=x[:, 2])[obs["is_control"]]
    both = controls.groupby(["cell_id", "rna_plate"])["v"].mean()
    line = controls.groupby("cell_id")["v"].mean()
    expected = [both.get((c, p), line[c]) for c, p in zip(file.obs["cell_line"], file.obs["plate"], strict=True)]
    np.testing.assert_allclose(file.read_control(slice(None))[:, 2], expected)
    warning = next(f for f in file.notes if f.code == "controls_from_other_plates")
    assert warning.severity == "warning" and warning.count == 3 and "NK on P2" in warning.message
    assert "line_mean" in warning.message and all(e.startswith("P2:") for e in warning.examples)
    assert file.obs["control_id"].nunique() == 6


def test_a_sample_of_an_unknown_plate_gets_its_line_and_not_the_other_unknown_plates(tmp_path) -> None:
    x, obs = pooled()
    lost = (obs["rna_plate"] == "P2") & (obs["pert_id"] != "d1")
    file = open_data(write(tmp_path, "h5ad", x, obs.assign(rna_plate=obs["rna_plate"].where(~lost, "-666"))))
    found = next(f for f in file.notes if f.code == "controls_from_other_plates")
    assert (
        found.count == 9 and "NK on an unknown plate" in found.message
    )  # on P2 two samples a line without plate, and d1, whose controls lost theirs
    mean = x[(obs["is_control"] & (obs["cell_id"] == "NK")).to_numpy()].mean(0)
    at = np.flatnonzero(file.obs["plate"].isna() & (file.obs["cell_line"] == "NK"))
    np.testing.assert_allclose(file.read_control(at), np.tile(mean, (2, 1)))


def test_the_column_mapped_as_cell_line_is_the_one_that_holds_controls_apart(tmp_path) -> None:
    x, obs = pooled()
    obs["donor"], obs["cell_id"] = obs["cell_id"], "all"
    for how in ("h5ad", "gctx"):
        path = write(tmp_path, how, x, obs.assign(pert_id=obs["pert_id"]))
        if how == "gctx":
            with h5py.File(path, "a") as file:
                file["0/META/COL/donor"] = np.array(obs["donor"], dtype="S")
        control, treated = open_data(path, mapping={"cell_line": "donor"}).read(slice(None))
        np.testing.assert_array_equal(control[:, 0], treated[:, 0])


def test_a_cell_line_without_any_control_is_refused_by_name(tmp_path) -> None:
    x, obs = pooled()
    keep = ~((obs["cell_id"] == "NK") & obs["is_control"]).to_numpy()
    for choice in ("plate_mean", "line_random"):
        with pytest.raises(InputError, match=r"1 cell lines have treated samples but no control row: 'NK'"):
            open_data(write(tmp_path, "h5ad", x[keep], obs[keep]), controls=choice)


def test_a_control_layer_that_crosses_cell_lines_is_warned_of(tmp_path) -> None:
    x, obs = pooled()
    obs = obs[["cell_id", "pert_id"]].assign(pert_id=[f"d{i % 5}" for i in range(len(obs))])
    data = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abc")))
    data.layers["control"] = np.tile(x.mean(0), (len(x), 1))
    data.write_h5ad(tmp_path / "d.h5ad")
    found = next(f for f in validate(open_data(tmp_path / "d.h5ad")) if f.code == "control_of_several_cell_lines")
    assert found.count == len(x) and "'B cell', 'NK', 'T cell'" in found.message


def test_a_control_table_that_says_another_cell_line_is_refused(tmp_path) -> None:
    genes = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=list("abc"))
    treated = genes.assign(
        sample_id=list("wxyz"), perturbation="d", cell_line=["A", "A", "B", "B"], control_id=list("kkkl")
    )
    control = genes.iloc[:2].assign(control_id=["k", "l"], cell_line=["A", "B"])
    treated.to_csv(tmp_path / "t.csv", index=False)
    control.to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(InputError, match=r"1 of 4 samples name a control of another cell line: B was given 'k' of A"):
        open_data(tmp_path / "t.csv", control=tmp_path / "c.csv")
    treated["control_id"] = list("kkll")
    treated.to_csv(tmp_path / "t.csv", index=False)
    assert open_data(tmp_path / "t.csv", control=tmp_path / "c.csv").n_samples == 4
