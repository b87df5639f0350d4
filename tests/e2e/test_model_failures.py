"""What models can run into, through the installed command: a clear message, the job failed, the study intact."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest

from copies import copied
from pertstack.study.study import Study

from .conftest import PERTSTACK, ok, pertstack

OWN_PROCESSES = True

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
NETWORKS = (
    "Biolord,CheMoE,ChemCPA,ChemCPASupervised,MultiDCP,MultiDCP_CheMoE,PDGrapher,scGen,TranSiGen,"
    "TranSiGen_BalancedMoE,TranSiGen_SparseMoE"
)
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "external-models.md"

WITHOUT_TORCH = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None: None if name.split(".")[0] == "torch" else find(name, path, target)
)
"""
PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])

def read(name):
    lines = [line.split(",") for line in (folder / name).read_text().splitlines()]
    values = np.array([words[1:] for words in lines[1:]], dtype=float)
    return np.array([words[0] for words in lines[1:]]), np.array(lines[0][1:]), values

ids, genes, control = read("predict_control.csv")
out = control + (read("fit_treated.csv")[2] - read("fit_control.csv")[2]).mean(axis=0)
{middle}
np.savez(folder / "predictions.npz", predictions=out, sample_ids=ids, gene_names=genes)
"""
PROGRAMS = {  # name of the card: what the program does, and what is said of it (None: it works)
    "fails": ("sys.exit('licence server not found')", "exit code 1"),
    "hangs": ("print('still loading', flush=True); time.sleep(60)", "time limit of 4 s"),
    "few_rows": ("out, ids = out[1:], ids[1:]", "lack 1 samples"),
    "wrong_ids": ("ids = np.char.add('x', ids)", "include foreign"),
    "other_order": ("out, genes, ids = out[::-1, ::-1], genes[::-1], ids[::-1]", None),
}
FAIL_TOML = """
profile = "fast"
[TranSiGen]
learning_rate = 1e30
gradient_clip = 0.0
[CheMoE]
hidden = 1000000000000
[scGen]
device = "cuda"
"""


def simulated(path: Path, **change: object) -> Path:
    sizes = {"samples": 60, "genes": 30, "cell-lines": 2, "perturbations": 20, "seed": 5} | change
    ok("simulate", path, *(word for key, value in sizes.items() for word in (f"--{key}", value)))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("tiny") / "world.h5ad")


@pytest.fixture(scope="module")
def fresh(tiny: Path) -> Path:
    ok("init", tiny.with_name("study"), "--data", tiny, "--folds", 2)
    return tiny.with_name("study")


def committed(study: Path) -> dict[str, int]:
    """Models and how many of their blocks stand in the store."""
    store = Study.open(study).predictions
    found = {m: sum(store.status(b, m) == "committed" for b in store.blocks()) for m in store.models()}
    return {m: n for m, n in found.items() if n}


def test_without_torch_the_networks_are_refused_and_the_rest_works(fresh: Path, tmp_path: Path):
    study = copied(fresh, tmp_path / "study")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH)

    def run(models: str) -> subprocess.CompletedProcess[str]:
        words = [str(PERTSTACK), "fit", str(study), "--models", models, "--no-nested"]
        where = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=where)

    refused = run("TranSiGen,ridge")
    assert refused.returncode == 2 and "TranSiGen needs 'torch'; install pertstack[models]" in refused.stderr
    assert "Traceback" not in refused.stderr and committed(study) == {}
    assert run("ridge").returncode == 0 and set(committed(study)) == {"ridge"}


@pytest.mark.slow
def test_without_structures_a_network_that_needs_them_is_refused_and_scgen_runs(tiny: Path, tmp_path: Path):
    data = anndata.read_h5ad(tiny)
    data.obs, data.uns = data.obs.drop(columns="smiles"), {}
    data.write_h5ad(tmp_path / "world.h5ad")
    study = tmp_path / "study"
    ok("init", study, "--data", tmp_path / "world.h5ad", "--folds", 2)
    done = pertstack("fit", study, "--models", "TranSiGen,scGen", "--no-nested")
    assert done.returncode == 2 and "TranSiGen needs perturbation features" in done.stderr and committed(study) == {}
    ok("fit", study, "--models", "scGen", "--profile", "fast", "--no-nested")
    assert set(committed(study)) == {"scGen"}


@pytest.mark.slow
def test_one_cell_line_and_one_sample_of_each_perturbation_is_enough_for_every_network(tmp_path: Path):
    world = simulated(tmp_path / "world.h5ad", **{"cell-lines": 1, "perturbations": 60, "replicates": 1})
    assert anndata.read_h5ad(world).obs["perturbation"].nunique() == 60
    study = tmp_path / "study"
    ok("init", study, "--data", world, "--folds", 2)
    ok("fit", study, "--models", NETWORKS, "--profile", "fast", "--no-nested")
    assert set(committed(study)) == set(NETWORKS.split(","))
    store = Study.open(study).predictions
    assert all(np.isfinite(store.read(b, m)).all() for m in NETWORKS.split(",") for b in store.blocks())


@pytest.mark.slow
def test_networks_and_programs_that_fail_leave_the_study_and_the_others_intact(fresh: Path, tmp_path: Path):
    from pertstack.fit.torch.common.checkpoint import Identity, write_checkpoint

    study = copied(fresh, tmp_path / "study")
    (study / "models.toml").write_text(FAIL_TOML)
    foreign = study / "jobs" / "MultiDCP" / "pooled.f0" / "checkpoint.npz"
    foreign.parent.mkdir(parents=True)
    write_checkpoint(foreign, Identity("another", "plan"), {"epoch": 3})
    cards = []
    for name, (middle, _) in PROGRAMS.items():
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(middle=middle))
        run = f'script = "{name}.py"\ninterpreter = "{sys.executable}"\nfiles = "csv"\n'
        run += f"time_limit = {4 if name == 'hangs' else 60}\n"
        (tmp_path / f"{name}.toml").write_text(f'format = 1\nname = "{name}"\n[run]\n{run}')
        cards.append(str(tmp_path / f"{name}.toml"))
    networks = ("TranSiGen", "CheMoE", "scGen", "MultiDCP")
    done = pertstack("fit", study, "--models", ",".join([*networks, "ridge", *cards]), "--no-nested")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    said = {name: message for name, (_, message) in PROGRAMS.items() if message} | {
        "TranSiGen": "became nan in epoch 1",
        "CheMoE": "ran out of memory",
        "scGen": "device 'cuda' cannot be used",
        "MultiDCP": "another fold plan",
    }
    lines = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    for name, message in said.items():
        of_model = [line for line in lines if line.startswith(f"failed: {name} ")]
        assert of_model and message in of_model[0], (name, of_model)
        assert len(of_model) == (1 if name == "MultiDCP" else 3), (name, of_model)
    assert committed(study) == {"ridge": 6, "other_order": 6, "MultiDCP": 4}  # blocks of two cell lines
    store = Study.open(study).predictions
    ok("audit", study)

    plain = copied(fresh, tmp_path / "plain")  # the order of the answer was put right by name
    ok("fit", plain, "--models", "mean_shift,MultiDCP", "--profile", "fast", "--no-nested")
    expected = Study.open(plain).predictions
    for block in store.blocks():
        mine, right = store.read(block, "other_order"), expected.read(block, "mean_shift")
        np.testing.assert_allclose(mine, right, atol=1e-5)

    foreign.unlink()  # mended: only what was missing is fitted, and it is as if nothing had happened
    (study / "models.toml").write_text('profile = "fast"\n')
    again = ok("fit", study, "--models", "MultiDCP,ridge", "--no-nested")
    assert again.startswith("1 job done, 5 already there"), again
    for block in store.blocks():
        np.testing.assert_array_equal(store.read(block, "MultiDCP"), expected.read(block, "MultiDCP"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R")
def test_a_study_with_the_documented_model_in_r_from_init_to_verdict(tiny: Path, tmp_path: Path):
    page = DOCUMENTATION.read_text().split("## The same in R")[1]
    (tmp_path / "mine.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    (tmp_path / "mine.R").write_text(page.split("```r\n")[1].split("```")[0])
    study = tmp_path / "study"
    ok("init", study, "--data", tiny, "--folds", 2)
    ok("run", study, "--models", f"ridge,mean_shift,{tmp_path / 'mine.toml'}")
    board = ok("verdict", study)
    assert "mean_shift_in_r" in board
    store = Study.open(tmp_path / "study").predictions
    for block in store.blocks():
        mine, expected = store.read(block, "mean_shift_in_r"), store.read(block, "mean_shift")
        np.testing.assert_allclose(mine, expected, atol=1e-5)
