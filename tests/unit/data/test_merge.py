"""The founding study's row-aligned pickles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, MisalignedError
from pertstack.data import open_data
from references.data_worlds import small


@pytest.fixture
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    data = small()
    genes = pd.DataFrame(data.X, columns=data.var_names)
    meta = pd.DataFrame(
        {
            "sig_id": [f"sig{i}" for i in range(12)],
            "pert_id": list(data.obs["perturbation"]),
            "pert_type": "trt_cp",
            "cell_id": list(data.obs["cell_line"]),
            "dose": "x",
            "smiles": "CCO",
        }
    )
    return pd.concat([meta, genes], axis=1), pd.DataFrame(data.layers["control"], columns=data.var_names)


def write(tmp_path, treated: pd.DataFrame, control: pd.DataFrame) -> dict[str, object]:
    treated.to_pickle(tmp_path / "t.pkl")
    control.to_pickle(tmp_path / "c.pkl")
    return {"path": tmp_path / "t.pkl", "control": tmp_path / "c.pkl"}


def test_values_ids_and_findings(tmp_path, frames) -> None:
    treated, control = frames
    file = open_data(**write(tmp_path, treated, control[control.columns[::-1]]))
    c, t = file.read(slice(None))
    np.testing.assert_array_equal(t, treated[[f"G{i}" for i in range(7)]].to_numpy(np.float32))
    np.testing.assert_array_equal(c, control.to_numpy(np.float32))
    assert file.obs.index[3] == "sig3" and file.obs["cell_line"].iloc[1] == "B"
    assert "log10_dose" not in file.obs, "the dose 'x' says nothing"
    assert {"aligned_by_position", "dose_unusable"} <= {n.code for n in file.notes}


def test_tables_that_do_not_belong_together_are_refused(tmp_path, frames) -> None:
    treated, control = frames
    with pytest.raises(MisalignedError, match=r"12 rows.*11"):
        open_data(**write(tmp_path, treated, control.iloc[:-1]))
    with pytest.raises(MisalignedError, match="first at row 0"):
        open_data(**write(tmp_path, treated, control.iloc[::-1]))
    shifted = control.assign(cell_id=["B", *list(treated["cell_id"])[1:]])
    with pytest.raises(MisalignedError, match="cell_id in 1 rows"):
        open_data(**write(tmp_path, treated, shifted))
    with pytest.raises(InputError, match="'G6'"):
        open_data(**write(tmp_path, treated, control.drop(columns="G6")))
    with pytest.raises(InputError, match="--control FILE"):
        open_data(tmp_path / "t.pkl")
    pd.Series([1, 2]).to_pickle(tmp_path / "t.pkl")
    with pytest.raises(InputError, match="Series"):
        open_data(tmp_path / "t.pkl", control=tmp_path / "c.pkl")
