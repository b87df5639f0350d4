"""Does a 95 % interval cover in 95 % of worlds, and is nothing claimed where nothing is to be claimed?

Small test sets with known truth: models whose per-sample scores share what is hard about a sample, groups of very
unequal size whose samples are alike, and an ensemble of the models. Compares ways to put an interval on "ensemble minus
best single model" (truth: the gain) and on a plain paired difference.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py --worlds 1000 --seed 11 > calibration.txt
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from pertstack._stats.estimate import Method
from pertstack._stats.group_sums import GroupSums, resample
from pertstack._stats.intervals import difference_to_best, difference_to_fixed

Array = np.ndarray[Any, Any]
Noise = Literal["plain", "heavy", "skewed"]


@dataclass(frozen=True)
class World:
    """``gaps``: how far each model is behind the best, in score. ``gain``: ensemble minus best."""

    name: str
    n_groups: int
    gaps: tuple[float, ...]
    gain: float = 0.0
    missing: float = 0.0  # share of undefined values, per model
    noise: Noise = "plain"
    equal_sizes: bool = False
    near_copies: bool = False  # models share half of their own deviations


DOMINANT = (0.0, 0.03, 0.035, 0.04, 0.06, 0.1)
CLOSE = (0.0, 0.003, 0.006, 0.01, 0.02, 0.05)
EQUAL = (0.0,) * 6
KINDS = (("one dominant model", DOMINANT), ("close models", CLOSE), ("six equal models", EQUAL))
WORKED_ON = (
    *(World(f"{name}, {c} groups", c, gaps) for c in (9, 16, 40, 150) for name, gaps in KINDS),
    World("gain 0.01, one dominant model, 150 groups", 150, DOMINANT, gain=0.01),
    World("gain 0.01, close models, 150 groups", 150, CLOSE, gain=0.01),
    World("10 % undefined, one dominant model, 40 groups", 40, DOMINANT, missing=0.1),
)
"""The worlds that were looked at while the method was made (with other seeds)."""
FRESH = (
    World("three models, two tied, 25 groups", 25, (0.0, 0.0, 0.02)),
    World("twelve models, pairs, 60 groups", 60, (0.0, 0.0, 0.01, 0.01, 0.02, 0.02, 0.03, 0.03, 0.05, 0.05, 0.1, 0.1)),
    World("twelve equal models, 60 groups", 60, (0.0,) * 12),
    World("two models, gap 0.01, 100 groups", 100, (0.0, 0.01)),
    World("heavy tails, close models, 30 groups", 30, CLOSE, noise="heavy"),
    World("heavy tails, one dominant model, 80 groups", 80, DOMINANT, noise="heavy"),
    World("skewed deviations, close models, 60 groups", 60, CLOSE, noise="skewed"),
    World("one leader, five near-copies 0.02 behind, 60 groups", 60, (0.0, *(0.02,) * 5), near_copies=True),
    World("equal sizes, gaps 0.008 apart, 12 groups", 12, (0.0, 0.008, 0.016, 0.024), equal_sizes=True),
    World("heavy tails, equal models, 7 groups", 7, (0.0,) * 4, noise="heavy"),
)
"""Worlds of other shapes, not looked at before the method was fixed."""


def simulate(world: World, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Scores of the models and, last, of the ensemble (M + 1, n); groups (n,); scores of the models out of fold (M,).

    Group sizes: 1 + geometric, one group in ten with 5 to 30 more. The ensemble's own deviations are a mean of the
    models', so it is closest to those it is made of; its expectation is the best model's plus the gain.
    """
    n_groups, mean = world.n_groups, -np.asarray(world.gaps)
    size = 1 + rng.geometric(0.25, n_groups) + (rng.random(n_groups) < 0.1) * rng.integers(5, 31, n_groups)
    if world.equal_sizes:
        size[:] = 6
    group = np.repeat(np.arange(n_groups), size)
    n, m = len(group), len(mean)
    hard = (rng.gamma(2, 0.1, n_groups) - 0.2)[group] + rng.normal(0, 0.1, n)
    own = _deviations(world.noise, (m, n_groups), rng)
    if world.near_copies:
        own[1:] = np.sqrt(0.5) * (own[1:] + own[[1]])
    own = own[:, group] + rng.normal(0, 0.08, (m, n))
    weight = rng.dirichlet(np.full(m, 2.0))
    mixed = weight @ own + (rng.normal(0, 0.02, n_groups))[group] + rng.normal(0, 0.03, n)
    values = np.concatenate([mean[:, None] + hard + own, (mean.max() + world.gain + hard + mixed)[None]])
    values[rng.random(values.shape) < world.missing] = np.nan
    return values, group, mean + rng.normal(0, 0.01, m)


def _deviations(noise: Noise, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """What the samples of a group have in common, per model; mean 0."""
    if noise == "heavy":
        return np.asarray(rng.standard_t(3, shape) * 0.03)
    if noise == "skewed":
        return np.asarray((rng.exponential(1.0, shape) - 1.0) * 0.04)
    return np.asarray(rng.standard_t(5, shape) * 0.03)


Bounds = tuple[float, float, float]  # low, high, target
FIXED: tuple[Method, ...] = ("auto", "bootstrap_t", "sign_flips", "wild_rademacher", "wild_webb", "percentile", "bca")


def shipped(world: World, rng: np.random.Generator, resamples: int) -> dict[str, Bounds]:
    """Ensemble minus the best single model, whichever that is."""
    values, group, _ = simulate(world, rng)
    m = len(values) - 1
    best = difference_to_best(values, np.arange(m + 1) < m, group, rng=rng, resamples=resamples, rows=[m])[0]
    return {"`difference_to_best`": (best.lo, best.hi, world.gain)}


def usual(world: World, rng: np.random.Generator, resamples: int) -> dict[str, Bounds]:
    """Usual recipes: best model chosen inside each resample, with its bias corrected, and chosen once on the test."""
    values, group, _ = simulate(world, rng)
    m, target = len(values) - 1, world.gain
    sums = GroupSums.of(values, group)
    draws = resample(sums, resamples, rng).means
    d = draws[:, m] - np.nanmax(draws[:, :m], axis=1)
    value = sums.means()[m] - np.nanmax(sums.means()[:m])
    lo, hi = np.quantile(d, [0.025, 0.975])
    z = stats.norm.ppf(np.clip(np.mean(d < value), 1 / resamples, 1 - 1 / resamples))
    bc = np.quantile(d, stats.norm.cdf(2 * z + stats.norm.ppf([0.025, 0.975])))
    picked = int(np.nanargmax(sums.means()[:m]))
    naive = np.quantile(draws[:, m] - draws[:, picked], [0.025, 0.975])
    return {
        "best inside each resample, percentile": (lo, hi, target),
        "the same, bias-corrected": (bc[0], bc[1], target),
        "best chosen once on the test, percentile": (naive[0], naive[1], target),
    }


def fixed(world: World, rng: np.random.Generator, resamples: int) -> dict[str, Bounds]:
    """Ensemble minus the model that looked best out of fold, by every named method."""
    values, group, oof = simulate(world, rng)
    m, pick = len(values) - 1, int(np.argmax(oof))
    target = world.gain + world.gaps[pick]
    found: dict[str, Bounds] = {}
    for method in FIXED:
        if world.n_groups > 16 and method in ("sign_flips", "wild_rademacher", "wild_webb"):
            continue
        e = difference_to_fixed(values[m], values[pick], group, rng=rng, resamples=resamples, method=method)
        found["default" if method == "auto" else method] = (e.lo, e.hi, target)
    return found


def table(
    worlds: tuple[World, ...],
    compare: Callable[[World, np.random.Generator, int], dict[str, Bounds]],
    seed: list[int],
    n_worlds: int,
    resamples: int,
    only: str = "",
) -> None:
    """One line per world and method, as Markdown."""
    print("| world | method | coverage | lo > truth | hi < truth | claims a gain | median width |")
    print("|---|---|---|---|---|---|---|")
    for number, world in enumerate(worlds):
        if only not in world.name:
            continue
        rng, rows = np.random.default_rng([*seed, number]), defaultdict(list)
        for _ in range(n_worlds):
            for method, bounds in compare(world, rng, resamples).items():
                rows[method].append(bounds)
        for method, found in rows.items():
            lo, hi, target = np.array(found).T
            above, below, claims = np.mean(lo > target + 1e-12), np.mean(hi < target - 1e-12), np.mean(lo > 0)
            numbers = f"{1 - above - below:.3f} | {above:.3f} | {below:.3f} | {claims:.3f} | {np.median(hi - lo):.4f}"
            print(f"| {world.name} | {method} | {numbers} |", flush=True)


TABLES = {
    "shipped": (WORKED_ON, shipped),
    "fresh": (FRESH, shipped),
    "usual": (WORKED_ON[:12], usual),
    "fixed": ((*WORKED_ON[:12], FRESH[4], FRESH[6], *FRESH[8:]), fixed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=600)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--tables", default=",".join(TABLES), help="which tables, of " + ", ".join(TABLES))
    parser.add_argument("--only", default="", help="worlds whose name holds this")
    arguments = parser.parse_args()
    for number, (name, (worlds, compare)) in enumerate(TABLES.items()):
        if name in arguments.tables.split(","):
            start = time.perf_counter()
            print(f"\n{name}: {arguments.worlds} worlds, {arguments.resamples} resamples, seed {arguments.seed}\n")
            table(worlds, compare, [arguments.seed, number], arguments.worlds, arguments.resamples, arguments.only)
            print(f"\n{time.perf_counter() - start:.0f} s on one core.")


if __name__ == "__main__":
    main()
