"""The normal limit of ``_stats/versus_best_null.py``: error of both ends when the covariance is known.

M differences are normal with unit variance and equal correlation; the smallest expectation is the target. This is where
``NEARER`` and ``FARTHER`` were set: with ties the two ends together should miss in at most about 7 % of worlds, next to
ties in at least about 2 %, and with one model far ahead in 5 %.

    OMP_NUM_THREADS=1 python benchmarks/calibration_limit.py
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from scipy import stats

from pertstack._stats.versus_best_null import FARTHER, NEARER

Array = np.ndarray[Any, Any]
LEVEL = 0.95
WORLDS, DRAWS = 1024, 512


def normal(n: int, m: int, correlation: float, seed: int) -> Array:
    """(n, M) equicorrelated standard normal draws, evenly spread (Sobol)."""
    even = stats.qmc.Sobol(m, seed=seed).random(n)
    root = np.linalg.cholesky((1 - correlation) * np.eye(m) + correlation)
    return np.asarray(stats.norm.ppf(np.clip(even, 1e-6, 1 - 1e-6)) @ root.T)


def upper_ends(d: Array, noise: Array, nearer: float, farther: float) -> Array:
    """(n,) upper ends for differences d (n, M), by fixed point iteration from the most careful answer."""
    needed = stats.norm.ppf((1 + LEVEL) / 2)
    ends = np.full(len(d), np.inf)
    for _ in range(7):
        above = np.maximum(d - ends[:, None], 0.0)
        near, far = np.maximum(above - nearer, 0.0), np.where(above > 0, above + farther, 0.0)
        for i in range(len(d)):
            lower = np.mean((noise + far[i]).min(axis=1) > needed)
            ends[i] = d[i].min() + np.quantile(-(noise + near[i]).min(axis=1), LEVEL + lower)
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nearer", type=float, default=NEARER)
    parser.add_argument("--farther", type=float, default=FARTHER)
    parser.add_argument("--models", type=int, nargs="*", default=[2, 3, 6, 12])
    arguments = parser.parse_args()
    print("| models | correlation | gaps, in standard errors | lower end misses | upper end misses | coverage |")
    print("|---|---|---|---|---|---|")
    for m in arguments.models:
        for correlation in (-0.8 / (m - 1), 0.1, 0.5):
            shapes = {"none": np.zeros(m)}
            shapes |= {f"{gap}, all others": np.r_[0.0, np.full(m - 1, gap)] for gap in (1.0, 2.0, 3.0, 4.0)}
            shapes |= {"steps of 0.5": 0.5 * np.arange(m)}
            noise = normal(DRAWS, m, correlation, 6)
            for name, gaps in shapes.items():
                d = gaps + normal(WORLDS, m, correlation, 5)
                lower = np.mean(d.min(axis=1) > stats.norm.ppf((1 + LEVEL) / 2))
                upper = np.mean(upper_ends(d, noise, arguments.nearer, arguments.farther) < 0)
                print(
                    f"| {m} | {correlation:.2f} | {name} | {lower:.3f} | {upper:.3f} | {1 - lower - upper:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
