"""How often does each probe notice a model that saw part of the rows it is judged on, and how often does it cry wolf?

Simulates a screen with two replicates per perturbation and three folds by perturbation, and fits models on the rows
outside each fold plus a share of the rows inside it (0, 10, 50 or 100 %). A share of 100 % is a model fitted on
everything.

    OMP_NUM_THREADS=1 python benchmarks/probe_power.py --worlds 100
    OMP_NUM_THREADS=1 python benchmarks/probe_power.py --worlds 100 --explained
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from pertstack.verdict.probes.of_folds import fold_fingerprint, oof_against_fit, permuted_truth
from pertstack.verdict.probes.of_noise import replicate_noise, too_good

N_GENES, N_FEATURES, N_FOLDS = 150, 20, 3
SHARES = (0.0, 0.1, 0.5, 1.0)
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def simulate(n_perturbations: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Two replicates per perturbation; effects half driven by features; noise in control and treated."""
    group = np.repeat(np.arange(n_perturbations), 2)
    features = rng.normal(size=(n_perturbations, N_FEATURES))
    seen = features @ rng.normal(size=(N_FEATURES, N_GENES)) / np.sqrt(N_FEATURES)
    effect = 0.35 * seen + 0.35 * rng.normal(size=(n_perturbations, N_GENES))
    mean = rng.normal(8, 2, N_GENES)
    n = len(group)
    control = mean + 0.5 * rng.normal(size=(n, N_GENES))
    treated = mean + 0.3 * rng.normal(size=N_GENES) + effect[group] + 0.5 * rng.normal(size=(n, N_GENES))
    fold = rng.permutation(np.arange(n_perturbations) % N_FOLDS)[group]
    return {"group": group, "fold": fold, "x": features[group], "control": control, "treated": treated}


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ridge regression: few parameters, hardly able to memorise."""
    centre, level = x.mean(axis=0), y.mean(axis=0)
    a = x - centre
    return level + (new - centre) @ np.linalg.solve(a.T @ a + 5.0 * np.eye(a.shape[1]), a.T @ (y - level))


def kernel(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Gaussian kernel ridge on features and control: flexible, memorises a good part of what it saw."""
    level = y.mean(axis=0)
    return level + _gauss(new, x) @ np.linalg.solve(_gauss(x, x) + 0.3 * np.eye(len(x)), y - level)


def _gauss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distance = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.exp(-distance / (2 * a.shape[1]))


def nearest(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Half the mean, half the nearest neighbour: memorises every row it saw."""
    distance = (new**2).sum(axis=1)[:, None] + (x**2).sum(axis=1) - 2 * new @ x.T
    return 0.5 * y.mean(axis=0) + 0.5 * y[np.argmin(distance, axis=1)]


MODELS: dict[str, tuple[Fit, bool]] = {
    "ridge on features": (ridge, False),
    "kernel ridge on features and control": (kernel, True),
    "nearest neighbour on features and control": (nearest, True),
}


def cross_fit(
    world: dict[str, np.ndarray], fit: Fit, with_control: bool, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions claimed as out-of-fold, and squared error per row of a fold's model on rows it was fitted on."""
    y, fold = world["treated"], world["fold"]
    inputs = (
        np.hstack([world["x"], 0.3 * (world["control"] - world["control"].mean(axis=0))])
        if with_control
        else world["x"]
    )
    claimed, fit_error, times = np.empty_like(y), np.zeros(len(y)), np.zeros(len(y))
    for k in range(N_FOLDS):
        rows = (fold != k) | (rng.random(len(y)) < share)
        predicted = fit(inputs[rows], y[rows], inputs)
        claimed[fold == k] = predicted[fold == k]
        fit_error[rows] += ((predicted - y) ** 2).mean(axis=1)[rows]
        times += rows
    return claimed, fit_error / times


def probe(
    world: dict[str, np.ndarray], fit: Fit, with_control: bool, share: float, rng: np.random.Generator
) -> dict[str, str]:
    """Severity of every probe's finding."""
    y, group, fold = world["treated"], world["group"], world["fold"]
    claimed, fit_error = cross_fit(world, fit, with_control, share, rng)
    base = np.stack([y[fold != k].mean(axis=0) for k in range(N_FOLDS)])[fold]
    oof_error, base_error = ((claimed - y) ** 2).mean(axis=1), ((base - y) ** 2).mean(axis=1)
    findings = {
        "too_good": too_good(claimed, y, group, groups=group, rng=rng),
        "replicate_noise": replicate_noise(claimed, y, world["control"], conditions=group, rng=rng),
        "fold_fingerprint": fold_fingerprint(claimed, y, fold, groups=group, rng=rng, permutations=200),
        "oof_against_fit": oof_against_fit(oof_error, fit_error, base_error, groups=group, rng=rng),
    }
    return {
        name: "not applicable" if f.code.endswith("_not_applicable") else f.severity for name, f in findings.items()
    }


def stacker_gain(world: dict[str, np.ndarray], leak: float, rng: np.random.Generator) -> Callable[[np.ndarray], float]:
    """Per-gene least squares over five useless predictions, which learns from a share of the rows it is scored on."""
    predictions = rng.normal(size=(5, *world["treated"].shape))
    keep = rng.random(len(world["fold"])) < leak

    def gain(order: np.ndarray) -> float:
        y, fold, total = world["treated"][order], world["fold"], 0.0
        for k in range(N_FOLDS):
            rows, out = (fold != k) | keep, fold == k
            level = y[fold != k].mean(axis=0)
            for gene in range(0, N_GENES, 10):
                a = predictions[:, rows, gene].T
                weight = np.linalg.lstsq(a, (y[rows] - level)[:, gene], rcond=None)[0]
                truth = (y[out] - level)[:, gene]
                total += float((truth**2).sum() - ((truth - predictions[:, out, gene].T @ weight) ** 2).sum())
        return total / len(fold)

    return gain


def explained(worlds: int, perturbations: int, seed: int) -> None:
    """What a leak is worth: share of the variation about the mean of the other folds that predictions explain."""
    print(f"| model | {' | '.join(f'{share:.0%} of the rows seen' for share in SHARES)} |")
    print("|---|" + "---|" * len(SHARES))
    for name, (fit, with_control) in MODELS.items():
        found = []
        for share in SHARES:
            rng = np.random.default_rng([seed, len(name), int(100 * share), 1])
            shares = []
            for _ in range(worlds):
                world = simulate(perturbations, rng)
                y, fold = world["treated"], world["fold"]
                base = np.stack([y[fold != k].mean(axis=0) for k in range(N_FOLDS)])[fold]
                claimed, _ = cross_fit(world, fit, with_control, share, rng)
                shares.append(1 - ((claimed - y) ** 2).sum() / ((base - y) ** 2).sum())
            found.append(f"{np.mean(shares):.3f}")
        print(f"| {name} | {' | '.join(found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--perturbations", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explained", action="store_true", help="what models explain, and no probe")
    arguments = parser.parse_args()
    if arguments.explained:
        explained(arguments.worlds, arguments.perturbations, arguments.seed)
        return
    start = time.perf_counter()
    print("| model | rows of the fold seen | too_good | replicate_noise | fold_fingerprint | oof_against_fit |")
    print("|---|---|---|---|---|---|")
    for name, (fit, with_control) in MODELS.items():
        for share in SHARES:
            rng = np.random.default_rng([arguments.seed, len(name), int(100 * share)])
            counts: dict[str, Counter[str]] = {}
            for _ in range(arguments.worlds):
                world = simulate(arguments.perturbations, rng)
                for which, severity in probe(world, fit, with_control, share, rng).items():
                    counts.setdefault(which, Counter())[severity] += 1
            cells = [cell(c, arguments.worlds) for c in counts.values()]
            print(f"| {name} | {share:.0%} | {' | '.join(cells)} |")
    print("\n| scored rows that were learned from | permuted_truth |\n|---|---|")
    for share in SHARES:
        rng = np.random.default_rng([arguments.seed, 99, int(100 * share)])
        found = Counter()
        for _ in range(max(10, arguments.worlds // 4)):
            world = simulate(arguments.perturbations, rng)
            gain = stacker_gain(world, share, rng)
            found[permuted_truth(gain, np.zeros(len(world["fold"])), rng=rng, permutations=10).severity] += 1
        print(f"| {share:.0%} | {cell(found, found.total())} |")
    print(
        f"\n{arguments.worlds} worlds of {arguments.perturbations} perturbations, {time.perf_counter() - start:.0f} s."
    )


def cell(count: Counter[str], n: int) -> str:
    """Share of findings that accuse; with the share that could not be tested."""
    accused = (count["error"] + count["warning"]) / n
    return f"{accused:.2f}" + (f" ({count['not applicable'] / n:.0%} n. a.)" if count["not applicable"] else "")


if __name__ == "__main__":
    main()
