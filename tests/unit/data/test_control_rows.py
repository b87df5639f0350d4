"""AnnData whose controls are rows among the samples: found by flag, name or label; handed out by plate or line."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, UnknownNameError
from pertstack.data.readers.open import open_data


def cells(tmp_path, *, plates=True, name="ctrl", **columns):
    """Twelve cells of two lines on four plates, a control on every plate; value = 100 line + 10 plate + row."""
    perturbation = np.array(["a", "b", name] * 4, dtype=object)
    line = np.repeat(["K562", "A549"], 6)
    plate = np.repeat(["p1", "p2", "p3", "p4"], 3)
    x = np.arange(12)[:, None] + np.zeros((12, 5)) + np.repeat([0, 10, 100, 110], 3)[:, None]
    obs = pd.DataFrame({"perturbation": perturbation, "cell_line": line}, index=[f"c{i:02d}" for i in range(12)])
    if plates:
        obs["plate"] = plate
    obs = obs.assign(**columns)
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=list("vwxyz"))).write_h5ad(path)
    return path, x.astype(np.float32)


def test_the_control_of_a_cell_is_the_mean_of_its_plates_controls_and_controls_are_no_samples(tmp_path):
    path, x = cells(tmp_path)
    file = open_data(path)
    assert list(file.sample_ids) == [f"c{i:02d}" for i in range(12) if i % 3 != 2]
    control, treated = file.read(slice(0, 8))
    kept = [i for i in range(12) if i % 3 != 2]
    np.testing.assert_array_equal(treated, x[kept])
    np.testing.assert_array_equal(control, x[[i - i % 3 + 2 for i in kept]])  # one control a plate: the third row
    assert file.obs["control_id"].nunique() == 4
    assert [n.code for n in file.notes if n.code == "controls_from_rows"] == ["controls_from_rows"]


def test_without_plates_the_control_is_the_mean_of_the_cell_line(tmp_path):
    path, x = cells(tmp_path, plates=False)
    control, _ = open_data(path).read(slice(0, 8))
    np.testing.assert_allclose(control[:4], np.tile(x[[2, 5]].mean(axis=0), (4, 1)))
    np.testing.assert_allclose(control[4:], np.tile(x[[8, 11]].mean(axis=0), (4, 1)))


def test_a_random_control_is_one_of_the_plate_and_the_same_for_the_same_seed(tmp_path):
    path, x = cells(tmp_path, plates=False)
    first, _ = open_data(path, controls="line_random", seed=3).read(slice(0, 8))
    again, _ = open_data(path, controls="line_random", seed=3).read(slice(0, 8))
    np.testing.assert_array_equal(first, again)
    pools = [x[[2, 5]]] * 4 + [x[[8, 11]]] * 4
    assert all((row == pool).all(axis=1).any() for row, pool in zip(first, pools, strict=True))


def test_a_flag_column_marks_controls_even_where_their_perturbation_is_empty(tmp_path):
    path, _ = cells(tmp_path, name=None, is_control=[False, False, True] * 4)
    assert open_data(path).n_samples == 8


def test_a_label_names_an_unusual_control_and_an_unknown_one_is_refused_with_near_names(tmp_path):
    path, _ = cells(tmp_path, name="AAVS1_safe")
    with pytest.raises(InputError, match="--control-label NAME"):
        open_data(path)
    assert open_data(path, control_label="AAVS1_safe").n_samples == 8
    with pytest.raises(UnknownNameError, match="Did you mean 'AAVS1_safe'"):
        open_data(path, control_label="AAVS1")


def test_label_beside_a_control_layer_is_refused(tmp_path):
    path, x = cells(tmp_path)
    data = anndata.read_h5ad(path)
    data.layers["control"] = x
    data.write_h5ad(path)
    with pytest.raises(InputError, match="Give one of the two"):
        open_data(path, control_label="ctrl")
    assert open_data(path).n_samples == 12  # the layer decides; ctrl rows are samples as any other


def test_a_layer_asked_for_by_name_is_never_replaced_by_rows(tmp_path):
    path, _ = cells(tmp_path)
    with pytest.raises(InputError, match="Unknown layer 'basal'"):
        open_data(path, control_layer="basal")
