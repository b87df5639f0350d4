"""Controls of the sample's own time go first, in profiles and in cells; a warning says who has none."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertstack.data import open_data, validate
from pertstack.data.cells.choice import CellChoice

OTHER_TIMES = "controls_of_other_times"


def profiles(drop: tuple[str, float] | None = None, times: tuple[float, ...] = (6.0, 24.0)) -> pd.DataFrame:
    """Two cell lines on two plates, each with every time; ``v`` numbers the rows. ``drop``: controls left out."""
    rows = [
        (line, plate, time, name)
        for line in ("A549", "MCF7")
        for plate in ("P1", "P2")
        for time in times
        for name in ("DMSO", "DMSO", "d1", "d2", "d3")
        if not (name == "DMSO" and (line, time) == drop)
    ]
    obs = pd.DataFrame(rows, columns=["cell_line", "plate", "time", "perturbation"])
    obs.index = [f"s{i:02d}" for i in range(len(obs))]
    return obs.assign(v=np.arange(len(obs), dtype=np.float64))


def opened(folder: Path, obs: pd.DataFrame, **options):
    x = np.column_stack([obs["v"], np.full(len(obs), 7.0), np.full(len(obs), 9.0)]).astype(np.float32)
    data = anndata.AnnData(x, obs=obs.drop(columns="v"), var=pd.DataFrame(index=list("abc")))
    data.write_h5ad(folder / "d.h5ad")
    return open_data(folder / "d.h5ad", **options)


@pytest.mark.parametrize(
    ("choice", "by"), [("plate_mean", ["cell_line", "plate", "time"]), ("line_mean", ["cell_line", "time"])]
)
def test_the_mean_control_is_that_of_the_time_as_pandas_says(tmp_path: Path, choice: str, by: list[str]) -> None:
    obs = profiles()
    file = opened(tmp_path, obs, controls=choice)
    wanted = obs[obs["perturbation"] == "DMSO"].groupby(by)["v"].mean()
    treated = obs[obs["perturbation"] != "DMSO"]
    np.testing.assert_allclose(file.read_control(slice(None))[:, 0], [wanted[tuple(r)] for r in treated[by].to_numpy()])
    assert file.obs["control_id"].nunique() == len(wanted)
    assert "at the time of the sample" in file.control_reference
    assert OTHER_TIMES not in [f.code for f in validate(file)]


@pytest.mark.parametrize("choice", ["plate_random", "line_random"])
def test_a_drawn_control_is_of_the_time(tmp_path: Path, choice: str) -> None:
    obs = profiles()
    file = opened(tmp_path, obs, controls=choice)
    drawn = file.read_control(slice(None))[:, 0].astype(int)
    assert obs["time"].to_numpy()[drawn].tolist() == obs["time"][obs["perturbation"] != "DMSO"].tolist()


def test_where_no_control_is_of_the_time_others_serve_and_a_warning_says_so(tmp_path: Path) -> None:
    obs = profiles(drop=("MCF7", 24.0))
    file = opened(tmp_path, obs)
    found = next(f for f in file.notes if f.code == OTHER_TIMES)
    assert found.severity == "warning" and found.count == 6 and "MCF7 on P1 at 24, controls at 6" in found.message
    late = ((file.obs["cell_line"] == "MCF7") & (file.obs["plate"] == "P1") & (file.obs["time_h"] == 24)).to_numpy()
    early = obs[(obs["perturbation"] == "DMSO") & (obs["cell_line"] == "MCF7") & (obs["plate"] == "P1")]
    assert set(early["time"]) == {6.0}
    np.testing.assert_allclose(file.read_control(np.flatnonzero(late))[:, 0], early["v"].mean())


def test_controls_without_a_time_serve_all_times_in_silence(tmp_path: Path) -> None:
    obs = profiles()
    is_control = obs["perturbation"] == "DMSO"
    file = opened(tmp_path, obs.assign(time=obs["time"].where(~is_control)))
    assert OTHER_TIMES not in [f.code for f in file.notes] and "time" not in file.control_reference
    mean = obs[is_control].groupby(["cell_line", "plate"])["v"].mean()
    wanted = [mean[tuple(r)] for r in obs[~is_control][["cell_line", "plate"]].to_numpy()]
    np.testing.assert_allclose(file.read_control(slice(None))[:, 0], wanted)


def test_one_time_alone_leaves_the_names_of_controls_as_they_were(tmp_path: Path) -> None:
    file = opened(tmp_path, profiles(times=(24.0,)))
    assert set(file.obs["control_id"]) == {
        f"{line} on {plate}:control_mean" for line in ("A549", "MCF7") for plate in ("P1", "P2")
    }


def test_times_written_as_text_and_as_numbers_are_the_same(tmp_path: Path) -> None:
    obs = profiles()
    texts = obs["time"].map("{:.1f}".format).where(obs["perturbation"] == "DMSO", obs["time"].map("{:g}".format))
    file = opened(tmp_path, obs.assign(time=texts))
    assert OTHER_TIMES not in [f.code for f in file.notes]
    assert file.obs["control_id"].nunique() == 8


def test_one_control_for_each_cell_line_and_time_is_called_pooled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    obs = profiles().drop(columns="plate")
    x = rng.normal(8, 1, (len(obs), 40)).astype(np.float32)
    data = anndata.AnnData(x, obs=obs.drop(columns="v"), var=pd.DataFrame(index=[f"g{i}" for i in range(40)]))
    data.write_h5ad(tmp_path / "d.h5ad")
    codes = [f.code for f in validate(open_data(tmp_path / "d.h5ad"))]
    assert "controls_unknown" not in codes and "controls_random" not in codes


# -- cells -------------------------------------------------------------------------------------------------------------


def cells(folder: Path, column: str, values: tuple[object, ...]) -> tuple[Path, np.ndarray, pd.DataFrame]:
    """Counts of 12 cells for each perturbation, batch and value of a column, which shifts controls too."""
    rng = np.random.default_rng(3)
    base, shift = rng.gamma(2.0, 2.0, 30), np.exp(rng.normal(0, 1, (len(values), 30)))
    rows = [
        (name, batch, v)
        for v in range(len(values))
        for batch in ("b1", "b2")
        for name in ("control", "G1", "G2", "G3")
        for _ in range(12)
    ]
    obs = pd.DataFrame(rows, columns=["perturbation", "batch", column]).assign(cell_line="K562")
    x = rng.poisson(base * shift[obs[column]])
    obs[column] = [values[v] for v in obs[column]]
    obs.index = [f"c{i}" for i in range(len(obs))]
    data = anndata.AnnData(
        sparse.csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)])
    )
    data.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad", x, obs


def log_cp10k(counts: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * counts / counts.sum())


DONORS = ("D1", "D2")


@pytest.mark.parametrize(
    ("column", "values", "by", "choice"),
    [
        ("time", (6, 24), "time", "plate_mean"),
        ("timepoint", ("6 h", "24 h"), "timepoint", "plate_mean"),
        ("time_h", (6.0, 24.0), "time", "line_mean"),
        ("donor", DONORS, "donor", "plate_mean"),
        ("patient_id", DONORS, "donor", "plate_mean"),
        ("donor_id", DONORS, "donor_id", "plate_mean"),
    ],
)
def test_control_cells_are_of_the_time_and_donor(
    tmp_path: Path, column: str, values: tuple, by: str, choice: str
) -> None:
    path, x, obs = cells(tmp_path, column, values)
    file = open_data(path, cells=CellChoice(by=(by,)), controls=choice)
    assert file.n_samples == 12
    shared = [column, "batch"] if choice == "plate_mean" else [column]
    controls = pd.DataFrame(x)[(obs["perturbation"] == "control").to_numpy()]
    sums = controls.groupby([obs[c].to_numpy()[controls.index] for c in shared]).sum()
    sums.index = [tuple(np.atleast_1d(i).astype(str)) for i in sums.index]
    of_file = file.obs.assign(batch=file.obs["plate"])
    if "time" in column:
        of_file[column] = of_file["time_h"].map({6.0: str(values[0]), 24.0: str(values[1])})
    for got, key in zip(file.read_control(slice(None)), of_file[shared].to_numpy(), strict=True):
        np.testing.assert_allclose(got, log_cp10k(sums.loc[[tuple(map(str, key))]].to_numpy()[0]), rtol=1e-5)


def test_cells_whose_batch_has_no_control_of_their_time_are_named(tmp_path: Path) -> None:
    path, _, obs = cells(tmp_path, "time", (6, 24))
    data = anndata.read_h5ad(path)
    gone = (obs["perturbation"] == "control") & (obs["time"] == 24) & (obs["batch"] == "b1")
    data[~gone.to_numpy()].write_h5ad(path)
    file = open_data(path, cells=CellChoice(by=("time",)))
    found = next(f for f in file.notes if f.code == OTHER_TIMES)
    assert found.count == 3 and "b1 at 24" in found.message
