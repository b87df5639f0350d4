"""Small files of cells as the field writes them, and what plain pandas makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

GENES = [f"GENE{i:02d}" for i in range(30)]
TARGETS = GENES[:9]


def counts_of(obs: pd.DataFrame, perturbation: str, line: str | None, seed: int = 0, genes: int = len(GENES)) -> Any:
    """(n_cells, n_genes) whole numbers: a depth per cell, a profile per line, a fall of the perturbed gene."""
    rng = np.random.default_rng(seed)
    lines = obs[line].astype(str) if line else pd.Series("one", index=obs.index)
    base = {name: rng.gamma(0.7, 1.0, genes) + 0.05 for name in sorted(set(lines))}
    effect = {name: np.exp(rng.normal(0, 0.5, genes)) for name in sorted(set(obs[perturbation].astype(str)))}
    mean = np.stack([base[a] * effect[b] for a, b in zip(lines, obs[perturbation].astype(str), strict=True)])
    depth = rng.lognormal(0.3, 0.3, (len(obs), 1))
    return rng.poisson(mean * depth).astype(np.float32)


def design(
    perturbations: Sequence[str],
    *,
    lines: Sequence[str] = ("K562",),
    batches: Sequence[str] = ("1", "2"),
    n: int = 12,
    control: str = "non-targeting",
    seed: int = 1,
    names: tuple[str, str | None, str | None] = ("target_gene", "cell_line", "gem_group"),
) -> pd.DataFrame:
    """One row per cell, shuffled: ``n`` cells of every perturbation and the control in every line and batch."""
    rows = [(p, a, b) for a in lines for b in batches for p in [*perturbations, control] for _ in range(n)]
    table = pd.DataFrame(rows, columns=["p", "line", "batch"])
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))].reset_index(drop=True)
    table.index = [f"cell{i:05d}-1" for i in range(len(table))]
    kept = {c: name for c, name in zip(["p", "line", "batch"], names, strict=True) if name}
    return table[list(kept)].rename(columns=kept)


def write(
    path: Path, obs: pd.DataFrame, x: Any, *, genes: Sequence[str] = GENES, form: str = "csr", **parts: Any
) -> Path:
    """An h5ad (or zarr) file with X sparse by rows, by columns, or dense."""
    matrix = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[form](x)
    var = parts.pop("var", pd.DataFrame(index=list(genes)))
    data = anndata.AnnData(matrix, obs=obs, var=var, **parts)
    data.write_zarr(path) if path.suffix == ".zarr" else data.write_h5ad(path)
    return path


def pseudobulk_of(x: Any, obs: pd.DataFrame, key: list[str], *, per: float = 1e4) -> pd.DataFrame:
    """log1p of summed counts per ``per``, by plain pandas; index = values of the key joined by |."""
    total = pd.DataFrame(np.asarray(x, dtype=np.float64)).groupby([obs[k].astype(str).to_numpy() for k in key]).sum()
    out = np.log1p(total.div(total.sum(axis=1), axis=0) * per)
    out.index = [i if isinstance(i, str) else "|".join(i) for i in out.index]
    return out


def means_of(x: Any, obs: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Means over cells, by plain pandas; index as above."""
    out = pd.DataFrame(np.asarray(x, dtype=np.float64)).groupby([obs[k].astype(str).to_numpy() for k in key]).mean()
    out.index = [i if isinstance(i, str) else "|".join(i) for i in out.index]
    return out


def lognormal(x: Any, per: float = 1e4) -> Any:
    """log1p of counts per ``per`` of each cell, as scanpy makes them."""
    depth = np.maximum(x.sum(axis=1, keepdims=True), 1)
    return np.log1p(x / depth * per).astype(np.float32)
