"""Would it matter to weigh samples by their number of cells? On the cells of Norman et al., out of fold.

    python benchmarks/cell_weights.py norman_doubles/cells.h5ad --thin

That file has 40 cells of every perturbation; ``--thin`` keeps 10 to 40, so that there is something to weigh. A study is
made of the cells and four baselines are cross-fitted. Then, with every sample alike and with samples weighed by
``n_cells``: the mean of each metric with its standard error over perturbations, and the non-negative weights of sum one
that minimise the squared error of a mixture.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pertstack as ps
from pertstack._stats.group_sums import GroupSums
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score

MODELS = ("mean_treated", "ridge", "additive", "perturbation_knn")
METRICS = ("r2_top20@pooled", "pearson_all@pooled", "pearson_all@centroid", "rmse_all@own")


def rows_of(study: ps.Study, name: str) -> pd.DataFrame:
    """Development rows of one layer, in the order of the store."""
    store = study.folder.store
    parts = [pd.DataFrame(store.read(b, name), store.sample_ids(b)) for b in store.blocks("development")]
    return pd.concat(parts)


def interval(sums: GroupSums) -> tuple[float, float]:
    """Mean and its standard error over whole perturbations."""
    return float(sums.means()[0]), float(sums.errors()[0])


def weighed(values: Any, groups: Any, weights: Any) -> GroupSums:
    """Group sums with a weight for every sample."""
    plain = GroupSums.of(values[None], groups)
    _, code = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    good = ~np.isnan(values)
    total = np.bincount(code, np.where(good, values, 0) * weights, plain.total.shape[1])
    return GroupSums(total[None], np.bincount(code, good * weights, plain.total.shape[1])[None])


def simplex(predictions: Any, truth: Any, weights: Any) -> Any:
    """Weights >= 0 of sum one of least squared error, by projected gradient; (n_models,)."""
    w = weights / weights.sum()
    gram = np.einsum("mng,kng,n->mk", predictions, predictions, w)
    cross = np.einsum("mng,ng,n->m", predictions, truth, w)
    at, step = np.full(len(predictions), 1 / len(predictions)), 1 / np.linalg.eigvalsh(gram)[-1]
    for _ in range(20_000):
        moved = at - step * (gram @ at - cross)
        ordered = np.sort(moved)[::-1]
        k = np.arange(1, len(moved) + 1)
        last = np.flatnonzero(ordered + (1 - np.cumsum(ordered)) / k > 0)[-1]
        at = np.maximum(moved + (1 - ordered[: last + 1].sum()) / (last + 1), 0)
    return at


def thinned(data: Path, to: Path) -> Path:
    """The file with 10 to 40 cells of every perturbation (log-uniform), all control cells kept."""
    import anndata

    cells, rng = anndata.read_h5ad(data), np.random.default_rng(0)
    names = cells.obs["perturbation"].astype(str)
    control = names.isin(["control", "ctrl"]).to_numpy()
    keep = [np.flatnonzero(control)]
    for name in sorted(set(names[~control])):
        mine = np.flatnonzero((names == name).to_numpy())
        n = min(len(mine), int(np.exp(rng.uniform(np.log(10), np.log(41)))))
        keep.append(rng.choice(mine, n, replace=False))
    cells[np.sort(np.concatenate(keep))].copy().write_h5ad(to)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--thin", action="store_true", help="Keep 10 to 40 cells of every perturbation.")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = thinned(said.data, Path(place) / "cells.h5ad") if said.thin else said.data
        root = Path(place) / "study"
        for words in (
            ["init", str(root), "--data", str(data), "--seed", "0"],
            ["fit", str(root), "--models", ",".join(MODELS), "--no-nested"],
        ):
            subprocess.run([sys.executable, "-m", "pertstack", *words], check=True, stdout=subprocess.DEVNULL)
        study = ps.Study.open(root)
        layers = {name: rows_of(study, name) for name in ("control", "treated", *MODELS)}
        obs = study.folder.samples.loc[layers["treated"].index]
        genes = list(study.folder.gene_names)
        folds = study.plan.table.set_index("sample_id").loc[obs.index, "fold"].to_numpy()
    n_cells = obs["n_cells"].to_numpy(dtype=np.float64)
    print(f"{len(obs)} samples of {np.quantile(n_cells, [0, 0.25, 0.5, 0.75, 1]).astype(int)} cells (quartiles)")
    source = ArraySource(
        {m: layers[m].to_numpy() for m in MODELS},
        layers["treated"].to_numpy(),
        layers["control"].to_numpy(),
        folds=folds,
        sample_ids=obs.index,
        perturbation=obs["perturbation"],
        cell_line=obs["cell_line"],
        gene_names=genes,
        obs=obs,
    )
    table = score(source, {}, References.collect(source), metrics=METRICS)
    order = obs.index.get_indexer(table.samples["sample_id"])
    groups, cells = table.samples["group"].to_numpy(), n_cells[order]
    for metric in METRICS:
        for name in MODELS:
            values = table.values(name, metric)
            plain, by_cells = (interval(weighed(values, groups, w)) for w in (np.ones_like(cells), cells))
            print(
                f"{metric:22} {name:18} alike {plain[0]:.3f} +- {plain[1]:.3f}   by cells "
                f"{by_cells[0]:.3f} +- {by_cells[1]:.3f}"
            )
    delta = np.stack([layers[m].to_numpy() - layers["control"].to_numpy() for m in MODELS])
    truth = layers["treated"].to_numpy() - layers["control"].to_numpy()
    for what, w in (("alike", np.ones_like(n_cells)), ("by cells", n_cells)):
        found = simplex(delta.astype(np.float64), truth.astype(np.float64), w)
        error = np.sqrt((((np.einsum("m,mng->ng", found, delta) - truth) ** 2).mean(axis=1)).mean())
        print(f"simplex {what}: {dict(zip(MODELS, found.round(3).tolist(), strict=True))}, RMSE {error:.4f}")


if __name__ == "__main__":
    main()
