"""Search on R2 Top-20: the exact gradient from slices against CMA-ES, one thread, ratios of CPU time in one run.

    python benchmarks/direct.py            # about a minute
    python benchmarks/direct.py --quick

CMA-ES is the plain loop of Hansen's tutorial (2016, arXiv:1604.00772, weighted recombination, rank-one and rank-mu
updates, step-size control), written out below. It calls the very same value from quadratic forms, so the ratio counts
what the gradient saves and nothing else; it stops as soon as it is within 1e-7 of our value, or after 20,000 calls.
Global weights (10 numbers), then weights per gene (400 numbers), where CMA-ES gets 30 times our time and is asked
how far it came.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from claims import Claim, cpu, machine, table

from pertstack.reduce.sums.slices import TopSlices
from pertstack.stacking.combiners.global_weights.direct import maximise_top_gene
from pertstack.stacking.experimental.direct_gene import TopRows, gene_deviations
from pertstack.stacking.solvers.top_gene import top_gene_sums

MODELS, TOP, GENES = 10, 20, 40


def cma_es(loss: Callable[[Any], float], start: Any, done: Callable[[float, int], bool], seed: int = 0) -> Any:
    """Best point and loss of (mu/mu_w, lambda) CMA-ES from ``start`` until ``done(best, calls)``."""
    rng, n = np.random.default_rng(seed), len(start)
    size = 4 + int(3 * np.log(n))
    parents = size // 2
    weights = np.log(parents + 0.5) - np.log(np.arange(1, parents + 1))
    weights /= weights.sum()
    mu = 1 / (weights**2).sum()
    c_path, c_step = (4 + mu / n) / (n + 4 + 2 * mu / n), (mu + 2) / (n + mu + 5)
    c_one = 2 / ((n + 1.3) ** 2 + mu)
    c_mu = min(1 - c_one, 2 * (mu - 2 + 1 / mu) / ((n + 2) ** 2 + mu))
    damp = 1 + 2 * max(0.0, np.sqrt((mu - 1) / (n + 1)) - 1) + c_step
    expected = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    mean, step, cov = start.copy(), 0.2, np.eye(n)
    path, step_path, values, vectors = np.zeros(n), np.zeros(n), np.ones(n), np.eye(n)
    best, least, calls, turn = start.copy(), loss(start), 1, 0
    while not done(least, calls):
        if turn % max(1, n // 50) == 0:
            values, vectors = np.linalg.eigh(cov)
            values = np.sqrt(np.maximum(values, 1e-20))
        turn += 1
        drawn = (rng.normal(size=(size, n)) * values) @ vectors.T
        points = mean + step * drawn
        found = np.array([loss(p) for p in points])
        calls += size
        order = np.argsort(found)[:parents]
        if found[order[0]] < least:
            best, least = points[order[0]].copy(), float(found[order[0]])
        move = weights @ drawn[order]
        mean = mean + step * move
        white = vectors @ ((vectors.T @ move) / values)
        step_path = (1 - c_step) * step_path + np.sqrt(c_step * (2 - c_step) * mu) * white
        long = np.linalg.norm(step_path) / np.sqrt(1 - (1 - c_step) ** (2 * turn)) < (1.4 + 2 / (n + 1)) * expected
        path = (1 - c_path) * path + long * np.sqrt(c_path * (2 - c_path) * mu) * move
        rank_mu = (weights[:, None] * drawn[order]).T @ drawn[order]
        keep = 1 - c_one - c_mu + (1 - long) * c_one * c_path * (2 - c_path)
        cov = keep * cov + c_one * np.outer(path, path) + c_mu * rank_mu
        step *= np.exp(c_step / damp * (np.linalg.norm(step_path) / expected - 1))
    return best, least, calls


def make_slices(rng: np.random.Generator, n: int, n_genes: int) -> TopSlices:
    """Top genes of n samples; models share an error, and each is good on some genes."""
    genes = np.stack([rng.choice(n_genes, TOP, replace=False) for _ in range(n)]).astype(np.int32)
    y = rng.normal(0, 1, (n, TOP)).astype(np.float32)
    skill = rng.uniform(0.3, 1.5, (n_genes, MODELS))[genes].transpose(0, 2, 1)
    common = rng.normal(0, 0.5, (n, TOP))
    delta = y[:, None] + common[:, None] + skill * rng.normal(0, 1, (n, MODELS, TOP))
    return TopSlices(genes, y, np.zeros_like(y), delta.astype(np.float32))


def global_weights(n: int) -> list[Claim]:
    slices = make_slices(np.random.default_rng(0), n, 200)
    sums = top_gene_sums(slices, "own", TOP)
    starts = np.vstack([np.eye(MODELS), np.full(MODELS, 1 / MODELS)])
    ours, (_, value) = cpu(lambda: maximise_top_gene(sums, starts, signed=False))

    def loss(w: Any) -> float:
        return -sums.value(np.abs(w))  # none negative

    peer, (_, least, calls) = cpu(
        lambda: cma_es(loss, starts[-1], lambda best, calls: -best > value - 1e-7 or calls > 20_000)
    )
    size = f"global weights, n = {n:,}; {ours:.3f} s CPU, CMA-ES {peer:.2f} s, {calls:,} calls"
    more, values = value + least, f"{value:.6f} against {-least:.6f}"
    return [
        Claim(f"direct on R2 Top-{TOP} / CMA-ES", peer / ours, "{:.0f} times", 20, remark=size),
        Claim("value reached, ours - CMA-ES", more, "{:.1e}", -1e-6, remark=f"{values}; goal: equal or better"),
    ]


def weights_per_gene(n: int) -> list[Claim]:
    slices = make_slices(np.random.default_rng(1), n, GENES)
    rows = TopRows.of(slices, "own", TOP, n_genes=GENES, usable=np.ones(MODELS, dtype=bool), rows=None)
    common = np.full(MODELS, 1 / MODELS)
    gene_deviations(rows, common, 1.0)  # compile
    strength = 0.1
    price = strength * MODELS / GENES
    ours, weights = cpu(lambda: gene_deviations(rows, common, strength))
    value = rows.value_and_gradient(weights)[0] - price * float(((weights - common) ** 2).sum())

    def loss(w: Any) -> float:
        shaped = np.abs(w.reshape(GENES, MODELS))
        return price * float(((shaped - common) ** 2).sum()) - rows.value_and_gradient(shaped)[0]

    end = time.process_time() + 30 * ours
    first = -loss(np.tile(common, GENES))
    peer, (_, least, calls) = cpu(lambda: cma_es(loss, np.tile(common, GENES), lambda *_: time.process_time() > end))
    what = f"weights per gene ({GENES * MODELS:,}), value reached, ours - CMA-ES with 30 times our time"
    rest = f"n = {n:,}: from {first:.4f} in {ours:.2f} s CPU to {value:.4f}; CMA-ES {peer:.1f} s to {-least:.4f}"
    return [Claim(what, value + least, "{:.4f}", remark=f"{rest}, {calls:,} calls")]


def claims(quick: bool = False) -> list[Claim]:
    n = 1_000 if quick else 6_000
    return [*global_weights(n), *weights_per_gene(n // 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixth of the rows")
    options = parser.parse_args()
    before = machine()
    print(f"{before}\n\n{table(claims(options.quick))}")


if __name__ == "__main__":
    main()
