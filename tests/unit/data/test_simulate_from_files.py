"""Simulations on a given design and given basal profiles."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data import SimulationConfig, simulate
from pertstack.data.simulation.molecules import make_molecules
from realdata import real_data

pytest.importorskip("rdkit")

CONFIG = SimulationConfig(samples=200, genes=30, cell_lines=2, perturbations=25, replicates=2, seed=1)


@pytest.fixture
def design(tmp_path):
    smiles = make_molecules(40, np.random.default_rng(0)).smiles
    rows = [(line, s) for line, share in (("A549", 40), ("PC3", 30), ("RARE", 3)) for s in smiles[:share] * 4]
    path = tmp_path / "design.parquet"
    pd.DataFrame(rows, columns=["cell_line", "smiles"]).to_parquet(path)
    return path


@pytest.fixture
def basal(tmp_path):
    rng = np.random.default_rng(0)
    names = ["PC3", "X1", "A549", "X2"]
    data = ad.AnnData(
        X=rng.normal(8, 2, (4, 50)).astype(np.float32),
        obs=pd.DataFrame({"cell_line": names}, index=names),
        var=pd.DataFrame(index=[f"REAL{i}" for i in range(50)]),
    )
    data.write_h5ad(tmp_path / "basal.h5ad")
    return tmp_path / "basal.h5ad", data


def test_lines_and_structures_come_from_the_design(design) -> None:
    world = simulate(replace(CONFIG, design=str(design)))
    assert set(world.obs["cell_line"]) == {"A549", "PC3"}
    assert set(world.obs["smiles"]) <= set(pd.read_parquet(design)["smiles"])
    assert world.n_obs == 200


def test_genes_and_profiles_come_from_the_basal_file(design, basal) -> None:
    path, profiles = basal
    world = simulate(replace(CONFIG, design=str(design), basal=str(path)))
    assert set(world.var_names) <= set(profiles.var_names)
    for line in ("A549", "PC3"):
        mean = world.layers["control"][(world.obs["cell_line"] == line).to_numpy()].mean(0)
        expected = profiles[line, world.var_names].X.ravel()
        assert np.corrcoef(mean, expected)[0, 1] > 0.99


def test_too_much_asked_of_a_design_is_refused(design, tmp_path) -> None:
    with pytest.raises(InputError, match="asked for"):
        simulate(replace(CONFIG, design=str(design), perturbations=60))
    pd.DataFrame({"line": ["A"], "smiles": ["C"]}).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(InputError, match="'cell_line'"):
        simulate(replace(CONFIG, design=str(tmp_path / "odd.parquet")))


def test_the_real_lincs_design() -> None:
    path = real_data("lincs_design/design.parquet")
    basal = real_data("l1000_multicell/basal_lines.h5ad")
    config = SimulationConfig(
        samples=400, genes=100, cell_lines=5, perturbations=60, design=str(path), basal=str(basal)
    )
    world = simulate(config)
    assert set(world.obs["cell_line"]) == {"PC3", "MCF7", "A549", "VCAP", "HA1E"}
    assert world.shape == (400, 100)
