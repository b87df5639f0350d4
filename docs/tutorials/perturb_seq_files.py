"""A Perturb-seq-like screen of cells, and predicted cells of three models for the perturbations it held out.

    python perturb_seq_files.py

writes cells.h5ad (counts of 4,400 cells: 40 knock-downs and non-targeting guides in two batches) and gears.h5ad,
state.h5ad and mine.h5ad (50 predicted cells of each of 15 knock-downs). The names are made up: no such model was run.
"""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

GENES = [f"GENE{i:03d}" for i in range(400)]
TARGETS, HELD_OUT = GENES[:40], GENES[25:40]

rng = np.random.default_rng(7)
base = rng.gamma(0.6, 1.0, len(GENES)) + 0.02
programmes = rng.normal(0, 0.5, (4, len(GENES))) * (rng.random((4, len(GENES))) < 0.2)
effect = {t: rng.normal(0, 1, 4) @ programmes for t in TARGETS}
shared = rng.normal(0, 0.4, len(GENES)) * (rng.random(len(GENES)) < 0.1)
for i, target in enumerate(TARGETS):
    effect[target] = effect[target] + shared
    effect[target][i] = -1.5  # the gene that is knocked down
effect["non-targeting"] = np.zeros(len(GENES))


def cells(labels: list[str], log_change: dict[str, np.ndarray], drift: np.ndarray) -> sparse.csr_matrix:
    """Counts of one cell per label."""
    mean = base * np.exp(np.stack([log_change[name] for name in labels]) + drift)
    depth = rng.lognormal(8.0, 0.3, (len(labels), 1))
    return sparse.csr_matrix(rng.poisson(depth * mean / mean.sum(axis=1, keepdims=True)).astype(np.float32))


def write(name: str, counts: sparse.csr_matrix, obs: pd.DataFrame) -> None:
    obs.index = [f"cell{i}" for i in range(len(obs))]
    anndata.AnnData(counts, obs, pd.DataFrame(index=GENES)).write_h5ad(name)


labels = [t for t in TARGETS for _ in range(100)] + ["non-targeting"] * 400
order = rng.permutation(len(labels))
obs = pd.DataFrame({"target_gene": [labels[i] for i in order], "gem_group": rng.integers(1, 3, len(order)).astype(str)})
drift = rng.normal(0, 0.1, (2, len(GENES)))[(obs["gem_group"] == "2").astype(int)]
write("cells.h5ad", cells(list(obs["target_gene"]), effect, drift), obs)

seen = np.mean([effect[t] for t in TARGETS if t not in HELD_OUT], axis=0)
for name, known, noise in (("gears.h5ad", 0.6, 0.15), ("state.h5ad", 0.4, 0.1), ("mine.h5ad", 0.0, 0.02)):
    told = {t: seen + known * (effect[t] - seen) + rng.normal(0, noise, len(GENES)) for t in HELD_OUT}
    rows = pd.DataFrame({"target_gene": [t for t in HELD_OUT for _ in range(50)]})
    write(name, cells(list(rows["target_gene"]), told, np.zeros(len(GENES))), rows)
