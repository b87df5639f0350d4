"""Stacking at full size and against what people use today. Ratios of CPU time within one run, one thread.

    python benchmarks/stack.py            # about two minutes
    python benchmarks/stack.py --quick

1. Everything that follows from moments at 10,716 genes, 10 models, 3 folds (moments given).
2. Ridge per gene with 20 penalties chosen over 3 folds, from data to weights: the one pass (which also makes slices and
   sample moments) and batched eigen-decompositions, a hand-written numpy loop over genes, and scikit-learn's
   RidgeCV(cv=PredefinedSplit) per gene; same objective.
3. Search on R2 Top-20: L-BFGS with the exact gradient from slices against differential evolution, stopped as soon as it
   is within 1e-5 of the same value.
4. Greedy selection from sums against a plain loop over rows, identical counts.
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
from scipy.optimize import differential_evolution
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit

from pertstack.predictions.array_source import ArraySource
from pertstack.reduce.moments import GeneMoments
from pertstack.reduce.one_pass import reduce_blocks
from pertstack.reduce.references import References
from pertstack.reduce.slices import TopSlices
from pertstack.stack.direct import maximise_top_gene
from pertstack.stack.gene_eb import empirical_bayes
from pertstack.stack.gene_ridge import choose_strengths
from pertstack.stack.gene_simplex import gene_simplex_weights
from pertstack.stack.greedy import greedy_counts
from pertstack.stack.ridge_path import STRENGTHS, cross_validated_error, penalty_scale, pick, ridge_path
from pertstack.stack.simplex import global_error_gram
from pertstack.stack.sums import Sums, merge_sums, regression_sums
from pertstack.stack.top_gene import top_gene_sums

MODELS, FOLDS = 10, 3


def cpu(task: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and the answer."""
    start = time.process_time()
    answer = task()
    return time.process_time() - start, answer


def make_rows(rng: np.random.Generator, n: int, genes: int) -> tuple[Any, Any, Any]:
    """Deltas (M, n, genes) of correlated models, truth (n, genes) and folds, float32 as from a store."""
    truth = rng.normal(0, 1, (n, genes)).astype(np.float32)
    common = rng.normal(0, 0.5, (n, genes)).astype(np.float32)
    delta = np.stack([truth + common + rng.normal(0, 0.5 + 0.05 * m, (n, genes)) for m in range(MODELS)])
    return delta.astype(np.float32), truth, np.arange(n) % FOLDS


def _first_rows(delta: Any, y: Any, folds: Any, n: int = 30) -> ArraySource:
    names = {f"m{m}": d[:n] for m, d in enumerate(delta)}
    return ArraySource(names, y[:n], None, folds=folds[:n], perturbation=np.arange(n).astype(str))


def gene_ridge(parts: list[Sums]) -> tuple[Any, Any, Any]:
    """Weights, intercepts and cross-validated error of the chosen penalty, per gene."""
    whole = merge_sums(parts)
    scale = penalty_scale(whole)
    splits = [(merge_sums([p for j, p in enumerate(parts) if j != k]), parts[k]) for k in range(FOLDS)]
    error = cross_validated_error(splits, STRENGTHS, scale=scale)
    at = choose_strengths(error, "gene")
    weights, intercept = pick(ridge_path(whole, STRENGTHS, scale=scale), at)
    return weights, intercept, error.min(axis=1)


def loop_ridge(delta: Any, y: Any, folds: Any) -> tuple[Any, Any]:
    """What one writes by hand: per gene and fold one eigen-decomposition, every penalty, refit with the best."""
    weights, least = np.empty((y.shape[1], MODELS)), np.empty(y.shape[1])
    for g in range(y.shape[1]):
        x, t = delta[:, :, g].T.astype(np.float64), y[:, g].astype(np.float64)
        unit = ((x - x.mean(0)) ** 2).sum() / MODELS
        error = np.zeros(len(STRENGTHS))
        for k in range(FOLDS):
            inside = folds != k
            mx, mt = x[inside].mean(0), t[inside].mean()
            values, vectors = np.linalg.eigh((x[inside] - mx).T @ (x[inside] - mx))
            b = vectors.T @ ((x[inside] - mx).T @ (t[inside] - mt))
            path = vectors @ (b[:, None] / (values[:, None] + unit * STRENGTHS))
            error += ((t[~inside, None] - mt - (x[~inside] - mx) @ path) ** 2).sum(axis=0)
        mx, mt = x.mean(0), t.mean()
        gram = (x - mx).T @ (x - mx) + unit * STRENGTHS[error.argmin()] * np.eye(MODELS)
        weights[g], least[g] = np.linalg.solve(gram, (x - mx).T @ (t - mt)), error.min()
    return weights, least


def at_full_size(genes: int) -> None:
    """From moments to weights, everything at the size of the founding study."""
    rng = np.random.default_rng(0)
    parts = [regression_sums(m, "pooled") for m in _moments_of_size(rng, genes)]
    whole = merge_sums(parts)
    gene_simplex_weights(whole.error_gram()[:2], whole.available[:2], global_error_gram(whole), 0.1)  # compile
    tasks = {
        f"ridge per gene, {len(STRENGTHS)} penalties, {FOLDS} folds": lambda: gene_ridge(parts),
        "simplex per gene, exact": lambda: gene_simplex_weights(
            whole.error_gram(), whole.available, global_error_gram(whole), 0.0
        ),
        "empirical Bayes per gene": lambda: empirical_bayes(whole, 1.0),
    }
    print(f"\nFrom moments, {genes:,} genes, {MODELS} models:")
    for name, task in tasks.items():
        wall = time.perf_counter()
        seconds, _ = cpu(task)
        print(f"  {name:45s} {seconds:6.2f} s CPU, {time.perf_counter() - wall:6.2f} s wall")


def _moments_of_size(rng: np.random.Generator, genes: int) -> list[GeneMoments]:
    rows = [make_rows(rng, 60, 256) for _ in range(FOLDS)]
    small = [GeneMoments.of(d, y, np.zeros_like(y)) for d, y, _ in rows]
    at = rng.integers(0, 256, genes)
    return [GeneMoments(m.count[at], m.mean[at], m.scatter[at], m.available[at]) for m in small]


def ridge_ratios(n: int, genes: int, peer_genes: int) -> None:
    """Data to weights against the loop and RidgeCV, per gene."""
    delta, y, folds = make_rows(np.random.default_rng(1), n, genes)
    arrays = {f"m{m}": d for m, d in enumerate(delta)}
    source = ArraySource(arrays, y, None, folds=folds, perturbation=np.arange(n).astype(str))
    references = References.collect(source)
    reduce_blocks(_first_rows(delta, y, folds), references)  # compile

    def from_data() -> Any:
        reduction = reduce_blocks(source, references, k=20)
        return gene_ridge([regression_sums(reduction.gene[b], "own") for b in reduction.blocks])

    ours, (weights, _, error) = cpu(from_data)
    seconds, (by_loop, loop_error) = cpu(lambda: loop_ridge(delta[:, :, :peer_genes], y[:, :peer_genes], folds))
    loop = seconds / peer_genes
    np.testing.assert_allclose(error[:peer_genes], loop_error, rtol=1e-6)
    np.testing.assert_allclose(weights[:peer_genes], by_loop, atol=1e-5)
    few = max(2, peer_genes // 10)
    centred = delta[:, :, :few].astype(np.float64) - delta[:, :, :few].mean(axis=1, keepdims=True, dtype=np.float64)
    scale = (centred**2).sum(axis=(0, 1)) / MODELS

    def peer() -> list[float]:
        cv = PredefinedSplit(folds)
        fits = [
            RidgeCV(alphas=STRENGTHS * scale[g], cv=cv, scoring="neg_mean_squared_error").fit(delta[:, :, g].T, y[:, g])
            for g in range(few)
        ]
        return [float(f.best_score_) for f in fits]

    seconds, scores = cpu(peer)
    np.testing.assert_allclose(-np.array(scores) * n, error[:few], rtol=1e-3)  # RidgeCV averages folds, in float32
    each = ours / genes
    print(f"\nRidge per gene, data to weights, n = {n:,}, {genes:,} genes (ms CPU per gene):")
    theirs = seconds / few
    print(f"  ours {1e3 * each:.3f}; numpy loop {1e3 * loop:.3f} ({loop / each:.0f} x)", end="; ")
    print(f"RidgeCV {1e3 * theirs:.1f} ({theirs / each:.0f} x)")


def metric_search(n: int, k: int = 20) -> None:
    """The same objective with and without the gradient."""
    rng = np.random.default_rng(2)
    y = rng.normal(0, 1, (n, k)).astype(np.float32)
    common = rng.normal(0, 0.5, (n, k))
    delta = np.stack([y + common + rng.normal(0, 0.5 + 0.1 * m, (n, k)) for m in range(MODELS)], axis=1)
    slices = TopSlices(np.zeros((n, k), dtype=np.int32), y, np.zeros_like(y), delta.astype(np.float32))
    starts = np.vstack([np.eye(MODELS), np.full(MODELS, 1 / MODELS)])
    ours, (_, value) = cpu(lambda: maximise_top_gene(top_gene_sums(slices, "own", k), starts, signed=False))
    sums = top_gene_sums(slices, "own", k)

    def without_gradient() -> Any:
        return differential_evolution(
            lambda w: -sums.value(w), [(0.0, 1.0)] * MODELS, seed=0, maxiter=400, tol=0, polish=False,
            callback=lambda x, convergence: sums.value(x) > value - 1e-5,
        )  # fmt: skip

    peer, found = cpu(without_gradient)
    print(f"\nSearch on R2 Top-{k}, n = {n:,}: gradient {ours:.2f} s CPU, value {value:.6f}", end="; ")
    print(f"without {peer:.2f} s, {-found.fun:.6f} ({peer / ours:.0f} x)")


def greedy_ratio(n: int, genes: int, rounds: int = 25) -> None:
    """Greedy selection on squared error: sums against rows."""
    delta, y, _ = make_rows(np.random.default_rng(3), n, genes)
    errors = (delta - y).reshape(MODELS, -1).T.astype(np.float64)
    ours, counts = cpu(lambda: greedy_counts(errors.T @ errors, rounds))

    def loop() -> Any:
        total, taken, best, least = np.zeros(len(errors)), [], [], np.inf
        for r in range(1, rounds + 1):
            scores = [float(np.mean(((total + errors[:, m]) / r) ** 2)) for m in range(MODELS)]
            taken.append(int(np.argmin(scores)))
            total += errors[:, taken[-1]]
            if min(scores) < least * (1 - 1e-12):
                best, least = list(taken), min(scores)
        return np.bincount(best, minlength=MODELS)

    peer, by_loop = cpu(loop)
    np.testing.assert_array_equal(counts, by_loop)
    print(f"\nGreedy on squared error, {n * genes:,} values, {rounds} rounds", end=": ")
    print(f"{ours:.2f} s CPU, loop {peer:.2f} s ({peer / ours:.0f} x)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    quick = parser.parse_args().quick
    at_full_size(1_000 if quick else 10_716)
    ridge_ratios(1_000 if quick else 6_000, 100 if quick else 978, 20 if quick else 200)
    metric_search(1_000 if quick else 6_000)
    greedy_ratio(500 if quick else 2_000, 100 if quick else 500)


if __name__ == "__main__":
    main()
