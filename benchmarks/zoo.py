"""The model zoo: all networks and baselines cross-fitted and judged on one simulated study.

    make zoo                                             # 2,000 samples x 978 genes x 3 cell lines
    python benchmarks/zoo.py --samples 500 --profile fast --folder /tmp/zoo

Prints Markdown for docs/models.md: what each fit took, learning curves, and the leaderboard on the held-out test; draws
the curves. The study stays in ``--folder``; a second run finds every job done. Fits without pairs of folds are left out
(decision 0005), so the combiners' rows are a first look rather than a verdict: the subject here are the base models.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from pertstack._base.machine.progress import show_progress
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.fit.jobs.job import JobResult
from pertstack.fit.torch import ROWS
from pertstack.study.study import Study

BASELINES = (
    "mean_treated",
    "mean_treated_cell_line",
    "mean_shift",
    "per_gene_linear",
    "perturbation_knn",
    "ridge",
    "low_rank",
)
NETWORKS = tuple(row.name for row in ROWS)
EPOCHS = (1, 2, 5, 10, 20, 40, 60)


def main() -> None:
    options = parse()
    show_progress(True)
    began = time.perf_counter()
    study = open_or_make(options)
    print(f"{study.describe()}\n")
    results = study.cross_fit([*BASELINES, *NETWORKS], workers=options.workers, profile=options.profile, nested=False)
    fitted = time.perf_counter()
    print_failures(results)
    print_fits(study, options.profile)
    print_curves(study)
    draw_curves(study, options.folder / "learning-curves.png")
    study.stack(workers=options.workers)
    board = study.verdict(workers=options.workers)
    judged = time.perf_counter()
    print("### Leaderboard (held-out test)\n")
    print(f"```\n{board!r}\n```\n")
    print(
        f"{fitted - began:,.0f} s of fitting with {options.workers} workers, {judged - fitted:,.0f} s of combining "
        f"and judging."
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=978)
    parser.add_argument("--cell-lines", type=int, default=3)
    parser.add_argument("--perturbations", type=int, default=150)
    parser.add_argument("--profile", default="default", choices=("paper", "default", "fast"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("zoo"))
    return parser.parse_args()


def open_or_make(options: argparse.Namespace) -> Study:
    """The study in ``--folder``; made with its world when there is none."""
    root, world = options.folder / "study", options.folder / "world.h5ad"
    if root.exists():
        return Study.open(root)
    options.folder.mkdir(parents=True, exist_ok=True)
    simulate_to_file(
        world,
        SimulationConfig(
            samples=options.samples,
            genes=options.genes,
            cell_lines=options.cell_lines,
            perturbations=options.perturbations,
            replicates=2,
            seed=options.seed,
        ),
    )
    return Study.create(root, data=world, seed=options.seed)


def print_failures(results: list[JobResult]) -> None:
    for result in results:
        if not result.ok:
            print(f"FAILED {result.job}: {result.error} (log {result.log})")


def jobs_of(study: Study, model: str) -> list[tuple[dict[str, Any], list[dict[str, float]]]]:
    """Record and learning curve of each finished job of a model."""
    found = []
    for path in sorted(study.folder.path("jobs", model).glob("*/job.json")):
        job = json.loads(path.read_text(encoding="utf-8"))
        if job["record"] is not None:
            curve = path.with_name("curve.json")
            epochs = json.loads(curve.read_text(encoding="utf-8"))["epochs"] if curve.exists() else []
            found.append((job["record"], epochs))
    return found


def print_fits(study: Study, profile: str) -> None:
    """Means over the fits of a model: seconds, epochs, best epoch, peak memory."""
    print(f"### Fits (profile {profile!r})\n")
    print("| model | fits | rows | seconds per fit | slowest | epochs | best epoch | peak memory |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for model in (*BASELINES, *NETWORKS):
        jobs = jobs_of(study, model)
        if not jobs:
            print(f"| {model} | 0 | | | | | | |")
            continue
        seconds = [record["fit_seconds"] for record, _ in jobs]
        epochs = [len(curve) for _, curve in jobs if curve]
        best = [r["notes"]["best_epoch"] + 1 for r, curve in jobs if curve and "best_epoch" in r["notes"]]
        peak = max(record["peak_memory_bytes"] for record, _ in jobs) / 1e6
        rows = np.mean([record["n_fit"] for record, _ in jobs])
        print(
            f"| {model} | {len(jobs)} | {rows:,.0f} | {np.mean(seconds):.1f} | {max(seconds):.1f} | {mean(epochs)} | "
            f"{mean(best)} | {peak:,.0f} MB |"
        )
    print()


def mean(values: list[float]) -> str:
    return f"{np.mean(values):.0f}" if values else ""


def print_curves(study: Study) -> None:
    """Error on the inner validation rows (mean square, standardised), mean over the fits that reached the epoch."""
    print("### Learning curves (error on inner validation rows, standardised scale)\n")
    print(f"| model | {' | '.join(f'epoch {e}' for e in EPOCHS)} | best |")
    print(f"|---|{'--:|' * (len(EPOCHS) + 1)}")
    for model in NETWORKS:
        curves = [[e["validation"] for e in curve if "validation" in e] for _, curve in jobs_of(study, model)]
        curves = [c for c in curves if c]
        cells = []
        for epoch in EPOCHS:
            reached = [c[epoch - 1] for c in curves if len(c) >= epoch]
            cells.append(f"{np.mean(reached):.3f}" if reached else "")
        best = f"{np.mean([min(c) for c in curves]):.3f}" if curves else ""
        print(f"| {model} | {' | '.join(cells)} | {best} |")
    print()


def draw_curves(study: Study, path: Path) -> None:
    """One panel per network, one line per fit, a dot where its weights were taken from."""
    found = {model: [c for _, c in jobs_of(study, model) if c] for model in NETWORKS}
    found = {model: curves for model, curves in found.items() if curves}
    figure, panels = plt.subplots(3, 4, figsize=(8.4, 5.6), sharey=True, layout="constrained")
    for panel in panels.flat[len(found) :]:
        panel.set_axis_off()
    for panel, (model, curves) in zip(panels.flat, found.items(), strict=False):
        for curve in curves:
            error = [epoch["validation"] for epoch in curve if "validation" in epoch]
            (line,) = panel.plot(range(1, len(error) + 1), error, linewidth=0.9)
            best = int(np.argmin(error))
            panel.plot(best + 1, error[best], "o", color=line.get_color(), markersize=3)
        panel.set_title(model, fontsize=8)
        panel.tick_params(labelsize=7)
        panel.set_ylim(0.3, 1.3)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("error on inner validation rows (mean square, standardised)", fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
