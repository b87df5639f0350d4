"""A screen of cells in two contexts that differ by gene programmes, as a study with fitted models."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from e2e.conftest import ok
from references import cell_worlds as cells

GENES = [f"GENE{i:03d}" for i in range(80)]


def study_of_cells(folder: Path, *, n: int = 40) -> Path:
    """``cells.h5ad`` (16 targets in contexts A and B, counts) and ``study`` with a fitted ridge."""
    obs = cells.design(GENES[:16], n=n, lines=("A", "B"), batches=("1",), names=("target_gene", "context", "batch"))
    x = cells.counts_of(obs, "target_gene", "context", genes=len(GENES)) * 4
    cells.write(folder / "cells.h5ad", obs, np.random.default_rng(0).poisson(x).astype(np.float32), genes=GENES)
    ok("init", folder / "study", "--data", folder / "cells.h5ad", "--folds", 2)
    ok("fit", folder / "study", "--models", "mean_treated,ridge")
    return folder
