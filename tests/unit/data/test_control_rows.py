"""AnnData whose controls are rows among the samples: found by flag, name or label; assigned by plate or line."""

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
    with pytest.raises(InputError, match="--control-label AAVS1_safe, if that is one"):
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


def named(tmp_path, names, **columns):
    """One line, a row per name; value = the row's number, so that a mean says which rows it is of."""
    x = np.arange(len(names), dtype=np.float32)[:, None] + np.zeros((1, 4), np.float32)
    obs = pd.DataFrame({"perturbation": names, "cell_line": "L", **columns}, index=[f"c{i}" for i in range(len(names))])
    anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list("vwxy"))).write_h5ad(tmp_path / "n.h5ad")
    return tmp_path / "n.h5ad"


def codes(file):
    return {f.code: f for f in file.notes if f.severity == "warning"}


def test_untreated_wells_beside_a_vehicle_are_neither_control_nor_sample_and_that_is_said(tmp_path):
    path = named(tmp_path, ["DMSO", "untreated", "a", "b", "DMSO", "untreated"])
    file = open_data(path)
    assert list(file.sample_ids) == ["c2", "c3"] and (file.read_control([0, 1]) == 2).all()  # of rows 0 and 4
    told = codes(file)["controls_aside"]
    assert told.count == 2 and "'untreated' (2 rows)" in told.message and "'DMSO'" in told.message
    both = open_data(path, control_label=["DMSO", "untreated"])
    assert (both.read_control([0]) == 2.5).all() and codes(both) == {}  # rows 0, 1, 4, 5, as asked
    assert any(f.code == "controls_pooled" for f in both.notes)
    alone = open_data(path, control_label="untreated")
    assert (alone.read_control([0]) == 3).all() and alone.n_samples == 2  # rows 1 and 5; DMSO is set aside
    assert codes(alone)["controls_aside"].count == 2


def test_two_names_of_one_kind_serve_together_with_a_word(tmp_path):
    file = open_data(named(tmp_path, ["non-targeting", "a", "NegCtrl1", "b"]))
    assert file.n_samples == 2 and (file.read_control([0]) == 1).all()
    assert "'non-targeting' (1 row)" in codes(file)["controls_several"].message
    assert "'NegCtrl1' (1 row)" in codes(file)["controls_several"].message


def test_controls_of_two_kinds_are_refused_until_one_is_named(tmp_path):
    path = named(tmp_path, ["DMSO", "a", "non-targeting", "b"])
    with pytest.raises(InputError, match=r"vehicle: 'DMSO' \(1 row\); non-targeting: .*--control-label 'DMSO'"):
        open_data(path)
    file = open_data(path, control_label="DMSO")
    assert (file.read_control([0]) == 0).all() and list(file.sample_ids) == ["c1", "c3"]


@pytest.mark.parametrize("flag", ["control", "is_control"])
def test_a_flag_that_is_true_for_positive_controls_too_leaves_the_vehicle_alone_as_control(tmp_path, flag):
    names = ["Dimethyl Sulfoxide", "poscon_A", "a", "poscon_B", "Dimethyl Sulfoxide", "b"]
    file = open_data(named(tmp_path, names, **{flag: [True, True, False, True, True, False]}))
    assert (file.read_control([0]) == 2).all() and list(file.sample_ids) == ["c1", "c2", "c3", "c5"]
    told = codes(file)["control_flag_of_samples"].message
    assert "'poscon_A', 'poscon_B' are taken as samples" in told and f"Column '{flag}' is true for several" in told


@pytest.mark.parametrize("vehicle", ["solvent X", "Dimethyl Sulfoxide"])
def test_a_flag_of_positive_controls_alone_is_refused_with_a_command_that_works(tmp_path, vehicle):
    names = [vehicle, "poscon_A", "a", "poscon_B", vehicle, "b"]
    path = named(tmp_path, names, control=[n.startswith("pos") for n in names])
    with pytest.raises(InputError, match=r"'poscon_A' \(1 row\), 'poscon_B' \(1 row\).*positive controls"):
        open_data(path)
    assert (open_data(path, control_label=vehicle).read_control([0]) == 2).all()


def test_flagged_guides_of_negative_controls_serve_together_with_a_word(tmp_path):
    names = ["safe_1", "AAVS1_g2", "a", "b"]
    file = open_data(named(tmp_path, names, is_control=[True, True, False, False]))
    assert file.n_samples == 2 and "'safe_1' (1 row)" in codes(file)["controls_several"].message


def test_a_label_that_no_row_has_is_refused_among_several_too(tmp_path):
    with pytest.raises(UnknownNameError, match="'NT'"):
        open_data(named(tmp_path, ["DMSO", "a"]), control_label=["DMSO", "NT"])
