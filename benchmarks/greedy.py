"""Greedy selection on R2 Top-20: quadratic forms from slices against an equal plain loop over rows. One thread.

    python benchmarks/greedy.py            # about a minute
    python benchmarks/greedy.py --quick

Both start from predictions and truth in memory. The loop is the tidy numpy version (each sample's top genes found
once, one vectorised correlation per candidate), not a straw man. Ratios of CPU time within one run; the counts must
be identical.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
from typing import Any

import numpy as np
from claims import Claim, cpu, machine, table

from pertstack.reduce.sums.slices import TopSlices
from pertstack.stacking.combiners.global_weights.greedy_r2 import greedy_r2_counts
from pertstack.stacking.solvers.top_gene import top_gene_sums

MODELS, TOP, ROUNDS = 10, 20, 50


def from_slices(x: Any, t: Any, top: Any) -> Any:
    """What the combiner does once the one pass has left its slices."""
    n = len(t)
    y = np.take_along_axis(t, top, axis=1)
    delta = np.take_along_axis(x, top[None], axis=2).transpose(1, 0, 2)
    slices = TopSlices(top.astype(np.int32), y, np.zeros((n, TOP), np.float32), delta)
    return greedy_r2_counts(top_gene_sums(slices, "own", TOP), ROUNDS)


def by_loop(x: Any, t: Any, top: Any) -> Any:
    """Each candidate of each round is mixed over all genes and scored on the top genes."""
    truth = np.take_along_axis(t, top, axis=1).astype(np.float64)
    truth -= truth.mean(axis=1, keepdims=True)

    def value(mixed: Any) -> float:
        p = np.take_along_axis(mixed, top, axis=1).astype(np.float64)
        p -= p.mean(axis=1, keepdims=True)
        r = (p * truth).sum(axis=1) / np.sqrt((p**2).sum(axis=1) * (truth**2).sum(axis=1))
        return float(np.mean(r * np.abs(r)))

    total, taken, best, most = np.zeros_like(t), [], [], -np.inf
    for r in range(1, ROUNDS + 1):
        values = [value((total + x[m]) / r) for m in range(MODELS)]
        taken.append(int(np.argmax(values)))
        total += x[taken[-1]]
        if max(values) > most + 1e-12:
            best, most = list(taken), max(values)
    return np.bincount(best, minlength=MODELS)


def claims(quick: bool = False) -> list[Claim]:
    n, genes = (500 if quick else 2_000), 1_000
    rng = np.random.default_rng(0)
    t = rng.normal(0, 1, (n, genes)).astype(np.float32)
    common = rng.normal(0, 0.5, (n, genes)).astype(np.float32)
    x = np.stack([t + common + rng.normal(0, 0.6 + 0.1 * m, (n, genes)) for m in range(MODELS)]).astype(np.float32)
    top = np.argsort(-np.abs(t), axis=1, kind="stable")[:, :TOP]
    ours, counts = cpu(lambda: from_slices(x, t, top))
    peer, theirs = cpu(lambda: by_loop(x, t, top))
    np.testing.assert_array_equal(counts, theirs)
    size = f"{n:,} samples x {genes:,} genes, {MODELS} models, {ROUNDS} rounds; {ours:.2f} s CPU, loop {peer:.2f} s"
    remark = f"{size}; identical counts {counts.tolist()}"
    return [Claim(f"greedy on R2 Top-{TOP} / equal plain loop", peer / ours, "{:.0f} times", 20, remark=remark)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows")
    options = parser.parse_args()
    before = machine()
    print(f"{before}\n\n{table(claims(options.quick))}")


if __name__ == "__main__":
    main()
