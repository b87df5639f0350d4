"""The shared control: a five-point gain on the canonical metric that predicts the drug worse on every other measure.

Two experiments with nine fitted models (a dominant model made by hand is ``dominant.py``). *Simulated*: controls paired
at random. *Plate*: a real L1000 plate (HT115, compounds held out; one DMSO well paired with each sample at random).
Combiners are learned on out-of-fold rows and read on the held-out test; ``reading`` is what ``verdict/decomposition``
calls the gain over the best single model.

    OMP_NUM_THREADS=1 python benchmarks/artefact.py                                # the simulated study
    OMP_NUM_THREADS=1 python benchmarks/artefact.py --plate ht115_cpc006.h5ad      # the plate
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

import pertstack as ps
from pertstack.data import SimulationConfig, simulate_to_file

NINE = (
    "mean_treated",
    "mean_shift",
    "per_gene_linear",
    "perturbation_knn",
    "ridge",
    "ridge_treated",
    "low_rank",
    "low_rank_treated",
    "mlp",
)
COMBINERS = ("mean", "simplex", "direct_own", "direct_pooled")
SHOWN = {
    "own R2 Top-20": "r2_top20@own",
    "pooled R2 Top-20": "r2_top20@pooled",
    "centroid Pearson": "pearson_all@centroid",
    "RMSE": "rmse_all@own",
}


def experiment(
    data: Path, root: Path, *, models: tuple[str, ...] = NINE, seed: int = 0, **choices: str
) -> pd.DataFrame:
    """Scores on the held-out test, one row per competitor, with the reading of its gain; index = name."""
    study = ps.Study.create(root, data=data, seed=seed, **choices)
    study.change_plan({"primary": "r2_top20"})  # the founding number, whatever calibration says of it
    failed = [r for r in study.cross_fit(list(models)) if not r.ok]
    if failed:
        raise SystemExit(f"{failed[0].job} failed: {failed[0].error}")
    study.stack(list(COMBINERS))
    board = study.verdict()
    from pertstack.study.judged import recall_verdict

    readings = {name: d.reading for name, d in recall_verdict(study.folder).decompositions.items()}
    rows = []
    for name in ("no_change", "mean_treated", str(board.best_single), *COMBINERS):
        row = board.row(name)
        cells = {title: row.score(metric) for title, metric in SHOWN.items()}
        numbers = {title: None if cell is None else cell.value for title, cell in cells.items()}
        rows.append({"name": name, **numbers, "reading": readings.get(name, ""), "shipped": name == board.chosen})
    frame = pd.DataFrame(rows).drop_duplicates("name").set_index("name")
    return frame.rename(index={str(board.best_single): f"best single: {board.best_single}"})


def average(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Means over seeds; readings counted. The best single model may differ between seeds and is called by its role."""
    every = pd.concat([f.rename(index=lambda n: "best single" if n.startswith("best single") else n) for f in frames])
    order = list(dict.fromkeys(every.index))
    means = every.groupby(level=0)[list(SHOWN)].mean().loc[order]
    said = every.groupby(level=0)["reading"].agg(lambda r: ", ".join(f"{k} {n}" for k, n in r.value_counts().items()))
    return means.assign(reading=said.loc[order])


def markdown(frame: pd.DataFrame) -> str:
    """A plain Markdown table."""
    lines = ["| | " + " | ".join([*SHOWN, "reading (splits)"]) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for name, row in frame.iterrows():
        cells = [f"{row[title]:.3f}" for title in SHOWN]
        lines.append(f"| {name} | " + " | ".join([*cells, str(row["reading"])]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plate", type=Path, default=None, help="ht115_cpc006.h5ad; default: the simulated study")
    parser.add_argument("--seeds", type=int, default=3, help="number of splits")
    args = parser.parse_args()
    frames = []
    with tempfile.TemporaryDirectory() as scratch:
        data = args.plate
        for seed in range(args.seeds):
            if args.plate is None:
                data = Path(scratch) / f"world{seed}.h5ad"
                simulate_to_file(
                    data, SimulationConfig(samples=900, genes=300, cell_lines=2, perturbations=120, seed=seed)
                )
            choices = {} if args.plate is None else {"control_layer": "paired_control"}
            frames.append(experiment(data, Path(scratch) / f"study{seed}", seed=seed, **choices))
    print(markdown(average(frames)))


if __name__ == "__main__":
    main()
