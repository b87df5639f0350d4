"""Ridge per gene at full size and against what people use today. CPU time, one thread, ratios within one run.

    python benchmarks/stack.py             # about a minute; part of `make bench`
    python benchmarks/stack.py --quick

1. What follows from moments at 10,716 genes, 10 models, 3 folds (moments given).
2. Ridge per gene with 20 penalties chosen over 3 folds, from data to weights: gene moments in one pass and batched
   eigen-decompositions, against a hand-written numpy loop over genes and scikit-learn's RidgeCV(cv=PredefinedSplit) per
   gene; same objective. Timed on our side: the checks on entry, references, moments, weights. The loop checks nothing.
   Beside it the whole pass, which also makes top-gene slices and products per sample for the other combiners.
3. ``ps.stack`` as a user calls it, against RidgeCV and StackingRegressor per gene in the same nested design.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import time
import warnings
from typing import Any

import numpy as np
from claims import Claim, best_cpu, cpu, machine, table
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.model_selection import PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import pertstack as ps
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce import References, gene_moments, reduce_blocks
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.stacking.combiners.gene_weights.gene_eb import empirical_bayes
from pertstack.stacking.combiners.gene_weights.gene_ridge import choose_strengths
from pertstack.stacking.combiners.gene_weights.gene_simplex import gene_simplex_weights
from pertstack.stacking.combiners.global_weights.simplex import global_error_gram
from pertstack.stacking.solvers.ridge_path import STRENGTHS, cross_validated_error, penalty_scale, pick, ridge_path
from pertstack.stacking.sums import Sums, merge_sums, regression_sums

MODELS, FOLDS = 10, 3


def make_rows(rng: np.random.Generator, n: int, genes: int) -> tuple[Any, Any, Any]:
    """Deltas (M, n, genes) of correlated models, truth (n, genes) and folds, float32 as from a store."""
    truth = rng.normal(0, 1, (n, genes)).astype(np.float32)
    common = rng.normal(0, 0.5, (n, genes)).astype(np.float32)
    delta = np.stack([truth + common + rng.normal(0, 0.5 + 0.05 * m, (n, genes)) for m in range(MODELS)])
    return delta.astype(np.float32), truth, np.arange(n) % FOLDS


def source_of(delta: Any, y: Any, folds: Any, n: int | None = None) -> ArraySource:
    """The first n rows behind the package's door."""
    names, rows = {f"m{m}": d[:n] for m, d in enumerate(delta)}, len(y[:n])
    return ArraySource(names, y[:n], None, folds=folds[:n], perturbation=np.arange(rows).astype(str))


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


def at_full_size(genes: int) -> list[Claim]:
    """From moments to weights, everything at the size of the founding study."""
    rng = np.random.default_rng(0)
    parts = [regression_sums(m, "pooled") for m in _moments_of_size(rng, genes)]
    whole = merge_sums(parts)
    gene_simplex_weights(whole.error_gram()[:2], whole.available[:2], global_error_gram(whole), pull=0.1)  # compile
    start = time.perf_counter()
    used, _ = cpu(lambda: gene_ridge(parts))
    wall = time.perf_counter() - start
    simplex, _ = cpu(
        lambda: gene_simplex_weights(whole.error_gram(), whole.available, global_error_gram(whole), pull=0.0)
    )
    bayes, _ = cpu(lambda: empirical_bayes(whole, 1.0))
    what = f"ridge per gene from moments, {genes:,} genes, {len(STRENGTHS)} penalties, {FOLDS} folds"
    rest = f"simplex per gene {simplex:.2f} s, empirical Bayes {bayes:.2f} s CPU"
    return [
        Claim(f"{what}: CPU time", used, "{:.2f} s", 3.0, least=False, remark=rest),
        Claim(f"{what}: wall time", wall, "{:.2f} s", 3.0, least=False),
    ]


def _moments_of_size(rng: np.random.Generator, genes: int) -> list[GeneMoments]:
    rows = [make_rows(rng, 60, 256) for _ in range(FOLDS)]
    small = [GeneMoments.of(d, y, np.zeros_like(y)) for d, y, _ in rows]
    at = rng.integers(0, 256, genes)
    return [GeneMoments(m.count[at], m.mean[at], m.scatter[at], m.available[at]) for m in small]


def by_ridge_cv(delta: Any, y: Any, folds: Any) -> list[float]:
    """scikit-learn, gene by gene: its score of the chosen penalty."""
    centred = delta.astype(np.float64) - delta.mean(axis=1, keepdims=True, dtype=np.float64)
    scale = (centred**2).sum(axis=(0, 1)) / MODELS
    cv = PredefinedSplit(folds)
    fits = [
        RidgeCV(alphas=STRENGTHS * scale[g], cv=cv, scoring="neg_mean_squared_error").fit(delta[:, :, g].T, y[:, g])
        for g in range(y.shape[1])
    ]
    return [float(f.best_score_) for f in fits]


def ridge_ratios(n: int, genes: int, loop_genes: int, peer_genes: int) -> list[Claim]:
    """Data to weights against the loop and RidgeCV, CPU per gene; the two peers on some of the genes."""
    delta, y, folds = make_rows(np.random.default_rng(1), n, genes)
    small = source_of(delta, y, folds, 30)
    reduce_blocks(small, References.collect(small))  # compile

    def weights_only() -> Any:
        source = source_of(delta, y, folds)
        moments = gene_moments(source, References.collect(source))
        return gene_ridge([regression_sums(m, "own") for m in moments.values()])

    def whole_pass() -> Any:
        source = source_of(delta, y, folds)
        reduction = reduce_blocks(source, References.collect(source))
        return gene_ridge([regression_sums(m, "own") for m in reduction.gene.values()])

    ours, (weights, _, error) = best_cpu(6, weights_only)
    all_of_it, _ = best_cpu(2, whole_pass)
    few = slice(0, loop_genes)
    loop, (by_loop, loop_error) = best_cpu(3, lambda: loop_ridge(delta[:, :, few], y[:, few], folds))
    few = slice(0, peer_genes)
    peer, scores = cpu(lambda: by_ridge_cv(delta[:, :, few], y[:, few], folds))
    gap = float(np.abs(error[:loop_genes] / loop_error - 1).max())
    apart = float(np.abs(weights[:loop_genes] - by_loop).max())
    np.testing.assert_allclose(-np.array(scores) * n, error[few], rtol=1e-3)  # RidgeCV averages folds, in float32
    each, each_loop, each_peer = ours / genes, loop / loop_genes, peer / peer_genes
    size = f"n = {n:,}, {genes:,} genes, M = {MODELS}"
    both = f"{size}; {1e3 * each:.3f} against {1e3 * each_loop:.2f} ms CPU per gene; best of 6 and 3 rounds"
    more = all_of_it / genes
    rest = f"{1e3 * more:.3f} ms: also the slices and products per sample that other combiners use"
    return [
        Claim("ridge per gene, data to weights / numpy loop", each_loop / each, "{:.1f} times", 10, remark=both),
        Claim("the same with the whole pass", each_loop / more, "{:.1f} times", remark=rest),
        Claim("ridge per gene / RidgeCV", each_peer / each, "{:.0f} times", 80, remark=f"{1e3 * each_peer:.0f} ms"),
        Claim("objective, ours / loop - 1", gap, "{:.0e}", 1e-6, least=False, remark=f"weights differ by {apart:.0e}"),
    ]


def claims(quick: bool = False) -> list[Claim]:
    if quick:
        return [*at_full_size(1_000), *ridge_ratios(1_000, 100, 20, 4)]
    return [*at_full_size(10_716), *ridge_ratios(6_000, 978, 100, 10), *against_sklearn(2_000, 978, 8)]


def against_sklearn(n: int, genes: int, peer_genes: int) -> list[Claim]:
    """``ps.stack`` from arrays to a chosen combination, against scikit-learn gene by gene, scored out of fold alike.

    The peers: RidgeCV (leave-one-out) and StackingRegressor (its base estimators give the models' columns, RidgeCV on
    top, five inner folds), each fitted without every fold, scored there, and fitted on all rows. On some genes, scaled
    up. Ours includes probes, every fold's fits, scores of all metrics and the choice.
    """
    delta, y, folds = make_rows(np.random.default_rng(2), n, genes)
    names, group = {f"m{m}": d for m, d in enumerate(delta)}, np.arange(n).astype(str)

    def ours(combiners: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the probes accuse models that were made from the truth
            return ps.stack(names, treated=y, folds=folds, perturbation=group, combiners=combiners, trust_partial=True)

    def theirs(make: Any) -> None:
        for g in range(peer_genes):
            x, t = delta[:, :, g].T.astype(np.float64), y[:, g].astype(np.float64)
            for k in range(FOLDS):
                inside = folds != k
                make().fit(x[inside], t[inside]).score(x[~inside], t[~inside])
            make().fit(x, t)

    def stacking() -> Any:
        columns = [(f"m{m}", make_pipeline(FunctionTransformer(_column(m)), LinearRegression())) for m in range(MODELS)]
        return StackingRegressor(columns, RidgeCV(alphas=STRENGTHS * n), cv=5)

    ours(["gene_ridge"])  # compile
    ridge, _ = best_cpu(2, lambda: ours(["gene_ridge"]))
    default, _ = cpu(lambda: ours(None))
    one, _ = cpu(lambda: theirs(lambda: RidgeCV(alphas=STRENGTHS * n)))
    peer, _ = cpu(lambda: theirs(stacking))
    one, peer = one * genes / peer_genes, peer * genes / peer_genes
    size = f"{n:,} x {genes:,} x {MODELS}"
    return [
        Claim(
            "ps.stack(['gene_ridge']) / nested RidgeCV",
            one / ridge,
            "{:.1f} times",
            5,
            remark=f"{size}; {ridge:.2f} s CPU",
        ),
        Claim(
            "ps.stack, default / StackingRegressor", peer / default, "{:.0f} times", 10, remark=f"{default:.1f} s CPU"
        ),
    ]


def _column(m: int) -> Any:
    return lambda x: x[:, [m]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    options = parser.parse_args()
    before = machine()
    print(f"{before}\n\n{table(claims(options.quick))}")


if __name__ == "__main__":
    main()
