"""The demo: a simulated LINCS-like study, and everything pertstack does, on it.

The world and the models are fixed by the seed, so a second run finds every job done and ends in seconds. Networks are
trained with the plainest kernels, so that another processor of the same family gives the same demo (``PLAIN``). One
model is left out on purpose: ``ridge_treated`` comes close to how this world is made, and next to it no combination
helps (try ``pertstack fit demo/study --models ridge_treated``).
"""

from __future__ import annotations

import os
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

PLAIN = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
"""What torch and MKL are told before they load: no vector units beyond the baseline, sums in one order on every x86.

A network's training amplifies last bits until early stopping picks another epoch: with other kernels predictions of one
network moved by 5 to 25 % of their size. It costs about 40 % of the networks' time.
"""


def demo_world(seed: int) -> SimulationConfig:
    """2,400 samples x 978 genes in three cell lines; 240 compounds; every control paired at random, as in the field."""
    return SimulationConfig(samples=2400, genes=978, cell_lines=3, perturbations=240, replicates=2, seed=seed)


def demo_models() -> list[str]:
    """The baselines, and the networks where torch is installed."""
    return [*BASELINES, *(NETWORKS if find_spec("torch") is not None else ())]


def run_demo(folder: Path, *, workers: int, seed: int) -> Study:
    """Simulate, fit, stack, judge, report; what is there already is kept.

    Raises
    ------
    InputError
        ``folder`` holds something that is not this demo.
    """
    for name, value in PLAIN.items():
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
