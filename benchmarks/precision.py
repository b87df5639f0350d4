"""What storing values in 16 bits does to every metric and weight: the same data and predictions in 32 and in 16 bits.

    python benchmarks/precision.py                a minute: 1,200 samples x 978 genes, three models

The world is simulated (``pertstack simulate``); predictions are the true effect, shrunken, with an error of their own,
and added as files would be, so that both studies get the same numbers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import anndata
import numpy as np

import pertstack as ps
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.reduce.scoring.score_table import ScoreTable

ERRORS = {"near": 0.3, "middle": 0.45, "far": 0.6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--genes", type=int, default=978)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = SimulationConfig(samples=options.samples, genes=options.genes, seed=options.seed)
        simulate_to_file(home / "data.h5ad", config)
        studies = {bits: judged(home, bits, options.seed) for bits in (32, 16)}
        sizes = [sum(r.n_bytes for r in s.predictions.records()) for s in studies.values()]
        print(f"{options.samples:,} samples x {options.genes:,} genes; layers {sizes[1] / sizes[0]:.2f} of the bytes\n")
        say_scores(studies)
        say_weights(studies)


def judged(home: Path, bits: int, seed: int) -> ps.Study:
    """A study of the data with the models added, to its verdict."""
    data = anndata.read_h5ad(home / "data.h5ad")
    study = ps.Study.create(home / str(bits), data=home / "data.h5ad", precision=bits)
    for m, (name, error) in enumerate(ERRORS.items()):
        noise = np.random.default_rng([seed, m]).normal(0, error, data.shape)
        values = (data.layers["control"] + 0.8 * data.layers["effect"] + noise).astype(np.float32)
        study.add(name, anndata.AnnData(values, obs=data.obs[[]], var=data.var[[]]), fitted_on="plan", scale="treated")
    study.stack()
    study.verdict()
    return study


def say_scores(studies: dict[int, ps.Study]) -> None:
    print("| metric | scores | undefined in one only | off by more than 0.001 | by 0.01 | a name's mean, at most |")
    print("|---|---|---|---|---|---|")
    one, other = (ScoreTable.load(s.folder.path("results", "test_scores.npz")) for s in studies.values())
    for m, metric in enumerate(one.metrics):
        a, b = one.values_by_name[:, m].astype(float), other.values_by_name[:, m].astype(float)
        both = np.isfinite(a) & np.isfinite(b)
        off = np.abs(a - b)[both]
        means = [abs(x[k].mean() - y[k].mean()) for x, y, k in zip(a, b, both, strict=True) if k.any()]
        cells = (both.sum(), int((np.isfinite(a) != np.isfinite(b)).sum()))
        shares = [f"{100 * (off > size).mean():.2f} %" for size in (0.001, 0.01)]
        print(f"| `{metric}` | {cells[0]:,} | {cells[1]} | {shares[0]} | {shares[1]} | {max(means):.5f} |")


def say_weights(studies: dict[int, ps.Study]) -> None:
    one, other = (np.load(s.folder.path("results", "weights.npz")) for s in studies.values())
    print("\n| combiner | weights | largest | off by, at most | root mean square |")
    print("|---|---|---|---|---|")
    for name in sorted(n for n in one.files if n.endswith("/coefficients") and "@" not in n):
        off = np.abs(one[name] - other[name])
        numbers = f"{np.abs(one[name]).max():.3f} | {off.max():.5f} | {np.sqrt((off**2).mean()):.6f}"
        print(f"| {name.partition('/')[0]} | {one[name].size:,} | {numbers} |")


if __name__ == "__main__":
    main()
