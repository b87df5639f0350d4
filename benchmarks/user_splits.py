"""Real splits for ``against_users.py``: base models of this package fitted on real files, kept as arrays.

    python benchmarks/user_splits.py DATA_FOLDER WORK_FOLDER --seeds 10

Four files, perturbations (pairs: cell lines) held out, a fifth of the groups as test, three folds; each base model once
without each fold, once without each pair of folds, once on all development rows. A split that is in WORK_FOLDER already
is left as it is. Seeds were fixed before anything was looked at: 700 to 709, and 710 to 719 for the second reading.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pertstack.data import build_side, open_data
from pertstack.data.rows import FitRows
from pertstack.design.plan.folds import FoldPlan
from pertstack.fit.registry import available, build, get_row, load_target

FIRST_SEED, N_FOLDS = 700, 3
FILES: dict[str, tuple[str, dict[str, Any], str]] = {
    "norman": ("norman_doubles/pseudobulk.h5ad", {}, "perturbation"),
    "a375": ("l1000_single_line/a375_ljp005.h5ad", {}, "perturbation"),
    "pairs": ("l1000_multicell/pairs_14compounds_43lines.h5ad", {}, "cell_line"),
    "ht115": ("l1000_single_line/ht115_cpc006.h5ad", {"control_layer": "paired_control"}, "perturbation"),
}
SETS: dict[str, tuple[str, ...]] = {
    "nine": (
        "mean_treated",
        "mean_shift",
        "per_gene_linear",
        "perturbation_knn",
        "ridge",
        "ridge_treated",
        "low_rank",
        "low_rank_treated",
        "additive",
    ),
    "four": ("mean_treated", "per_gene_linear", "perturbation_knn", "ridge_treated"),
    "three": ("mean_treated", "ridge_treated", "per_gene_linear"),
}


def make_split(file: Path, options: dict[str, Any], group_by: str, seed: int) -> dict[str, Any]:
    """Arrays of one split: what ``against_users.Split`` holds."""
    data = open_data(file, seed=seed, **options)
    control, treated = data.read(slice(None))
    side, _ = build_side(data.obs, data.gene_names, uns=data.uns)
    plan = FoldPlan.make(data.obs, group_by, n_folds=N_FOLDS, test_share=0.2, seed=seed)
    table = plan.table.set_index("sample_id").reindex(data.obs.index)
    folds = table["fold"].astype(float).fillna(-1).to_numpy(dtype=int)
    group = table["group"].to_numpy(dtype=object)
    rows = FitRows(data.gene_names, control, data.obs, side, treated, group)
    arrays: dict[str, Any] = {
        "control": control,
        "treated": treated,
        "folds": folds,
        "group": group.astype(str),
        "drug": data.obs["perturbation"].to_numpy(str),
        "line": data.obs["cell_line"].to_numpy(str),
    }
    if "plate" in data.obs:
        arrays["plate"] = data.obs["plate"].astype(str).to_numpy(str)
    columns = [c for c in ("perturbation", "cell_line", "log10_dose", "time_h") if c in data.obs]
    arrays["condition"] = data.obs.groupby(columns, dropna=False, observed=True).ngroup().to_numpy()
    for name in SETS["nine"]:
        row = get_row(name)
        if available(row, side, data.obs) is not None:
            continue
        arrays.update({f"{name}/{key}": value for key, value in crossed(row.target, name, rows, folds, seed).items()})
    return arrays


def crossed(target: str, name: str, rows: FitRows, folds: Any, seed: int) -> dict[str, Any]:
    """``oof`` (test rows by the final fit) and ``without_k``: rows outside fold k by fits without their fold and k."""
    shape = rows.treated.shape
    oof = np.full(shape, np.nan, dtype=np.float32)
    nested = {k: np.full(shape, np.nan, dtype=np.float32) for k in range(N_FOLDS)}

    def answer(left_out: tuple[int, ...], asked: Any) -> Any:
        fit = rows.take((folds >= 0) & ~np.isin(folds, left_out))
        model = build(load_target(target), {}, name)
        model.fit(fit, rng=np.random.default_rng([seed, *left_out]))
        return model.predict(rows.take(asked).without_treated())

    oof[folds < 0] = answer((), folds < 0)
    for k in range(N_FOLDS):
        oof[folds == k] = answer((k,), folds == k)
    for j, k in combinations(range(N_FOLDS), 2):
        both = answer((j, k), np.isin(folds, (j, k)))
        where = folds[np.isin(folds, (j, k))]
        nested[k][folds == j], nested[j][folds == k] = both[where == j], both[where == k]
    return {"oof": oof, **{f"without_{k}": nested[k] for k in range(N_FOLDS)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--only", choices=list(FILES))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first, args.first + args.seeds):
        for name, (file, options, group_by) in FILES.items():
            if args.only not in (None, name):
                continue
            out = args.work / f"{name}_{seed}.npz"
            if out.exists():
                continue
            started = time.perf_counter()
            np.savez(out.with_suffix(".part.npz"), **make_split(args.data / file, options, group_by, seed))
            out.with_suffix(".part.npz").rename(out)
            print(f"{out.name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
