"""Design section 8, first experiment: what combining does to a dominant model, in a world whose effects are known.

The models are made, not fitted, so that what each knows and how it errs is written down. One model knows most of the
effect and is *loud*: it adds errors of its own on genes that the drug does not move. The others know less and are quiet
there; three of them are near-copies with one common error, which add their effect to the sample's own control, as
networks that predict a change do. Squared error over all genes likes the quiet ones; the metric looks at the top genes.
Drugs of the test are new to the weights.

``agreement`` is R2 Top-20 against the noise-free effect: of the prediction minus the sample's own control (as the
canonical metric, the truth alone without noise), and of the prediction minus the pooled control.

    OMP_NUM_THREADS=1 python benchmarks/dominant.py --seeds 10     # the table
    OMP_NUM_THREADS=1 python benchmarks/dominant.py --map          # where it holds
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import pertstack as ps
from pertstack.reduce.metrics import parse_metrics, score_rows
from pertstack.stacking.combiners.global_weights.direct import DirectOwn
from pertstack.stacking.registry import make_combiner
from pertstack.verdict.gain.decompose import decompose
from pertstack.verdict.resampling import GroupResampling

Array = np.ndarray[Any, Any]
COMBINERS = ("best_single", "mean", "simplex", "global_ridge", "gene_ridge", "direct_own", "direct_pooled")
COLUMNS = ("own", "pooled", "agreement, own", "agreement, pooled", "RMSE")


@dataclass(frozen=True)
class World:
    """Sizes, noise and the parts of the effect; each part is a low-rank field over drugs and responding genes."""

    genes: int = 300
    drugs: int = 120  # the last third is the test
    per_drug: int = 6
    responding: float = 0.3  # share of genes that a drug moves, other ones for each drug
    noise: float = 0.3  # of treated and of control, each
    common: float = 0.2  # shift that all drugs share, on half of the genes
    known: float = 0.8  # part of the effect that every model knows
    dominant_only: float = 0.5
    weak_only: float = 0.2
    unknown: float = 0.8
    loud: float = 0.9  # error of the dominant model on genes that do not respond
    gene_scale: float = 0.0  # log-s.d. of each weak model's scale error by gene; half of it for the dominant model
    follow: float = 0.6  # how far the dominant model follows the sample's own control; 1 adds its effect to it
    weak_follow: float = 1.0  # the same for the three near-copies


@dataclass(frozen=True)
class Study:
    """One draw of a world."""

    drug: Array  # (n,)
    effect: Array  # (n, genes) noise-free
    control: Array
    treated: Array
    predictions: dict[str, Array]


def draw(world: World, seed: int) -> Study:
    """Effects, measurements and six models."""
    rng = np.random.default_rng(seed)
    shape, drug = (world.drugs, world.genes), np.repeat(np.arange(world.drugs), world.per_drug)
    responds = rng.random(shape) < world.responding
    basal = rng.normal(8, 2, world.genes)
    common = world.common * rng.standard_t(4, world.genes) * (rng.random(world.genes) < 0.5)

    def part(size: float) -> Array:
        field = rng.normal(size=(world.drugs, 5)) @ rng.normal(size=(5, world.genes)) / np.sqrt(5)
        return size * field * responds

    known, more, other, unknown = map(part, (world.known, world.dominant_only, world.weak_only, world.unknown))
    effect = (common + known + more + other + unknown)[drug]
    control, treated = (basal + rng.normal(0, world.noise, (len(drug), world.genes)) for _ in range(2))

    def model(mean: Array, scale_error: float, error: Array, follow: float = 0.0) -> Array:
        scale = np.exp(rng.normal(0, scale_error, world.genes))
        return np.asarray(basal + (scale * mean + error)[drug] + follow * (control - basal))

    loud = rng.normal(size=shape) * np.where(responds, 0.2, world.loud)
    predictions = {"dominant": model(common + known + more, world.gene_scale / 2, loud, world.follow)}
    shared = 0.5 * rng.normal(size=shape) * responds
    for name in ("second", "third", "fourth"):
        predictions[name] = model(common + known + other, world.gene_scale, shared, world.weak_follow)
    predictions["shrunk"] = model(common + known / 2, world.gene_scale, 0.1 * rng.normal(size=shape) * responds)
    predictions["constant"] = np.repeat((basal + common)[None], len(drug), axis=0)
    return Study(drug, effect, control, treated + effect, predictions)


def judge(prediction: Array, study: Study, pooled: Array, centroid: Array) -> dict[str, Array]:
    """Per-sample values of the columns, and of the panel that the decomposition reads."""
    metrics = parse_metrics(["r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own"])
    references: Any = {"own": study.control, "pooled": pooled, "centroid": centroid}
    own, coupled_free, centred, rmse = score_rows(prediction, study.treated, references, metrics=metrics)[0]
    exact = [
        score_rows(prediction, reference + study.effect, {"own": reference}, metrics=metrics[:1])[0][0]
        for reference in (study.control, np.broadcast_to(pooled, study.control.shape))
    ]
    return {
        "own": own,
        "pooled": coupled_free,
        "agreement, own": exact[0],
        "agreement, pooled": exact[1],
        "RMSE": rmse,
        "centroid": centred,
    }


def experiment(world: World, seed: int) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Means on the test drugs by name, and how the verdict reads each combination's gain on the pooled control."""
    whole = draw(world, seed)
    test = whole.drug >= 2 * world.drugs // 3
    development = Study(
        *(v[~test] for v in (whole.drug, whole.effect, whole.control, whole.treated)),
        {k: v[~test] for k, v in whole.predictions.items()},
    )
    held = Study(
        *(v[test] for v in (whole.drug, whole.effect, whole.control, whole.treated)),
        {k: v[test] for k, v in whole.predictions.items()},
    )
    combiners = [DirectOwn(signed=True) if name == "direct_own" else make_combiner(name) for name in COMBINERS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the probes accuse made models of knowing the truth, and rightly
        fit = ps.stack(
            development.predictions,
            treated=development.treated,
            control=development.control,
            folds=development.drug % 3,
            perturbation=development.drug.astype(str),
            combiners=combiners,
            seed=seed,
        )
    pooled, centroid = fit.references.pooled("all"), fit.references.centroid("all")
    found = {}
    for name in COMBINERS:
        prediction = fit.predict(held.predictions, control=held.control, combiner=name)
        found[name] = judge(prediction, held, pooled, centroid)
    means = {name: {c: float(np.nanmean(v[c])) for c in COLUMNS} for name, v in found.items()}
    return means, {name: _reading(found, name, held.drug, seed) for name in COMBINERS[1:]}


def _reading(found: dict[str, dict[str, Array]], name: str, groups: Array, seed: int) -> str:
    panel = {
        "r2_top20@own": "own",
        "r2_top20@pooled": "pooled",
        "pearson_all@centroid": "centroid",
        "rmse_all@own": "RMSE",
    }
    pairs = {metric: (found[name][c], found["best_single"][c]) for metric, c in panel.items()}
    compare = GroupResampling(seed).compare
    return decompose(
        name, "best_single", pairs, primary="r2_top20@pooled", groups=groups.astype(str), compare=compare
    ).reading


def table(world: World, seeds: range) -> str:
    """Means of each column and differences to the best single model with their standard errors over seeds."""
    draws = [experiment(world, seed) for seed in seeds]
    lines = [f"| | {' | '.join(COLUMNS)} | reading (seeds) |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in COMBINERS:
        cells = []
        for column in COLUMNS:
            values = np.array([means[name][column] for means, _ in draws])
            step = values - np.array([means["best_single"][column] for means, _ in draws])
            error = step.std(ddof=1) / np.sqrt(len(step)) if len(step) > 1 else np.nan
            cells.append(
                f"{values.mean():.3f}" + ("" if name == "best_single" else f" ({step.mean():+.3f} ± {error:.3f})")
            )
        said = Counter(readings[name] for _, readings in draws if name in readings)
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(f'{k} {n}' for k, n in said.most_common())} |")
    return "\n".join(lines)


def region(world: World, seeds: range) -> str:
    """Differences to the best single model as the models' faults are turned up and down, one at a time and together."""
    shown = (
        ("simplex", "own"),
        ("gene_ridge", "own"),
        ("direct_own", "own"),
        ("direct_own", "agreement, pooled"),
        ("direct_pooled", "own"),
        ("direct_pooled", "agreement, pooled"),
    )
    cells = [(loud, 0.0, *follow) for loud in (0.1, 0.5, 0.9) for follow in ((0.6, 1.0), (0.0, 0.0))]
    cells += [(loud, 0.6, 0.6, 1.0) for loud in (0.1, 0.9)]
    lines = ["| loud | gene scale | follow | " + " | ".join(f"{n}: {c}" for n, c in shown) + " |", "|---" * 9 + "|"]
    for loud, scale, follow, weak in cells:
        there = replace(world, loud=loud, gene_scale=scale, follow=follow, weak_follow=weak)
        draws = [experiment(there, seed)[0] for seed in seeds]
        steps = [f"{np.mean([m[n][c] - m['best_single'][c] for m in draws]):+.3f}" for n, c in shown]
        lines.append(f"| {loud} | {scale} | {follow}, {weak} | {' | '.join(steps)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--map", action="store_true", help="how the models err, turned up and down, 2 seeds a row")
    args = parser.parse_args()
    seeds = range(args.first, args.first + (2 if args.map else args.seeds))
    print(region(World(), seeds) if args.map else table(World(), seeds))


if __name__ == "__main__":
    main()
