"""The real files open, validate without errors, and say about their controls what their READMEs say."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.data import build_side, open_data, validate
from pertstack.data.cells import CellChoice
from realdata import real_data

FILES = {
    "norman": ("norman_doubles/pseudobulk.h5ad", {}, (176, 1000), "pooled"),
    "ht115": ("l1000_single_line/ht115_cpc006.h5ad", {}, (661, 978), "matched"),
    "ht115 paired": ("l1000_single_line/ht115_cpc006.h5ad", {"control_layer": "paired_control"}, (661, 978), "random"),
    "a375": ("l1000_single_line/a375_ljp005.h5ad", {}, (351, 978), "pooled"),
    "pairs": ("l1000_multicell/pairs_14compounds_43lines.h5ad", {}, (100, 978), "unknown"),
    "modz": ("l1000_multicell/modz_3drugs_65lines.h5ad", {"delta": True}, (272, 978), "none"),
}


@pytest.mark.parametrize("name", FILES)
def test_opens_validates_and_equals_anndata(name: str) -> None:
    path, options, shape, pairing = FILES[name]
    file = open_data(real_data(path), **options)
    assert (file.n_samples, file.n_genes) == shape
    assert not [f for f in validate(file) if f.severity == "error"]
    assert file.card.pairing == pairing
    whole = ad.read_h5ad(real_data(path))
    rows = [5, 3, 90, 5]
    control, treated = file.read(rows)
    np.testing.assert_array_equal(treated, np.asarray(whole.X, np.float32)[rows])
    if not options.get("delta"):
        np.testing.assert_array_equal(
            control, np.asarray(whole.layers[options.get("control_layer", "control")], np.float32)[rows]
        )
    assert file.obs.index.tolist() == [str(i) for i in whole.obs_names]


def test_norman_perturbs_genes_of_one_line() -> None:
    file = open_data(real_data("norman_doubles/pseudobulk.h5ad"))
    assert set(file.obs["cell_line"]) == {"K562"} and "g0013+ctrl" in set(file.obs["perturbation"])
    side, _ = build_side(file.obs, file.gene_names, uns=file.uns)
    table = side.features["genes"]
    assert "structure" not in side.features and table.known.all()
    double = next(p for p in file.obs["perturbation"] if "ctrl" not in p)
    assert {table.columns[i] for i in np.flatnonzero(table.rows([double])[0][0])} == set(double.split("+"))


def test_doses_times_and_control_ids_of_ht115() -> None:
    file = open_data(real_data("l1000_single_line/ht115_cpc006.h5ad"), control_layer="paired_control")
    assert set(file.obs["time_h"]) == {6.0}
    np.testing.assert_allclose(file.obs["log10_dose"], np.log10(file.obs["dose"]))
    assert file.obs["control_id"].nunique() == file.card.n_controls == 20
    assert "control_id_contradicted" not in {f.code for f in validate(file)}
    assert "control_id" not in open_data(real_data("l1000_single_line/ht115_cpc006.h5ad")).obs


def test_structures_of_the_drug_files() -> None:
    pytest.importorskip("rdkit")
    for path, known, every in (
        ("l1000_single_line/ht115_cpc006.h5ad", 349, 349),
        ("l1000_single_line/a375_ljp005.h5ad", 51, 59),
        ("l1000_multicell/pairs_14compounds_43lines.h5ad", 14, 14),
    ):
        file = open_data(real_data(path))
        table = build_side(file.obs, file.gene_names)[0].features["structure"]
        assert (int(table.known.sum()), len(table.known)) == (known, every)


def test_files_without_controls_are_refused_with_a_mend() -> None:
    with pytest.raises(InputError, match=r"--control-label.*--control-layer.*--delta"):
        open_data(real_data("l1000_multicell/basal_lines.h5ad"))


def test_cells_become_the_pseudobulk_that_was_made_of_them_elsewhere() -> None:
    file = open_data(real_data("norman_doubles/cells.h5ad"))
    pseudobulk = open_data(real_data("norman_doubles/pseudobulk.h5ad"))  # means and control layer of the same cells
    assert (file.n_samples, file.n_genes) == (176, 1000)
    at = pseudobulk.positions(i.split("|")[0] for i in file.sample_ids)
    for ours, theirs in zip(file.read(slice(None)), pseudobulk.read(at), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_cells_as_samples_have_the_control_cells_as_their_control() -> None:
    file = open_data(real_data("norman_doubles/cells.h5ad"), cells=CellChoice(as_samples=True))
    pseudobulk = open_data(real_data("norman_doubles/pseudobulk.h5ad"))
    assert (file.n_samples, file.n_genes) == (7040, 1000)
    np.testing.assert_allclose(file.read_control([0, 1]), pseudobulk.read_control([0, 1]), atol=1e-5)
