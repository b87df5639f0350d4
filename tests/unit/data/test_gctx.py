"""GCTX and GCT: orientation, vehicle wells as controls, missing markers."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.data import open_data, validate

N, G = 24, 5


def world() -> tuple[np.ndarray, pd.DataFrame]:
    """Two plates of twelve wells: ten treated, two vehicle."""
    values = np.random.default_rng(0).normal(8, 1, (N, G)).astype(np.float32)
    table = pd.DataFrame(
        {
            "inst_id": [f"PLATE{i // 12}:W{i % 12:02d}" for i in range(N)],
            "pert_type": (["trt_cp"] * 10 + ["ctl_vehicle"] * 2) * 2,
            "pert_id": [f"BRD-{i % 5}" if i % 12 < 10 else "DMSO" for i in range(N)],
            "cell_iname": "A549",
            "pert_dose": [10.0] * N,
            "pert_dose_unit": "uM",
            "pert_time": 24,
            "pert_time_unit": "h",
            "rna_plate": [f"PLATE{i // 12}" for i in range(N)],
        }
    )
    return values, table


def write_gctx(path: Path, values: np.ndarray, table: pd.DataFrame, *, inside: bool = False) -> Path:
    with h5py.File(path, "w") as file:
        file["0/DATA/0/matrix"] = values
        file["0/META/ROW/id"] = np.array([f"{1000 + g}" for g in range(G)], dtype="S")
        file["0/META/ROW/pr_gene_symbol"] = np.array([f"SYM{g}" for g in range(G)], dtype="S")
        file["0/META/COL/id"] = np.array(table["inst_id"], dtype="S")
        if inside:
            for column in table.columns.drop("inst_id"):
                kind = "S" if table[column].dtype == object else None
                file[f"0/META/COL/{column}"] = np.array(table[column], dtype=kind)
    return path


def write_gct(path: Path, values: np.ndarray, table: pd.DataFrame) -> Path:
    meta = table.drop(columns="inst_id")
    lines = ["#1.3", f"{G}\t{N}\t1\t{meta.shape[1]}", "\t".join(["id", "symbol", *table["inst_id"]])]
    lines += ["\t".join([c, "na", *map(str, meta[c])]) for c in meta.columns]
    lines += ["\t".join([str(1000 + g), f"SYM{g}", *(f"{v:.6f}" for v in values[:, g])]) for g in range(G)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("how", ["gctx + table", "gctx", "gct"])
def test_each_treated_well_gets_the_mean_vehicle_of_its_plate(tmp_path, how: str) -> None:
    values, table = world()
    options = {}
    if how == "gct":
        path = write_gct(tmp_path / "d.gct", values, table)
    else:
        path = write_gctx(tmp_path / "d.gctx", values, table, inside=how == "gctx")
    if how == "gctx + table":
        shuffled = table.sample(frac=1, random_state=1)
        pd.concat([shuffled, shuffled.iloc[:1].assign(inst_id="other")]).to_csv(
            tmp_path / "i.txt", sep="\t", index=False
        )
        options = {"metadata": tmp_path / "i.txt"}
    file = open_data(path, **options)
    treated = np.flatnonzero(table["pert_type"] == "trt_cp")
    control, got = file.read(slice(None))
    np.testing.assert_allclose(got, values[treated], atol=1e-5)
    for plate in (0, 1):
        rows = treated // 12 == plate
        expected = values[[plate * 12 + 10, plate * 12 + 11]].mean(0)
        np.testing.assert_allclose(control[rows], np.tile(expected, (10, 1)), atol=1e-5)
    assert file.obs.index.tolist() == table["inst_id"].iloc[treated].tolist()
    assert file.obs["perturbation"].iloc[0] == "BRD-0" and file.obs["time_h"].iloc[0] == 24
    np.testing.assert_allclose(file.obs["log10_dose"], 1)
    assert "mean of the vehicle wells" in file.control_reference
    assert file.card.pairing == "matched"
    assert {"controls_from_rows", "not_treated"} <= {n.code for n in file.notes}


def test_random_vehicles_are_of_the_plate_or_the_line_and_named(tmp_path) -> None:
    values, table = world()
    path = write_gctx(tmp_path / "d.gctx", values, table, inside=True)
    file = open_data(path, controls="plate_random", seed=3)
    control = file.read_control(slice(None))
    ids = table["inst_id"].tolist()
    for i, name in enumerate(file.obs["control_id"]):
        assert name.split(":")[0] == file.obs.index[i].split(":")[0]
        np.testing.assert_array_equal(control[i], values[ids.index(name)])
    again = open_data(path, controls="plate_random", seed=3)
    assert again.obs["control_id"].tolist() == file.obs["control_id"].tolist()
    everywhere = open_data(path, controls="line_random", seed=3)
    assert any(c.split(":")[0] != s.split(":")[0] for s, c in everywhere.obs["control_id"].items())
    with pytest.raises(InputError, match="plate_mean, plate_random, line_mean, line_random"):
        open_data(path, controls="any")  # type: ignore[arg-type]


def test_the_missing_marker_is_found(tmp_path) -> None:
    values, table = world()
    values[4, 2] = -666
    fault = {f.code: f for f in validate(open_data(write_gctx(tmp_path / "d.gctx", values, table, inside=True)))}
    assert fault["non_finite_treated"].examples == ("PLATE0:W04",)


def test_level_five_is_differential(tmp_path) -> None:
    values, table = world()
    path = write_gctx(tmp_path / "d.gctx", values, table, inside=True)
    file = open_data(path, delta=True)
    assert file.n_samples == 20 and not file.read_control([0]).any()
    assert "control_id" not in file.obs


def test_what_is_missing_is_named(tmp_path) -> None:
    values, table = world()
    path = write_gctx(tmp_path / "d.gctx", values, table)
    with pytest.raises(InputError, match="--metadata FILE"):
        open_data(path)
    table.iloc[:20].to_csv(tmp_path / "i.csv", index=False)
    with pytest.raises(InputError, match="no line for 4 of 24"):
        open_data(path, metadata=tmp_path / "i.csv")
    table.assign(inst_id="x").to_csv(tmp_path / "i.csv", index=False)
    with pytest.raises(InputError, match=r"No column of .* names the 24 rows"):
        open_data(path, metadata=tmp_path / "i.csv")
    no_vehicle = table.copy()
    no_vehicle.loc[[10, 11], "pert_type"] = "trt_cp"
    no_vehicle.to_csv(tmp_path / "i.csv", index=False)
    other_plate = open_data(path, metadata=tmp_path / "i.csv")
    assert any("A549 on PLATE0" in f.message for f in other_plate.notes if f.code == "controls_from_other_plates")
    assert open_data(path, metadata=tmp_path / "i.csv", controls="line_mean").n_samples == 22
    table.assign(pert_type="trt_cp").to_csv(tmp_path / "i.csv", index=False)
    with pytest.raises(InputError, match="0 vehicle"):
        open_data(path, metadata=tmp_path / "i.csv")
    (tmp_path / "bad.gctx").write_bytes(b"no")
    with pytest.raises(InputError, match="GCTX"):
        open_data(tmp_path / "bad.gctx")
    (tmp_path / "old.gct").write_text("#1.1\n1\t1\n")
    with pytest.raises(InputError, match=r"neither GCT 1\.3 nor 1\.2"):
        open_data(tmp_path / "old.gct")
    text = write_gct(tmp_path / "cut.gct", values, table).read_text().splitlines()
    (tmp_path / "cut.gct").write_text("\n".join(text[:-1]))
    with pytest.raises(InputError, match="cut or edited"):
        open_data(tmp_path / "cut.gct")


def test_vehicles_of_several_names_are_told_and_one_may_be_chosen(tmp_path) -> None:
    values, table = world()
    table.loc[[11, 23], "pert_id"] = "H2O"
    path = write_gctx(tmp_path / "d.gctx", values, table, inside=True)
    told = next(f for f in open_data(path).notes if f.code == "controls_several")
    assert "'DMSO' (2 rows)" in told.message and "'H2O' (2 rows)" in told.message
    water = open_data(path, control_label="H2O")
    np.testing.assert_allclose(water.read_control([0, 15]), values[[11, 23]])
    with pytest.raises(UnknownNameError, match="no vehicle well"):
        open_data(path, control_label="ethanol")
