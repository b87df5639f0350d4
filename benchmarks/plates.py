"""Worlds whose plates are shared by treated samples and controls: how often is a "real gain" the plate's?

    python benchmarks/plates.py --worlds 120

Every perturbation is measured twice, on two plates; a sample's control is a well of its own plate. Some base models see
the perturbation, others also (or only) read the plate off the control. Combinations are learned on development rows and
judged on new perturbations, once without and once with the view within plates. A "real gain" is false when the
combination agrees less with the noise-free effect than the best single model does. Seeds 5200 on were fixed beforehand.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
from pertstack.verdict.competitors import best_single_of, decompositions_of
from scipy import stats

from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combine_arrays import combine_arrays
from pertstack.stacking.nested import fit_nested
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting

FIRST_SEED = 5200
GENES, DEVELOPMENT, TEST = 100, 72, 60
METRICS = ("r2_top20@pooled", "r2_top20@own", "pearson_all@centroid", "rmse_all@own", "pearson_all@plate")
COMBINERS = (
    "inverse_mse",
    "simplex",
    "greedy_mse",
    "greedy_r2",
    "nonneg",
    "global_ridge",
    "direct_pooled",
    "direct_signed",
)
KINDS: dict[str, dict[str, Any]] = {
    "a reader among honest models": {"errors": (0.8, 0.9, 1.0), "readers": ((2.5, 0.9),)},
    "every model reads a little": {"errors": (), "readers": ((0.8, 0.3), (0.9, 0.5), (1.0, 0.8))},
    "readers that know nothing": {"errors": (0.8, 0.9), "readers": ((None, 0.8), (None, 1.0))},
    "no reader, strong plates": {"errors": (0.8, 0.85, 0.9, 1.0), "readers": ()},
    "weak plates": {"errors": (0.8, 0.9, 1.0), "readers": ((1.5, 0.9),), "plate": 0.15},
}


def world(kind: str, seed: int) -> dict[str, Any]:
    """Arrays of one world; ``effect`` is noise-free, ``folds`` -1 on test rows."""
    recipe = KINDS[kind]
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    n_drugs, n_plates = DEVELOPMENT + TEST, 12
    drug = np.repeat(np.arange(n_drugs), 2)
    plate = np.concatenate([rng.permutation(n_plates)[:2] for _ in range(n_drugs)])
    strength = rng.gamma(2.0, 0.25, (n_drugs, 1))
    effect = (strength * (rng.normal(0, 1, (n_drugs, 6)) @ rng.normal(0, 1, (6, GENES))) / 2.5)[drug]
    base = rng.normal(8, 1, GENES)
    shift = (recipe.get("plate", 0.45) * rng.normal(0, 1, (n_plates, 4)) @ rng.normal(0, 1, (4, GENES)) / 2)[plate]
    wells = rng.normal(0, 0.35, (n_plates, 6, GENES))[plate, rng.integers(0, 6, len(plate))]
    control = base + shift + wells
    treated = base + shift + effect + rng.normal(0, 0.35, effect.shape)
    size = effect.std()
    predictions = {}
    for m, error in enumerate(recipe["errors"]):
        seen = effect + error * size * rng.normal(0, 1, (n_drugs, GENES))[drug]
        predictions[f"honest{m}"] = base + 0.6 * seen
    for m, (error, share) in enumerate(recipe["readers"]):
        seen = 0.0 if error is None else effect + error * size * rng.normal(0, 1, (n_drugs, GENES))[drug]
        predictions[f"reader{m}"] = base + 0.6 * seen + share * (control - base)
    folds = np.where(drug < DEVELOPMENT, drug % 3, -1)
    return {
        "predictions": {k: v.astype(np.float32) for k, v in predictions.items()},
        "treated": treated,
        "control": control,
        "effect": effect,
        "base": base,
        "folds": folds,
        "drug": np.array([f"d{d:03d}" for d in drug]),
        "plate": np.array([f"P{p:02d}" for p in plate]),
    }


def source_of(w: dict[str, Any], rows: Any, role: str) -> ArraySource:
    fold = [None if f < 0 else int(f) for f in w["folds"][rows]]
    return ArraySource(
        {m: p[rows] for m, p in w["predictions"].items()},
        w["treated"][rows],
        w["control"][rows],
        folds=fold,
        perturbation=w["drug"][rows],
        role=role,
        obs=pd.DataFrame({"plate": w["plate"][rows]}),
    )


def judge(kind: str, seed: int) -> list[dict[str, Any]]:
    """Readings of every combination with and without the view within plates, and its agreement with the effect."""
    w = world(kind, seed)
    development, test = source_of(w, w["folds"] >= 0, "development"), source_of(w, w["folds"] < 0, "test")
    references = References.collect(development)
    reduction = reduce_blocks(development, references, k=80)
    nested = fit_nested(COMBINERS, reduction, source=development, references=references)
    known = references.with_controls_of(test)
    table = score(test, nested.final_combines(), known, metrics=METRICS)
    kinds: dict[str, Any] = dict.fromkeys(table.names, "combiner")
    kinds |= dict.fromkeys(w["predictions"], "base") | {"no_change": "reference"}
    setting, resampling = Setting(kinds), GroupResampling(seed, resamples=400)
    best = best_single_of(table, setting)
    after = decompositions_of(table, setting, resampling, best=best)
    keep = [i for i, m in enumerate(table.metrics) if m != "pearson_all@plate"]
    less = type(table)(
        table.samples,
        table.names,
        tuple(table.metrics[i] for i in keep),
        table.values_by_name[:, keep],
        table.predicted,
    )
    before = decompositions_of(less, setting, resampling, best=best)
    agree = agreement(w, nested, references)
    return [
        {
            "kind": kind,
            "world": seed,
            "name": n,
            "before": before[n].reading,
            "after": after[n].reading,
            "less": agree[n] < agree[best],
            "truth": agree[n] - agree[best],
        }
        for n in nested.names
        if n in after and n in agree
    ]


def agreement(w: dict[str, Any], nested: Any, references: References) -> dict[str, float]:
    """Mean correlation of prediction minus base with the noise-free effect, over test rows."""
    rows = w["folds"] < 0
    given = {m: p[rows] for m, p in w["predictions"].items()}
    control = w["control"][rows].astype(np.float32)
    answers = {
        n: combine_arrays(nested.final[n], given, control, references=references, cell_line=None) for n in nested.names
    }
    found = {}
    for name, out in {**given, **answers}.items():
        p, t = out - w["base"], w["effect"][rows]
        p, t = p - p.mean(1, keepdims=True), t - t.mean(1, keepdims=True)
        found[name] = float(((p * t).sum(1) / np.sqrt((p**2).sum(1) * (t**2).sum(1) + 1e-12)).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=120)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    started, rows, kinds = time.perf_counter(), list[dict[str, Any]](), list(KINDS)
    for i in range(args.worlds):
        if time.perf_counter() - started > 60 * args.minutes:
            break
        rows += judge(kinds[i % len(kinds)], FIRST_SEED + i // len(kinds))
    frame = pd.DataFrame(rows)
    print(f"{frame[['kind', 'world']].drop_duplicates().shape[0]} worlds, {len(frame)} combinations\n")
    print("| worlds | real gains before | of them false | real gains with the view | of them false | 95 % bound |")
    print("|---|---|---|---|---|---|")
    for kind, part in [*frame.groupby("kind", sort=False), ("all", frame)]:
        b, a = part[part.before == "win"], part[part.after == "win"]
        bad = int(a.less.sum())
        bound = float(stats.beta.ppf(0.95, bad + 1, len(a) - bad)) if len(a) > bad else 1.0
        print(f"| {kind} | {len(b)} | {int(b.less.sum())} | {len(a)} | {bad} | {100 * bound:.1f} % |")


if __name__ == "__main__":
    main()
