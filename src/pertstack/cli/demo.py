"""The demo: a simulated LINCS-like study, and everything pertstack does, on it.

The world and the models are fixed by the seed, so a second run finds every job done and ends in seconds. Networks are
trained with one set of kernels, so that another processor gives the same demo (``same_kernels``). One
model is left out on purpose: ``ridge_treated`` comes close to how this world is made, and next to it no combination
helps (try ``pertstack fit demo/study --models ridge_treated``).
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pertstack._base.errors import InputError
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.study.study import Study

BASELINES = (
    "mean_treated",
    "mean_treated_cell_line",
    "mean_shift",
    "per_gene_linear",
    "perturbation_knn",
    "ridge",
    "low_rank",
    "mlp",
)
NETWORKS = ("Biolord", "ChemCPASupervised", "MultiDCP", "scGen", "TranSiGen", "TranSiGen_SparseMoE")


def same_kernels() -> dict[str, str]:
    """What torch and MKL are told before they load: one set of vector units, sums in one order on every x86.

    A network's training amplifies last bits until early stopping picks another epoch: with other kernels predictions of
    one network moved by 5 to 25 % of their size. torch's AVX2 loops should be the same instructions on every processor
    since 2013 (tried on one machine only); an older one takes the plain loops and gives another demo. Matrix products
    keep to MKL's plainest road, the only one that it promises across vendors; that costs about 30 % of the networks'
    time.
    """
    core = "numpy._core" if find_spec("numpy._core") is not None else "numpy.core"  # since numpy 2, and before
    umath = import_module(f"{core}._multiarray_umath")
    capability = "avx2" if umath.__cpu_features__.get("AVX2") else "default"
    return {"ATEN_CPU_CAPABILITY": capability, "MKL_CBWR": "COMPATIBLE"}


def demo_world(seed: int) -> SimulationConfig:
    """2,400 samples x 978 genes in three cell lines; 240 compounds; every control paired at random, as in the field."""
    return SimulationConfig(samples=2400, genes=978, cell_lines=3, perturbations=240, replicates=2, seed=seed)


def demo_models() -> list[str]:
    """The baselines, and the networks if torch is installed."""
    return [*BASELINES, *(NETWORKS if find_spec("torch") is not None else ())]


def run_demo(folder: Path, *, workers: int, seed: int) -> Study:
    """Simulate, fit, stack, judge, report; what is there already is kept.

    Parameters
    ----------
    folder : of the demo: the world's file and the study.
    workers : processes.
    seed : of world and study.

    Raises
    ------
    InputError
        ``folder`` holds something that is not this demo.
    """
    for name, value in same_kernels().items():
        os.environ.setdefault(name, value)
    world, root = folder / "world.h5ad", folder / "study"
    if folder.exists() and any(folder.iterdir()) and not world.exists():
        raise InputError(f"{folder} is not empty and holds no demo. Name an empty or new folder: pertstack demo OUT")
    if not root.exists():
        folder.mkdir(parents=True, exist_ok=True)
        simulate_to_file(world, demo_world(seed))
        study = Study.create(root, data=world, seed=seed)
    else:
        study = Study.open(root)
        if study.folder.choices["seed"] != seed:
            raise InputError(
                f"{folder} holds the demo of seed {study.folder.choices['seed']}, not {seed}. "
                f"Name another folder for another world: pertstack demo OUT --seed {seed}"
            )
    study.run(demo_models(), workers=workers, profile="fast")
    return study
