"""A small truth with known content, and predictions of it in the forms that the field writes."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa

GENES = [f"GENE{i:02d}" for i in range(40)]
ENSEMBL = [f"ENSG{i:011d}" for i in range(40)]
SINGLES = [f"GENE{i:02d}" for i in range(12)]
DOUBLES = [f"{a}+{b}" for a, b in zip(SINGLES[::2], SINGLES[1::2], strict=True)]
LINE = "K562"


def truth(folder: Path) -> anndata.AnnData:
    """Means of log values: 12 single and 6 double perturbations of one line in two batches, with control rows."""
    rng = np.random.default_rng(11)
    base = rng.gamma(2.0, 1.0, len(GENES))
    effect = {p: rng.normal(0, 0.6, len(GENES)) for p in [*SINGLES, *DOUBLES]}
    rows = [(p, b) for p in [*SINGLES, *DOUBLES] for b in ("1", "2")] + [("ctrl", b) for b in ("1", "2") for _ in "abc"]
    obs = pd.DataFrame(rows, columns=["condition", "batch"])
    obs["cell_type"] = LINE
    obs.index = [f"sample_{i}" for i in range(len(obs))]
    x = np.stack([np.maximum(base + effect.get(p, 0.0) + rng.normal(0, 0.1, len(GENES)), 0) for p, _ in rows])
    var = pd.DataFrame({"ensembl_id": ENSEMBL}, index=GENES)
    data = anndata.AnnData(x.astype(np.float32), obs, var)
    data.write_h5ad(folder / "truth.h5ad")
    return data


def profiles(data: anndata.AnnData, noise: float = 0.25, seed: int = 2) -> pd.DataFrame:
    """One predicted profile per perturbation, (18, 40): its measured mean and an error."""
    treated = data[data.obs["condition"] != "ctrl"]
    mean = pd.DataFrame(treated.X, columns=GENES).groupby(treated.obs["condition"].astype(str).to_numpy()).mean()
    error = np.random.default_rng(seed).normal(0, noise, mean.shape)
    return (mean + error).clip(lower=0).astype(np.float32)


def h5ad(path: Path, x: Any, obs: pd.DataFrame, genes: Any = None, **parts: Any) -> Path:
    """An AnnData file; genes None gives columns without names."""
    var = parts.pop(
        "var", pd.DataFrame(index=[str(i) for i in range(np.shape(x)[1])] if genes is None else list(genes))
    )
    anndata.AnnData(x if hasattr(x, "tocsr") else np.asarray(x, np.float32), obs, var, **parts).write_h5ad(path)
    return path


def gears_json(folder: Path, frame: pd.DataFrame, genes: list[str] = GENES) -> Path:
    """``all_predictions.json`` with ``gene_names.json`` beside it, doubles as A_B and singles as A+ctrl."""
    folder.mkdir(exist_ok=True)
    content = {_gears(p): row.tolist() for p, row in frame.iterrows()}
    (folder / "all_predictions.json").write_text(json.dumps(content))
    (folder / "gene_names.json").write_text(json.dumps(genes))
    return folder


def _gears(name: str) -> str:
    return "_".join(reversed(name.split("+"))) if "+" in name else f"{name}+ctrl"


def gears_pickle(path: Path, frame: pd.DataFrame) -> Path:
    """A dict of vectors in a pickle, with its gene list in it."""
    content = {"predictions": {k: v.to_numpy() for k, v in frame.iterrows()}, "gene_names": list(frame.columns)}
    path.write_bytes(pickle.dumps(content))
    return path


def cells_of(frame: pd.DataFrame, n: int = 5, spread: float = 0.3, seed: int = 4) -> tuple[np.ndarray, pd.DataFrame]:
    """``n`` cells of every perturbation and 7 control cells, shuffled, with the names anndata gives by default."""
    rng = np.random.default_rng(seed)
    names = [p for p in frame.index for _ in range(n)] + ["ctrl"] * 7
    means = np.stack([frame.loc[p].to_numpy() if p != "ctrl" else frame.mean().to_numpy() for p in names])
    x = (means + rng.normal(0, spread, means.shape)).clip(0, 14).astype(np.float32)
    order = rng.permutation(len(names))
    obs = pd.DataFrame({"target_gene": [names[i] for i in order]}, index=[str(i) for i in range(len(names))])
    return x[order], obs


def mean_of_cells(x: np.ndarray, obs: pd.DataFrame, column: str = "target_gene") -> pd.DataFrame:
    """Means per perturbation by plain pandas, controls left out."""
    out = pd.DataFrame(x.astype(np.float64), columns=GENES).groupby(obs[column].astype(str).to_numpy()).mean()
    return out.drop(index=[i for i in out.index if i in ("ctrl", "non-targeting")])


def vcc(path: Path, inner: Path, *, year: int = 2026, cut: int | None = None) -> Path:
    """A ``.vcc`` of an h5ad: a tar of ``pred.h5ad.zst`` and what the year puts beside it."""
    packed = pa.compress(inner.read_bytes(), codec="zstd", asbytes=True)
    beside = ("meta.json", json.dumps({"schema": 1}).encode()) if year == 2026 else ("watermark.txt", b"vcc-prep")
    members = [beside, ("pred.h5ad.zst", packed)] if year == 2026 else [("pred.h5ad.zst", packed), beside]
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    if cut is not None:
        path.write_bytes(path.read_bytes()[:cut])
    return path
