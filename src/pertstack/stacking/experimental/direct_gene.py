"""Top-gene direct per gene: global weights of largest R2 Top-k plus a shrunken deviation for every gene.

A gene counts only in the samples where it is among the top k, so rarely appearing genes have little to say for
themselves and stay with the global weights. The search for those is in ``direct.py``, the gradient in
``stacking/solvers/_direct_kernel.py``.

Shown, never shipped: R2 Top-k looks only at genes picked for their large measured effect, so a profile that is the
same for every sample gains when each gene is scaled to what it does *when it is picked*. On a real plate
(ht115_cpc006, 80 perturbations held out) the mean treated profile alone went from 0.351 to 0.617 on the held-out test
by weights per gene, against the pooled control, without knowing one drug from another (docs/combiners.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pertstack.design.metric_names import parse_metric
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.direct import direct_starts, maximise_top_gene, scale_of
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers._direct_kernel import value_and_gradient
from pertstack.stacking.solvers.minimise import minimise
from pertstack.stacking.solvers.top_gene import Slices, top_gene_sums, usable_models
from pertstack.stacking.sums import Array, Mask, Sums, merge_sums, regression_sums

STRENGTHS = (0.1, 1.0, 10.0)  # beside no deviation at all
_FLAT = 1e-10
_ROUNDS = 60


@dataclass(frozen=True)
class TopRows:
    """Samples that every usable model predicts and whose truth varies: values on their top k genes."""

    genes: np.ndarray[Any, np.dtype[np.int64]]  # (n, k)
    x: np.ndarray[Any, np.dtype[np.float32]]  # (n, M, k) prediction - reference
    t: Array  # (n, k) centred truth
    n_genes: int

    @classmethod
    def of(cls, slices: Slices, reference: str, k: int, *, n_genes: int, usable: Mask, rows: Mask | None) -> TopRows:
        """The chosen rows of top-gene slices that all usable models predict and whose truth varies.

        Parameters
        ----------
        slices : of all samples, with at least k genes each.
        reference : "own" or "pooled": what deltas on the top genes refer to.
        k : how many top genes.
        n_genes : of the study; ``genes`` of the slices count up to it.
        usable : (M,); the others are zero.
        rows : (n,) samples to take; None for all.
        """
        at = slice(None) if rows is None else np.flatnonzero(rows)
        genes = np.asarray(slices.genes)[at, :k].astype(np.int64)
        x = np.array(np.asarray(slices.delta)[at, :, :k], dtype=np.float32)
        t = np.array(np.asarray(slices.y)[at, :k], dtype=np.float64)
        if reference != "own":
            shift = np.asarray(slices.offset)[at, :k]
            x, t = x + shift[:, None, :], t + shift
        x[:, ~usable] = 0.0
        t = t - t.mean(axis=1, keepdims=True)
        good = np.isfinite(x).all(axis=(1, 2)) & ((t**2).sum(axis=1) > k * _FLAT**2)  # NaN compares False
        return cls(genes[good], np.ascontiguousarray(x[good]), np.ascontiguousarray(t[good]), n_genes)

    @property
    def n(self) -> int:
        return int(self.t.shape[0])

    def value_and_gradient(self, weights: Array) -> tuple[float, Array]:
        """Mean r |r| of weights (n_genes, M), and its derivative, zero for genes that are never on top."""
        gradient = np.zeros_like(weights)
        floor = self.t.shape[1] * _FLAT**2
        return float(value_and_gradient(self.genes, self.x, self.t, weights, floor, gradient)), gradient


def gene_deviations(rows: TopRows, weights: Array, strength: float, *, start: Array | None = None) -> Array:
    """Weights (n_genes, M) that maximise ``mean r |r| - strength * (M / G) * sum |w_g - w|²``, by L-BFGS-B.

    G is the number of genes that appear, so that a strength of one costs one unit of R2 for deviations as large as
    equal weights, whatever M and G. Genes that never appear keep ``w``.

    References: methods F6 (shrinkage to a common vector) and F8 (gradient); Evgeniou and Pontil (2004).

    Parameters
    ----------
    rows : top genes of the samples to learn from.
    weights : ``w``, (M,), global weights of sum |w| = 1. If none is negative, no answer is; else answers may be.
    strength : >= 0; infinite gives ``w`` for every gene.
    start : (n_genes, M); None for no deviation.
    """
    seen = np.unique(rows.genes)
    full = np.tile(weights, (rows.n_genes, 1))
    if not rows.n or not np.isfinite(strength):
        return full
    price = strength * weights.size / seen.size

    def negative(flat: Array) -> tuple[float, Array]:
        full[seen] = flat.reshape(seen.size, -1)
        value, gradient = rows.value_and_gradient(full)
        away = full[seen] - weights
        return price * float((away**2).sum()) - value, (2 * price * away - gradient[seen]).ravel()

    first = full[seen] if start is None else start[seen]
    positive = bool((weights >= 0).all())
    found = minimise(negative, first.ravel(), positive=positive, maxiter=_ROUNDS, ftol=1e-8, gtol=1e-7)
    full[seen] = found.x.reshape(seen.size, -1)
    return full


@dataclass(frozen=True)
class DirectGene(Combiner):
    """Weights per gene that maximise mean R2 Top-k, pulled to the global weights that do; one scale for all genes.

    Not a candidate: its gains need not be knowledge of the perturbation (see the top of this file). The strength of
    the pull is chosen by leaving folds out, no deviation among the choices. Learned from samples that every usable
    model predicts; genes and rows that lack a model fall back to the gene's best available one.
    """

    name: ClassVar[str] = "direct_gene"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "slices"})
    complexity: ClassVar[int] = 7
    candidate: ClassVar[bool] = False
    default: ClassVar[bool] = False
    k: int | None = None  # top genes; default that of the primary metric, else 20
    strength: float | None = None  # None: chosen by leaving folds out

    def fit(self, evidence: Evidence) -> LinearWeights:
        reference, slices = evidence.reference, evidence.reduction.slices[evidence.reference]
        n_genes = len(evidence.gene_names)
        k = min(self.k or parse_metric(evidence.primary).top or 20, n_genes)
        usable = usable_models(slices, k)
        usable = usable if usable.any() else np.ones_like(usable)
        strength = self._strength(evidence, k, usable) if self.strength is None else self.strength
        common = _global(evidence, evidence.sums, k, usable=usable, rows=None)
        rows = TopRows.of(slices, reference, k, n_genes=n_genes, usable=usable, rows=None)
        weights = gene_deviations(rows, common, strength)
        facts = {
            "k": k,
            "strength": strength if np.isfinite(strength) else None,
            "common": common.tolist(),
            "value_in_sample": rows.value_and_gradient(weights)[0],
            "value_of_common": rows.value_and_gradient(np.tile(common, (n_genes, 1)))[0],
            "samples": rows.n,
            "genes": int(np.unique(rows.genes).size),
        }
        cautions = () if len(evidence.folds) > 1 else ("One fold only: weights per gene were not tried.",)
        return linear(self.name, evidence, scale_of(evidence.sums, weights) * weights, facts=facts, cautions=cautions)

    def _strength(self, evidence: Evidence, k: int, usable: Mask) -> float:
        """The strength with the best metric on folds left out, infinite (no deviation) among equals or with one
        fold."""
        if len(evidence.folds) < 2:
            return float("inf")
        fold = evidence.reduction.samples["fold"].to_numpy(dtype=np.int64)
        slices, n_genes = evidence.reduction.slices[evidence.reference], len(evidence.gene_names)
        grid = (float("inf"), *sorted(STRENGTHS, reverse=True))
        value = np.zeros(len(grid))
        for left in evidence.folds:
            rest = [b for b in evidence.blocks if b.fold != left]
            squared = merge_sums([regression_sums(evidence.reduction.gene[b], evidence.reference) for b in rest])
            common = _global(evidence, squared, k, usable=usable, rows=fold != left)
            learn, held = (
                TopRows.of(slices, evidence.reference, k, n_genes=n_genes, usable=usable, rows=which)
                for which in (fold != left, fold == left)
            )
            start: Array | None = None
            for i, strength in enumerate(grid):
                start = gene_deviations(learn, common, strength, start=start)
                value[i] += held.n * held.value_and_gradient(start)[0]
        return float(grid[int(np.argmax(value))])


def _global(evidence: Evidence, squared: Sums, k: int, *, usable: Mask, rows: Mask | None) -> Array:
    """Global weights of largest metric on the rows, sum |w| = 1."""
    top = top_gene_sums(evidence.reduction.slices[evidence.reference], evidence.reference, k, rows=rows)
    starts = direct_starts(squared) * usable
    return maximise_top_gene(top, starts[starts.sum(axis=1) > 0], signed=False)[0]
