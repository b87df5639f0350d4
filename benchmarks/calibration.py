"""Does a 95 % interval cover in 95 % of worlds, and is nothing claimed where nothing is to be claimed?

Simulates small test sets with known truth: models whose per-sample scores share what is hard about a sample, groups of
very unequal size whose samples are alike, and an ensemble of the models. Compares ways to put an interval on "ensemble
minus best single model" and on a plain paired difference.

    OMP_NUM_THREADS=1 python benchmarks/calibration.py --worlds 1000 > calibration.txt
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pertstack.verdict.inference import difference_to_best, difference_to_fixed
from pertstack.verdict.inference_sums import GroupSums, resample

LEVEL = 0.95


@dataclass(frozen=True)
class Setting:
    """One kind of world. ``gaps``: how far each model is behind the best, in score. ``gain``: ensemble minus best."""

    name: str
    n_groups: int
    gaps: tuple[float, ...]
    gain: float = 0.0
    missing: float = 0.0  # share of undefined values, per model


DOMINANT = (0.0, 0.03, 0.035, 0.04, 0.06, 0.1)
CLOSE = (0.0, 0.003, 0.006, 0.01, 0.02, 0.05)
EQUAL = (0.0,) * 6
KINDS = (("one dominant model", DOMINANT), ("close models", CLOSE), ("six equal models", EQUAL))
SETTINGS = (
    *(Setting(f"{name}, {c} groups", c, gaps) for c in (9, 16, 40, 150) for name, gaps in KINDS),
    Setting("real gain 0.01, one dominant model, 150 groups", 150, DOMINANT, gain=0.01),
    Setting("real gain 0.01, close models, 150 groups", 150, CLOSE, gain=0.01),
    Setting("10 % undefined, one dominant model, 40 groups", 40, DOMINANT, missing=0.1),
)


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the models and, last, of the ensemble (M + 1, n); groups (n,); scores of the models out of fold (M,).

    Group sizes: 1 + geometric, one group in ten with 5 to 30 more. The ensemble's own deviations are a mean of the
    models', so it is closest to those it is made of; its expectation is the best model's plus the gain.
    """
    n_groups, mean = setting.n_groups, -np.asarray(setting.gaps)
    size = 1 + rng.geometric(0.25, n_groups) + (rng.random(n_groups) < 0.1) * rng.integers(5, 31, n_groups)
    group = np.repeat(np.arange(n_groups), size)
    n, m = len(group), len(mean)
    hard = (rng.gamma(2, 0.1, n_groups) - 0.2)[group] + rng.normal(0, 0.1, n)
    own = (rng.standard_t(5, (m, n_groups)) * 0.03)[:, group] + rng.normal(0, 0.08, (m, n))
    weight = rng.dirichlet(np.full(m, 2.0))
    mixed = weight @ own + (rng.normal(0, 0.02, n_groups))[group] + rng.normal(0, 0.03, n)
    values = np.concatenate([mean[:, None] + hard + own, (mean.max() + setting.gain + hard + mixed)[None]])
    values[rng.random(values.shape) < setting.missing] = np.nan
    oof = mean + rng.normal(0, 0.01, m)
    return values, group, oof


Bounds = tuple[float, float, float]  # low, high, target


def compare(setting: Setting, rng: np.random.Generator, resamples: int) -> dict[str, Bounds]:
    """Intervals of every method in one world, with the truth each is about."""
    values, group, oof = simulate(setting, rng)
    m = len(values) - 1
    mean = -np.asarray(setting.gaps)
    found: dict[str, Bounds] = {}
    best = difference_to_best(values, np.arange(m + 1) < m, group, rng=rng, resamples=resamples, rows=[m])[0]
    found["difference_to_best (default)"] = (best.lo, best.hi, setting.gain)
    pick = int(np.argmax(oof))
    target = setting.gain - mean[pick]
    for method in ("auto", "bootstrap_t", "sign_flips", "percentile", "bca"):
        if method == "sign_flips" and setting.n_groups > 16:
            continue
        fixed = difference_to_fixed(values[m], values[pick], group, rng=rng, resamples=resamples, method=method)
        label = "default" if method == "auto" else method
        found[f"difference_to_fixed, best out of fold ({label})"] = (fixed.lo, fixed.hi, target)
    found |= resampled_best(values, group, rng, resamples, setting.gain)
    return found


def resampled_best(
    values: np.ndarray, group: np.ndarray, rng: np.random.Generator, resamples: int, target: float
) -> dict[str, Bounds]:
    """The usual recipe, best model chosen inside each resample: percentile, and with its bias corrected."""
    m = len(values) - 1
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
        "best chosen inside each resample, percentile": (lo, hi, target),
        "best chosen inside each resample, bias-corrected": (bc[0], bc[1], target),
        "best chosen once on the test, percentile": (naive[0], naive[1], target),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print("| world | method | coverage | lo > truth | hi < truth | claims a gain (lo > 0) | median width |")
    print("|---|---|---|---|---|---|---|")
    for number, setting in enumerate(s for s in SETTINGS if arguments.only in s.name):
        run(setting, arguments.worlds, arguments.resamples, np.random.default_rng([arguments.seed, number]), print)
    print(f"\n{arguments.worlds} worlds each, {arguments.resamples} resamples, seed {arguments.seed}; ", end="")
    print(f"{time.perf_counter() - start:.0f} s on one core.")


def run(setting: Setting, worlds: int, resamples: int, rng: np.random.Generator, write: Callable[[str], None]) -> None:
    """One setting: a table row per method."""
    rows: dict[str, list[Bounds]] = defaultdict(list)
    for _ in range(worlds):
        for method, bounds in compare(setting, rng, resamples).items():
            rows[method].append(bounds)
    for method, bounds in rows.items():
        lo, hi, target = np.array(bounds).T
        cover = np.mean((lo <= target + 1e-12) & (target <= hi + 1e-12))
        above, below, claims = np.mean(lo > target + 1e-12), np.mean(hi < target - 1e-12), np.mean(lo > 0)
        numbers = f"{cover:.3f} | {above:.3f} | {below:.3f} | {claims:.3f} | {np.median(hi - lo):.4f}"
        write(f"| {setting.name} | {method} | {numbers} |")


if __name__ == "__main__":
    main()
