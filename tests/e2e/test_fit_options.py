"""Options of `pertstack fit` through the installed command: models.toml, the Dask engine, targets and edges."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from copies import copied
from pertstack.data import load_side
from pertstack.fit.profiles import profile
from pertstack.study.study import Study

from .conftest import ok, pertstack

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
MODELS_TOML = """
profile = "fast"

[ChemCPASupervised]
latent = 24
epochs = 3

[MultiDCP]
profile = "paper"
epochs = 2
"""


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose file holds neither targets nor graph; these lie beside it as tables."""
    folder = tmp_path_factory.mktemp("tiny")
    path = folder / "world.h5ad"
    ok("simulate", path, "--samples", 150, "--genes", 30, "--cell-lines", 2, "--perturbations", 25, "--seed", 5)
    made = anndata.read_h5ad(path)
    together = made.uns["targets"].groupby("perturbation")["gene"].agg(";".join)
    together.rename("gene").reset_index().to_csv(folder / "targets.csv", index=False)
    edges = made.uns["graph"].set_axis(["protein1", "protein2"], axis=1)
    edges.assign(combined_score=900).to_csv(folder / "edges.tsv", sep="\t", index=False)
    made.uns = {}
    made.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def fresh(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study on which nothing was fitted. Copy it."""
    root = tmp_path_factory.mktemp("fresh") / "study"
    ok("init", root, "--data", small_world, "--seed", 1)
    return root


def recorded(study: Path, model: str) -> list[dict]:
    """Hyper-parameters of every job of a model, as recorded with it."""
    jobs = [json.loads(path.read_text()) for path in sorted(study.glob(f"jobs/{model}/*/job.json"))]
    assert [job["status"] for job in jobs] == ["done"] * len(jobs)
    return [job["record"]["params"] for job in jobs]


def predictions(study: Path) -> dict[tuple[str, str], np.ndarray]:
    store = Study.open(study).predictions
    found = ((b, m) for b in store.blocks() for m in store.models() if store.status(b, m) == "committed")
    return {(b.id, m): np.array(store.read(b, m)) for b, m in found}


def test_a_models_file_gives_profile_and_single_values_and_all_are_recorded(fresh: Path, tmp_path: Path):
    study = copied(fresh, tmp_path / "study")
    (study / "models.toml").write_text(MODELS_TOML)
    ok("fit", study, "--models", "chemcpa_supervised,scGen,MultiDCP,ridge", "--no-nested")
    expected = {
        "ChemCPASupervised": {**profile("fast", "ChemCPASupervised"), "latent": 24, "epochs": 3},
        "scGen": profile("fast", "scGen"),  # no table of its own: the profile of the file
        "MultiDCP": {**profile("paper", "MultiDCP"), "epochs": 2},
    }
    for model, params in expected.items():
        assert recorded(study, model) == [params] * 4, model
        curves = [json.loads(p.read_text())["epochs"] for p in study.glob(f"jobs/{model}/*/curve.json")]
        assert len(curves) == 4 and all(1 <= len(c) <= params["epochs"] for c in curves)
    assert expected["ChemCPASupervised"]["encoder"] != profile("default", "ChemCPASupervised")["encoder"]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("[scGen]\nlatnet = 3\n", (), "latent"),
        ("[scGem]\nlatent = 3\n", (), "scGen"),
        ('profile = "fastest"\n', (), "fast"),
        ("[scGen\n", (), "TOML"),
        ('profile = "fast"\n', ("--profile", "paper"), "names profile 'fast'"),
    ],
    ids=["key", "model", "profile", "syntax", "two profiles"],
)
def test_a_wrong_models_file_is_refused_before_anything_is_fitted(text, options, says, fresh: Path, tmp_path: Path):
    study = copied(fresh, tmp_path / "study")
    (study / "models.toml").write_text(text)
    done = pertstack("fit", study, "--models", "scGen", *options)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(study.glob("jobs/*/*/job.json")) and not Study.open(study).predictions.models()


@pytest.mark.slow
def test_dask_gives_the_same_bits_as_worker_processes(fresh: Path, tmp_path: Path):
    pytest.importorskip("distributed")
    found = {}
    for engine in ("local", "dask"):
        study = copied(fresh, tmp_path / engine)
        words = ok("fit", study, "--models", "ridge,scGen", "--profile", "fast", "--engine", engine, "--workers", 2)
        assert words.startswith("14 jobs done")
        found[engine] = predictions(study)
    assert len(found["local"]) > 8 and found["local"].keys() == found["dask"].keys()
    for key, expected in found["local"].items():
        np.testing.assert_array_equal(found["dask"][key], expected, err_msg=str(key))


def test_a_graph_network_runs_on_files_of_targets_and_edges(small_world: Path, fresh: Path, tmp_path: Path):
    without = pertstack("fit", fresh, "--models", "PDGrapher", "--no-nested")
    assert without.returncode == 2 and "PDGrapher needs" in without.stderr
    study, targets, edges = tmp_path / "study", small_world.with_name("targets.csv"), small_world.with_name("edges.tsv")
    ok("init", study, "--data", small_world, "--targets", targets, "--graph", edges)
    side = load_side(study / "side")
    pairs = {(p, g) for p, genes in pd.read_csv(targets).itertuples(index=False) for g in genes.split(";")}
    table = side.features["targets"]
    where = zip(*np.nonzero(table.matrix), strict=True)
    assert {(table.perturbations[i], table.columns[j]) for i, j in where} == pairs
    assert side.graph is not None
    read = {frozenset(side.graph.gene_names[i] for i in edge) for edge in side.graph.edges}
    listed = pd.read_csv(edges, sep="\t")
    assert read == {frozenset(e) for e in zip(listed["protein1"], listed["protein2"], strict=True)}
    ok("fit", study, "--models", "PDGrapher", "--profile", "fast", "--no-nested")
    assert len(recorded(study, "PDGrapher")) == 4
    assert all(np.isfinite(values).all() for values in predictions(study).values())


def test_an_edge_list_of_other_genes_is_refused(small_world: Path, tmp_path: Path):
    (tmp_path / "edges.csv").write_text("gene_a,gene_b\nENSG01,ENSG02\n")
    done = pertstack("init", tmp_path / "study", "--data", small_world, "--graph", tmp_path / "edges.csv")
    assert done.returncode == 2 and "ENSG01" in done.stderr and not (tmp_path / "study").exists()
