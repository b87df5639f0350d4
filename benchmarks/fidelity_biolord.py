"""Our Biolord against the published package, on the same rows, widths and rates.

    python benchmarks/fidelity_biolord.py                 # builds the environment of biolord 0.0.3 once (1.7 GB)

A simulated study of 600 pairs x 200 genes, 30 perturbations and 3 cell lines, drawn anew for each seed; a fifth of the
rows is held out, once drawn at random (every perturbation and line was seen) and once whole perturbations. The
published package runs behind its card, as it does for users. All get the same sizes, penalties, learning rates, numbers
of epochs and profiles per batch; the row "ours, published" takes over every other choice of the package as well
(profile "published": batch norm and no dropout in the decoder, its momentum and epsilon, codes from spread 1 with
weight decay, the rate of the cell line vectors, no clipping, nothing hidden, constant rates, last weights). The rows
between it and "ours" change one group of these at a time. Two habits of the package cannot stand behind fit and predict
of a base model and are tried in ``biolord_during_fit.py``: codes of new controls found during the fit, and batches of
single profiles whose last one is what is left over ("..., last batch a rest").

Prints Markdown for docs/models.md: the scores, and the paired differences from the package with their standard errors.
``--keep FILE`` notes every score found, and takes from there those that stand in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from biolord_during_fit import DuringFit

from pertstack.data import FitRows, SimulationConfig, build_side, simulate
from pertstack.data.rows import Float32, PredictRows
from pertstack.design.metric_names import parse_metrics
from pertstack.fit import get_model
from pertstack.fit.profiles import profile
from pertstack.reduce.metrics.rows import score_rows

METRICS = parse_metrics(["rmse_all@pooled", "r2_top20@pooled"])
SPLITS = ("random rows", "perturbations")
PACKAGE = "biolord 0.0.3"
SHARED = {"decoder_width": 256, "decoder_depth": 2, "attribute_width": 256, "attribute_depth": 2}
PENALTIES = {"reconstruction_penalty": 100.0, "validation_share": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--perturbations", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", nargs="*", metavar="ROW", help="some rows of the table, by their names")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="CSV of scores: read, and added to")
    options = parser.parse_args()
    found = pd.read_csv(options.keep) if options.keep and options.keep.exists() else pd.DataFrame()
    for seed in range(options.seeds):
        rows = world(options, seed)
        for split in SPLITS:
            for row in compare(rows, split, seed, options, found):
                found = pd.concat([found, pd.DataFrame([row])], ignore_index=True)
                if options.keep:
                    found.to_csv(options.keep, index=False)
    order = list(models(options.epochs))
    found = found.sort_values(["split", "model", "seed"], key=lambda c: c.map(order.index) if c.name == "model" else c)
    print(table(found), differences(found), sep="\n\n")


def models(epochs: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Rows of the table: registered name and hyper-parameters."""
    ours: dict[str, Any] = {
        **SHARED,
        **PENALTIES,
        "epochs": epochs,
        "patience": epochs,
        "batch_size": 128,
        "latent": 32,
        "n_ordered": 64,
        "latent_penalty": 0.1,
        "latent_noise": 0.1,
        "latent_learning_rate": 1e-2,
        "learning_rate": 1e-3,
        "attribute_learning_rate": 1e-3,
        "weight_decay": 4e-8,
        "attribute_weight_decay": 4e-8,
        "dropout": 0.1,
    }
    published: dict[str, Any] = {
        **SHARED,
        **PENALTIES,
        "max_epochs": epochs,
        "patience": epochs,
        "batch_size": 256,
        "n_latent": 32,
        "n_latent_attribute_ordered": 64,
        "unknown_attribute_penalty": 0.1,
        "unknown_attribute_noise_param": 0.1,
        "latent_lr": 1e-2,
        "latent_wd": 1e-4,
        "decoder_lr": 1e-3,
        "attribute_lr": 1e-3,
        "attribute_wd": 4e-8,
    }
    last = {**ours, "validation_share": 0.0, "schedule": "constant"}
    norm = {"decoder_norm": "batch", "decoder_dropout": 0.0}
    sized = {k: ours[k] for k in (*SHARED, "latent", "n_ordered", "latent_penalty", "latent_noise", "batch_size")}
    exact = {**profile("published", "Biolord"), **sized, "epochs": epochs}
    return {
        PACKAGE: ("biolord_published", published),
        f"{PACKAGE}, codes without decay": ("biolord_published", {**published, "latent_wd": 0.0}),
        "ours": ("Biolord", ours),
        "ours, last weights": ("Biolord", last),
        "ours, last weights, batch norm in the decoder": ("Biolord", {**last, **norm}),
        "ours, published": ("Biolord", exact),
        "ours, published, no batch norm in the decoder": ("Biolord", {**exact, "decoder_norm": "none"}),
        "ours, published, codes during the fit, even batches": ("during fit", {**exact, "rest": False}),
        "ours, published, codes during the fit, last batch a rest": ("during fit", {**exact, "rest": True}),
        "ours, code not inferred": ("Biolord", {**ours, "infer": "zero"}),
        "no_change": ("no_change", {}),
        "mean_treated_cell_line": ("mean_treated_cell_line", {}),
    }


def world(options: argparse.Namespace, seed: int) -> FitRows:
    """All pairs of a simulated study, structures beside them."""
    made = simulate(
        SimulationConfig(
            samples=options.samples,
            genes=options.genes,
            perturbations=options.perturbations,
            cell_lines=3,
            replicates=2,
            pairing="own",
            seed=seed,
        )
    )
    genes = np.asarray(made.var_names, dtype=object)
    side, _ = build_side(made.obs, genes)
    group = np.asarray(made.obs["perturbation"], dtype=object)
    return FitRows(genes, np.asarray(made.layers["control"]), made.obs, side, np.asarray(made.X), group)


def held_out(rows: FitRows, split: str, seed: int, parts: int = 5) -> np.ndarray:
    """A fifth (one of ``parts``) of the rows, or of the perturbations with all their rows."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    if split == "random rows":
        return rng.permutation(rows.n_samples) < rows.n_samples // parts
    names = np.unique(rows.perturbation.astype(str))
    return np.isin(rows.perturbation.astype(str), rng.choice(names, len(names) // parts, replace=False))


def compare(
    rows: FitRows, split: str, seed: int, options: argparse.Namespace, done: pd.DataFrame
) -> Iterator[dict[str, object]]:
    """Scores of every model on the held-out rows of one seed and split: means over rows. Without those ``done``."""
    held = held_out(rows, split, seed)
    fit, test = rows.take(~held), rows.take(held)
    there = set() if done.empty else set(zip(done["model"], done["split"], done["seed"], strict=True))
    for label, (name, params) in models(options.epochs).items():
        if (options.only and label not in options.only) or (label, split, seed) in there:
            continue
        began = time.perf_counter()
        predicted = predict(name, params, fit, test.without_treated(), seed)
        seconds = time.perf_counter() - began
        values, _ = score_rows(predicted, test.treated, {"pooled": pooled(fit, test)}, metrics=METRICS)
        scores = dict(zip((m.name for m in METRICS), values.mean(axis=1), strict=True))
        yield {"model": label, "split": split, "seed": seed, "seconds": seconds, **scores}


def predict(name: str, params: dict[str, Any], fit: FitRows, new: PredictRows, seed: int) -> Float32:
    """Fit and predict. The package keeps a tenth of the groups back to watch; so do ours that look at none."""
    watched = held_out(fit, SPLITS[1], seed, parts=10)
    if name == "during fit":
        settings = {k: v for k, v in params.items() if k != "rest"}
        return DuringFit(fit, ~watched, settings, rest=params["rest"]).predict(new, seed)
    learn = fit.take(~watched) if name == "Biolord" and params["validation_share"] == 0 else fit
    return np.asarray(get_model(name, params).fit(learn, rng=np.random.default_rng(seed)).predict(new))


def pooled(fit: FitRows, test: FitRows) -> Float32:
    """Mean control of the fit rows of each row's cell line."""
    means = {line: fit.control[fit.cell_line == line].mean(axis=0) for line in np.unique(fit.cell_line.astype(str))}
    return np.stack([means[line] for line in test.cell_line])


def table(found: pd.DataFrame) -> str:
    """Mean over seeds and, in brackets, the single seeds."""
    lines = [
        "| held out | model | RMSE | R² Top-20, pooled control | seconds |",
        "|---|---|--:|--:|--:|",
    ]
    for (split, model), part in found.groupby(["split", "model"], sort=False):
        scores = " | ".join(in_brackets(part[m.name]) for m in METRICS)
        lines.append(f"| {split} | {model} | {scores} | {part['seconds'].mean():.0f} |")
    return "\n".join(lines)


def differences(found: pd.DataFrame) -> str:
    """Paired differences from the package over the runs both have: mean, standard error, how many are below zero."""
    lines = ["| model | runs | difference in RMSE | lower in | difference in R² |", "|---|--:|--:|--:|--:|"]
    score = found.set_index(["model", "split", "seed"])[[m.name for m in METRICS]]
    if PACKAGE not in score.index.get_level_values(0):
        return ""
    for model in found["model"].unique():
        apart = (score.loc[model] - score.loc[PACKAGE]).dropna()
        if model == PACKAGE or len(apart) < 2:
            continue
        mean, error = apart.mean(), apart.std() / np.sqrt(len(apart))
        told = [f"{mean[m.name]:+.3f} ± {error[m.name]:.3f}" for m in METRICS]
        below = int((apart[METRICS[0].name] < 0).sum())
        lines.append(f"| {model} | {len(apart)} | {told[0]} | {below} | {told[1]} |")
    return "\n".join(lines)


def in_brackets(values: pd.Series) -> str:
    return f"{values.mean():.3f} ({', '.join(f'{v:.3f}' for v in values)})"


if __name__ == "__main__":
    main()
