"""Small data files whose every number is known, for the tests of the readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd


def small(n: int = 12, genes: int = 7, seed: int = 0) -> ad.AnnData:
    """Twelve samples, four perturbations, two cell lines; log-like values."""
    rng = np.random.default_rng(seed)
    control = rng.normal(8, 1, (n, genes)).astype(np.float32)
    treated = (control + rng.normal(0.2, 1, (n, genes))).astype(np.float32)
    obs = pd.DataFrame(
        {
            "perturbation": [f"p{i % 4}" for i in range(n)],
            "cell_line": ["A", "B"] * (n // 2),
            "smiles": "CCO",
            "dose": 1.0,
            "dose_unit": "uM",
        },
        index=[f"s{i}" for i in range(n)],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(genes)])
    return ad.AnnData(X=treated, obs=obs, var=var, layers={"control": control, "effect": treated - control})


def write(folder: Path, data: ad.AnnData, name: str = "data.h5ad", **options: Any) -> Path:
    """Write to .h5ad or .zarr, by the name."""
    path = folder / name
    if path.suffix == ".zarr":
        data.write_zarr(path, **options)
    else:
        data.write_h5ad(path, **options)
    return path
