"""What values say against what was declared, by both doors and line by line: files that once came in without a word."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import IntegrityError, StackingError
from pertstack.data import SimulationConfig, simulate
from pertstack.predictions.importers.checks.meaning import check_meaning
from realdata import real_data

GENES = [f"GENE{i:02d}" for i in range(60)]
LINES = ("A549", "K562", "MCF7")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A study of 20 perturbations in three lines; genes differ in level, and tenfold in how far they move."""
    rng = np.random.default_rng(5)
    rows = [(f"P{i:02d}", line) for i in range(20) for line in LINES]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line"], index=[f"s{i:02d}" for i in range(60)])
    base = pd.DataFrame(rng.gamma(2, 2, (3, 60)), LINES, GENES).loc[obs["cell_line"]].to_numpy()
    moved = rng.normal(0, 1, (20, 60)) * np.geomspace(0.2, 2, 60)[rng.permutation(60)]
    effect = moved[[int(p[1:]) for p in obs["perturbation"]]]
    control = base + rng.normal(0, 0.02, base.shape)
    truth = anndata.AnnData(np.float32(base + effect + rng.normal(0, 0.1, base.shape)), obs, pd.DataFrame(index=GENES))
    truth.layers["control"] = np.float32(control)
    folder = tmp_path_factory.mktemp("meaning")
    truth.write_h5ad(folder / "truth.h5ad")
    study = ps.Study.create(folder / "study", data=folder / "truth.h5ad", folds=2, test=0.2, seed=1)
    return folder, study, obs, control, np.asarray(0.8 * effect + rng.normal(0, 0.05, base.shape))


def findings(world, tmp_path, how, values, scale):
    """What a door says of a file of all samples."""
    folder, study, obs, *_ = world
    said = obs if how == "evaluate by what was done" else obs[[]]
    said = said.set_axis([f"row{i}" for i in range(60)]) if said.shape[1] else said
    path = tmp_path / "m.h5ad"
    anndata.AnnData(np.float32(values), said, pd.DataFrame(index=GENES)).write_h5ad(path)
    if how == "add":
        return study.add(f"m{abs(hash(tmp_path))}", path, fitted_on="plan", scale=scale).findings
    return ps.evaluate(folder / "truth.h5ad", {"m": path}, scale=scale).findings


DOORS = pytest.mark.parametrize("how", ["add", "evaluate", "evaluate by what was done"])
CODES = {"scale_of_line", "perhaps_z_scores", "gene_names", "scale_wrong"}


@DOORS
@pytest.mark.parametrize("scale", ["treated", "delta"])
def test_a_file_as_declared_gives_no_remark(world, tmp_path, how, scale):
    *_, control, change = world
    values = change if scale == "delta" else control + change
    assert not CODES & {f.code for f in findings(world, tmp_path, how, values, scale)}


@DOORS
@pytest.mark.parametrize("scale", ["treated", "delta"])
def test_a_cell_line_on_the_other_scale_is_refused_by_name(world, tmp_path, how, scale):
    _, _, obs, control, change = world
    line = (obs["cell_line"] == "K562").to_numpy()[:, None]
    values = np.where(line == (scale == "treated"), change, control + change)
    other = "delta" if scale == "treated" else "treated"
    with pytest.raises(IntegrityError, match=rf"two scales\. Values of 'K562' are '{other}', those of 'A549', 'MCF7'"):
        findings(world, tmp_path, how, values, scale)


@DOORS
def test_a_cell_line_in_another_logarithm_is_warned_of(world, tmp_path, how):
    _, _, obs, control, change = world
    line = (obs["cell_line"] == "MCF7").to_numpy()[:, None]
    found = findings(world, tmp_path, how, (control + 0.3 * change) * np.where(line, np.log(2), 1), "treated")
    (said,) = [f for f in found if f.code == "scale_of_line"]
    assert said.severity == "warning" and "in MCF7: values look like natural logarithms" in said.message


@DOORS
@pytest.mark.parametrize("which", ["together", "line by line"])
def test_z_scores_declared_as_differences_are_warned_of(world, tmp_path, how, which):
    _, _, obs, _, change = world
    lines = pd.DataFrame(change).groupby(obs["cell_line"].to_numpy())
    values = change + pd.Series({"A549": -1, "K562": 0, "MCF7": 1})[obs["cell_line"]].to_numpy()[:, None]
    together = values / values.std(axis=0)
    scaled = together if which == "together" else change / lines.transform("std").to_numpy()
    found = findings(world, tmp_path, how, scaled, "delta")
    (said,) = [f for f in found if f.code == "perhaps_z_scores"]
    assert "predicted z-scores look like that" in said.message


@DOORS
@pytest.mark.parametrize("which", ["half", "half of one line"])
def test_half_of_the_genes_under_the_names_of_others_is_refused_or_warned_of(world, tmp_path, how, which):
    _, _, obs, control, change = world
    rng, order = np.random.default_rng(3), np.arange(60)
    some = rng.permutation(60)[:30]
    order[some] = np.roll(some, 1)
    values = control + 0.2 * change
    rows = slice(None) if which == "half" else (obs["cell_line"] == "A549").to_numpy()
    values[rows] = values[rows][:, order]
    try:
        found = findings(world, tmp_path, how, values, "treated")
    except StackingError as refused:
        assert which == "half" and "under other gene names" in str(refused)
    else:
        (said,) = [f for f in found if f.code == "gene_names"]
        assert ("genes in A549" in said.message) == (which != "half")


def honest(treated, control, lines):
    """Models with much skill, little or none, in the treated scale."""
    rng, change = np.random.default_rng(0), treated - control
    by_line = pd.DataFrame(change).groupby(np.asarray(lines)).transform("mean").to_numpy()
    u, s, v = np.linalg.svd(change - change.mean(axis=0), full_matrices=False)
    noise = rng.normal(0, 1, treated.shape)
    return {
        "flexible": control + change.mean(axis=0) + 0.8 * (u[:, :5] * s[:5]) @ v[:5],
        "shrunken": control + 0.1 * change,
        "noisy": control + 0.5 * change + 0.5 * noise * treated.std(axis=0),
        "mean of the line": control + by_line,
        "one profile": np.tile(treated.mean(axis=0), (len(treated), 1)) + 0.01 * noise,
        "other perturbations": control + change[rng.permutation(len(change))],
        "noise about the control": control + 0.5 * noise,
    }


WORLDS = [
    {"samples": 120, "genes": 80, "cell_lines": 3, "perturbations": 20},
    {"samples": 24, "genes": 40, "cell_lines": 2, "perturbations": 6, "seed": 4},
    {"samples": 120, "genes": 80, "cell_lines": 4, "perturbations": 20, "basal_sd": 0.1, "line_sd": 0.05},
    {"samples": 120, "genes": 80, "cell_lines": 4, "perturbations": 20, "effect_sd": 0.1},
    "norman_doubles/pseudobulk.h5ad",
    "l1000_multicell/pairs_14compounds_43lines.h5ad",
    "l1000_single_line/ht115_cpc006.h5ad",
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("which", range(len(WORLDS)))
def test_models_with_skill_and_without_are_neither_refused_nor_doubted(which):
    asked = WORLDS[which]
    data = anndata.read_h5ad(real_data(asked)) if isinstance(asked, str) else simulate(SimulationConfig(**asked))
    layer = "control" if "control" in data.layers else "paired_control"
    treated, control = (np.asarray(a, np.float32) for a in (data.X, data.layers[layer]))
    lines = data.obs["cell_line"].astype(str).tolist()
    for name, values in honest(treated, control, lines).items():
        for scale in ("treated", "delta"):
            given = np.float32(values if scale == "treated" else values - control)
            told = check_meaning(given, treated, control, scale=scale, name=name, lines=lines, by_position=False)
            assert not CODES & {f.code for f in told}, (name, scale)
