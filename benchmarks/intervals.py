"""Coverage of prediction intervals where it can be known: groups share their error, cell lines differ in noise.

Per world 120 perturbations x 2 cell lines x 3 replicates x 30 genes; cell line B is three times as noisy as A, and the
replicates of a perturbation share most of their error. Four fifths are development rows in three folds, whole
perturbations; the rest is new. Honest is at least what was promised, in each cell line.

    OMP_NUM_THREADS=1 python benchmarks/intervals.py --worlds 40
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.read_tiles import single
from pertstack.reduce.references import References
from pertstack.verdict.coverage import collect_residuals, guaranteed_coverage, measured_coverage

Array = np.ndarray[Any, Any]
GROUPS, REPLICATES, GENES, FOLDS = 120, 3, 30, 3
SPREAD = {"A": 1.0, "B": 3.0}


def draw(rng: np.random.Generator, groups: int) -> tuple[Array, dict[str, Array], Array, Array, Array]:
    """Treated profiles, one model's predictions, and perturbation, cell line and fold (NaN: new) of every row."""
    n = groups * REPLICATES
    number = np.tile(np.repeat(np.arange(groups), REPLICATES), len(SPREAD))
    line = np.repeat(list(SPREAD), n)
    scale = np.array([SPREAD[x] for x in line])[:, None]
    shared = rng.normal(size=(len(SPREAD), groups, GENES)).repeat(REPLICATES, axis=1).reshape(-1, GENES)
    error = scale * (shared + 0.3 * rng.normal(size=shared.shape))
    treated = rng.normal(size=error.shape)
    fold = np.where(number < 0.8 * groups, number % FOLDS, np.nan)
    return treated, {"m": (treated + error).astype(np.float32)}, number, line, fold


def coverage(seed: int, level: float, groups: int) -> dict[str, float]:
    """Share of new values inside their intervals, by cell line."""
    treated, predictions, number, line, fold = draw(np.random.default_rng(seed), groups)
    perturbation = np.array([f"d{g}" for g in number])
    zero = np.zeros(treated.shape, dtype=np.float32)

    def source(role: str) -> ArraySource:
        return ArraySource(predictions, treated.astype(np.float32), zero, fold, perturbation, line, role=role)

    references = References.collect(source("development"))
    conformal = collect_residuals(source("development"), single("m"), references, seed=seed)
    found = measured_coverage(source("test"), single("m"), references, conformal=conformal, level=level)
    return dict(zip(found["cell_line"], found["coverage"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=40)
    args = parser.parse_args()
    print("| promised | perturbations | line A | line B | proven for CV+ |")
    print("|---|---|---|---|---|")
    for level in (0.8, 0.9, 0.95):
        for groups in (30, 120):
            found = [coverage(s, level, groups) for s in range(args.worlds)]
            cells = []
            for name in SPREAD:
                values = np.array([f[name] for f in found])
                cells.append(f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}")
            proven = guaranteed_coverage(level, int(0.8 * groups), FOLDS)
            print(f"| {level} | {groups} | {' | '.join(cells)} | {proven:.3f} |")


if __name__ == "__main__":
    main()
