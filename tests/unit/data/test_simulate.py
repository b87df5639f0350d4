"""Simulated worlds: exact sizes, keyed randomness, a truth that adds up, and the picture the docs promise."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.data import SimulationConfig, build_side, open_data, simulate, simulate_to_file, validate
from pertstack.data.simulation.molecules import make_molecules, most_molecules

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

SMALL = SimulationConfig(samples=700, genes=60, cell_lines=3, perturbations=40, replicates=3, seed=5)


@pytest.fixture(scope="module")
def world() -> ad.AnnData:
    return simulate(SMALL)


def test_sizes_and_columns_are_as_asked(world) -> None:
    assert world.shape == (700, 60)
    assert world.obs["perturbation"].nunique() == 40
    assert world.obs["cell_line"].nunique() == 3
    assert set(world.layers) - {None} == {"control", "effect"}  # anndata 0.13 lists X as the layer None
    assert {"smiles", "dose", "dose_unit", "log10_dose", "time_h", "plate", "replicate", "control_id"} <= set(world.obs)
    assert world.X.dtype == world.layers["control"].dtype == np.float32
    assert np.isfinite(world.X).all()
    assert world.var["is_landmark"].sum() == 18


@pytest.mark.parametrize(("samples", "replicates"), [(41, 1), (100, 3), (203, 4), (333, 2)])
def test_exactly_as_many_samples_as_asked(samples: int, replicates: int) -> None:
    world = simulate(replace(SMALL, samples=samples, replicates=replicates))
    assert world.n_obs == samples
    key = world.obs.groupby(["perturbation", "cell_line", "dose", "time_h"], observed=True).size()
    assert key.max() <= replicates + 3


def test_same_seed_same_bytes_other_seed_other_world(world) -> None:
    again = simulate(SMALL)
    assert again.X.tobytes() == world.X.tobytes()
    assert again.obs.equals(world.obs)
    assert simulate(replace(SMALL, seed=6)).X.tobytes() != world.X.tobytes()


def test_the_streamed_file_is_the_world_in_memory(world, tmp_path) -> None:
    path = simulate_to_file(tmp_path / "world.h5ad", SMALL)
    back = ad.read_h5ad(path)
    np.testing.assert_array_equal(back.X, world.X)
    for layer in ("control", "effect"):
        np.testing.assert_array_equal(back.layers[layer], world.layers[layer])
    assert list(back.obs_names) == list(world.obs_names)
    assert back.uns["targets"].equals(world.uns["targets"])
    assert [p.name for p in tmp_path.iterdir()] == ["world.h5ad"]
    with pytest.raises(InputError, match=r"\.h5ad"):
        simulate_to_file(tmp_path / "world.csv", SMALL)


def test_a_disk_that_fills_leaves_nothing_behind(tmp_path) -> None:
    """A limit on file size stands in for a full disk; an older file of the same name survives."""
    (tmp_path / "world.h5ad").write_text("older")
    code = f"""
import resource, signal
from pertstack._base.errors import StorageError
from pertstack.data import SimulationConfig, simulate_to_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
config = SimulationConfig(samples=700, genes=300, cell_lines=3, perturbations=40)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    simulate_to_file({str(tmp_path / "world.h5ad")!r}, config)
except StorageError as error:
    assert "world.h5ad" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert [p.name for p in tmp_path.iterdir()] == ["world.h5ad"]
    assert (tmp_path / "world.h5ad").read_text() == "older"


def test_a_simulated_file_passes_validation_and_says_how_controls_were_paired(tmp_path) -> None:
    for pairing in ("own", "matched", "random"):
        file = open_data(simulate_to_file(tmp_path / f"{pairing}.h5ad", replace(SMALL, pairing=pairing)))
        assert not [f for f in validate(file) if f.severity == "error"]
        assert "control_id_contradicted" not in {f.code for f in validate(file)}
        assert file.card.pairing == pairing
        ids = file.obs["control_id"].to_numpy()
        assert len(set(ids)) == len(set(file.examination.control_digest.tolist()))


def test_treated_minus_effect_is_noise_around_the_basal_profile(world) -> None:
    """The effect layer is the truth: what is left of treated has the mean of the controls, in each cell line."""
    rest, control = world.X - world.layers["effect"], world.layers["control"]
    for line in world.obs["cell_line"].unique():
        rows = (world.obs["cell_line"] == line).to_numpy()
        if rows.sum() < 50:
            continue
        gap = rest[rows].mean(0) - control[rows].mean(0)
        assert np.abs(gap).max() < 0.35
        noise = (rest[rows] - rest[rows].mean(0)).std()
        assert 0.3 < noise < 0.6


@pytest.mark.parametrize("pairing", ["own", "matched", "random"])
def test_without_noise_treated_minus_control_is_the_effect(pairing: str) -> None:
    quiet = simulate(replace(SMALL, well_sd=1e-5, plate_sd=1e-5, pairing=pairing))
    np.testing.assert_allclose(quiet.X - quiet.layers["control"], quiet.layers["effect"], atol=1e-3)
    assert np.abs(quiet.layers["effect"]).mean() > 0.1


def test_replicates_share_their_effect_and_nothing_else(world) -> None:
    key = world.obs.groupby(["perturbation", "cell_line", "dose", "time_h"], observed=True).ngroup().to_numpy()
    first, second = next((i, j) for i in range(700) for j in range(i + 1, 700) if key[i] == key[j])
    np.testing.assert_allclose(world.layers["effect"][first], world.layers["effect"][second], atol=1e-6)
    assert np.abs(world.X[first] - world.X[second]).max() > 0.2


def test_stronger_doses_of_one_perturbation_do_more() -> None:
    world = simulate(replace(SMALL, common_sd=0.0))
    strength = np.abs(world.layers["effect"]).mean(1)
    table = world.obs.assign(strength=strength)[lambda t: t["time_h"] == 24]
    ranks = table.groupby(["perturbation", "cell_line"], observed=True)[["log10_dose", "strength"]].corr(
        method="spearman"
    )
    found = ranks["strength"].unstack()["log10_dose"].dropna()
    assert len(found) > 20 and (found > 0.99).all()


def test_own_controls_are_private_matched_ones_the_plate_and_random_ones_roam(tmp_path) -> None:
    own = simulate(replace(SMALL, pairing="own"))
    assert own.obs["control_id"].nunique() == 700
    matched = simulate(replace(SMALL, pairing="matched"))
    assert (matched.obs.groupby("control_id", observed=True)["plate"].nunique() == 1).all()
    random = simulate(SMALL)
    assert (random.obs.groupby("control_id", observed=True)["plate"].nunique() > 1).any()
    assert (random.obs.groupby("control_id", observed=True)["cell_line"].nunique() == 1).all()


def test_side_information_comes_with_the_world(world) -> None:
    side, findings = build_side(world.obs, world.var_names, uns=world.uns)
    assert {"structure", "targets"} <= set(side.features)
    assert side.features["structure"].known.all() and side.features["targets"].known.all()
    assert side.graph is not None and len(side.graph.edges) > 60
    assert not [f for f in findings if f.severity != "note"]


def test_molecules_are_valid_and_all_different() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    made = make_molecules(3000, np.random.default_rng(3))
    canonical = [chem.MolToSmiles(chem.MolFromSmiles(s)) for s in made.smiles]
    assert len(set(canonical)) == 3000
    assert (made.parts.sum(1) == 4).all()
    assert most_molecules() > 50_000


def test_impossible_wishes_are_refused_with_numbers() -> None:
    with pytest.raises(InputError, match=r"30 samples.*40 perturbations"):
        SimulationConfig(samples=30, perturbations=40)
    with pytest.raises(InputError, match="own, matched, random"):
        SimulationConfig(pairing="any")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shares"):
        SimulationConfig(observable_share=0.9, network_share=0.2)


def test_the_picture_of_the_docs_on_a_fixed_seed() -> None:
    """docs/simulation.md: mean treated scores high and knows nothing; structures help; the truth is far away."""
    from simulation_picture import picture

    rows = picture(SimulationConfig(samples=1800, genes=200, cell_lines=4, perturbations=150, seed=1))
    mean, ridge, truth = (
        rows["mean treated"],
        rows["ridge on fingerprints"],
        rows["true effect on the true basal profile"],
    )
    assert 0.55 <= mean["own R2 Top-20"] <= 0.80
    assert abs(mean["centroid Pearson"]) < 0.01
    assert rows["mean shift"]["own R2 Top-20"] < mean["own R2 Top-20"] - 0.2
    assert 0.2 <= rows["replicates"]["same condition"] <= 0.6
    assert rows["replicates"]["other condition"] < 0.15
    assert ridge["own R2 Top-20"] > mean["own R2 Top-20"] + 0.02
    assert ridge["pooled R2 Top-20"] > mean["pooled R2 Top-20"] + 0.05
    assert 0.1 < ridge["centroid Pearson"] < truth["centroid Pearson"] - 0.2
    assert truth["own R2 Top-20"] > ridge["own R2 Top-20"] + 0.15


def test_other_vector_units_and_kernels_give_the_same_bits() -> None:
    """As on another processor: numpy without its fast units, older OpenBLAS kernels. Networks amplify last bits."""
    import numpy._core._multiarray_umath as umath

    code = (
        "import hashlib, numpy as np; from pertstack.data import SimulationConfig, simulate\n"
        "w = simulate(SimulationConfig(samples=300, genes=120, cell_lines=2, perturbations=40, seed=5))\n"
        "for x in (w.X, w.layers['control'], w.layers['effect']):\n"
        "    print(hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest())"
    )
    units = " ".join(u for u in umath.__cpu_dispatch__ if umath.__cpu_features__.get(u))
    other = {"NPY_DISABLE_CPU_FEATURES": units, "OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"}
    answers = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, check=True
        ).stdout
        for env in ({}, other)
    ]
    assert answers[0] == answers[1] and len(answers[0].split()) == 3
