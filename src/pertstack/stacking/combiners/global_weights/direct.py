"""Top-gene direct: weights that maximise mean R2 Top-k itself, against the pooled control or the sample's own.

Squared error does not see what the metric sees. Against the own control part of the gain is fake (treated and
prediction share the control's noise), so ``direct_own`` is for comparison; ``direct_pooled`` is the honest one (design
section 8). How far to go from the simplex of least squared error towards the metric's own optimum is chosen by leaving
folds out. The value, its gradient and the sign rule live in ``stacking/solvers/top_gene.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pertstack.design.metric_names import parse_metric
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.simplex import global_error_gram
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.convex import simplex_weights
from pertstack.stacking.solvers.minimise import minimise
from pertstack.stacking.solvers.top_gene import TopGeneSums, top_gene_sums, usable_models
from pertstack.stacking.sums import Array, Mask, Reference, Sums, merge_sums, regression_sums

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BEST_STARTS = 4  # starts that are followed to the end; all are looked at


def maximise_top_gene(sums: TopGeneSums, starts: Array, *, signed: bool) -> tuple[Array, float]:
    """Weights (M,) of largest mean r |r|, and that value. The metric does not see their scale, which is set to sum |w|
    = 1.

    L-BFGS-B with the exact gradient from the best of the starts; ties go to the earlier start.

    Parameters
    ----------
    sums : quadratic forms of the samples to learn from.
    starts : (n_starts, M); the ``BEST_STARTS`` of largest value are searched from.
    signed : whether weights may be negative.
    """
    values = np.array([sums.value(start) for start in starts])
    best, most = starts[int(np.argmax(values))], float(values.max())
    for at in np.argsort(-values, kind="stable")[:BEST_STARTS]:
        found = minimise(
            lambda w: _negative(sums, w), starts[at], positive=not signed, maxiter=200, ftol=1e-10, gtol=1e-8
        )
        if -found.fun > most + 1e-12:
            best, most = found.x, float(-found.fun)
    total = float(np.abs(best).sum())
    return np.asarray(best / total if total > 0 else best), most


def _negative(sums: TopGeneSums, weights: Array) -> tuple[float, Array]:
    value, gradient = sums.value_and_gradient(weights)
    return -value, -gradient


def direct_starts(squared: Sums) -> Array:
    """Every single model, the plain mean and the simplex solution, (M + 2, M)."""
    n_models = squared.n_models
    equal = np.full(n_models, 1.0 / n_models)
    return np.vstack([np.eye(n_models), equal, simplex_weights(global_error_gram(squared))])


def scale_of(sums: Sums, weights: Array) -> float:
    """Factor of least squared error for a mixture, over all genes: ``sum w'b_g / sum w'G_g w``; 1 if that is not
    positive.

    The metric does not see it; the error does. ``weights`` is (M,) for all genes or (n_genes, M).
    """
    spread = np.broadcast_to(weights, (sums.n_genes, sums.n_models))
    fitted = float(np.einsum("gm,gmn,gn->", spread, sums.raw_gram(), spread, optimize=True))
    scale = float((sums.raw_cross() * spread).sum()) / fitted if fitted > 0 else 1.0
    return scale if scale > 0 else 1.0


@dataclass(frozen=True)
class _Direct(Combiner):
    """Shared body of the two direct combiners."""

    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "slices"})
    against: ClassVar[Reference]
    k: int | None = None  # top genes; default that of the primary metric, else 20
    signed: bool = False
    share: float | None = None  # of the metric's own optimum against the simplex; None: chosen by leaving folds out

    def fit(self, evidence: Evidence) -> LinearWeights:
        k = min(self.k or parse_metric(evidence.primary).top or 20, len(evidence.gene_names))
        squared = evidence.sums_against(self.against)
        usable = usable_models(evidence.reduction.slices[self.against], k)
        usable = usable if usable.any() else np.ones_like(usable)
        top = top_gene_sums(evidence.reduction.slices[self.against], self.against, k)
        share = self._share(evidence, k, usable) if self.share is None else self.share
        weights = self._solve(top, squared, usable, share)
        scale = scale_of(squared, weights)
        facts: dict[str, Any] = {
            "value_in_sample": top.value(weights),
            "k": k,
            "scale": scale,
            "share": share,
            "samples": top.n,
        }
        cautions = self._cautions(evidence, top, usable)
        return linear(self.name, evidence, scale * weights, reference=self.against, facts=facts, cautions=cautions)

    def _solve(self, top: TopGeneSums, squared: Sums, usable: Mask, share: float) -> Array:
        """``share`` of the weights that maximise the metric, the rest of those of least squared error on the
        simplex."""
        starts = direct_starts(squared) * usable
        starts = starts[starts.sum(axis=1) > 0]
        convex = starts[-1] / starts[-1].sum()
        if share == 0:
            return np.asarray(convex)
        weights, _ = maximise_top_gene(top, starts, signed=self.signed)
        return np.asarray(share * weights + (1 - share) * convex)

    def _share(self, evidence: Evidence, k: int, usable: Mask) -> float:
        """Of ``SHARES`` the one with the best metric on folds left out; the smallest among equals, all with one
        fold."""
        if len(evidence.folds) < 2:
            return 1.0
        fold = evidence.reduction.samples["fold"].to_numpy(dtype=np.int64)
        slices, value = evidence.reduction.slices[self.against], np.zeros(len(SHARES))
        for left in evidence.folds:
            rest = [b for b in evidence.blocks if b.fold != left]
            squared = merge_sums([regression_sums(evidence.reduction.gene[b], self.against) for b in rest])
            learn = top_gene_sums(slices, self.against, k, rows=fold != left)
            held = top_gene_sums(slices, self.against, k, rows=fold == left)
            ends = [self._solve(learn, squared, usable, share) for share in (0.0, 1.0)]
            value += [held.n * held.value((1 - share) * ends[0] + share * ends[1]) for share in SHARES]
        return float(SHARES[int(np.argmax(value))])

    def _cautions(self, evidence: Evidence, top: TopGeneSums, usable: Mask) -> tuple[str, ...]:
        said = []
        left_out = [m for m, good in zip(evidence.models, usable, strict=True) if not good]
        if left_out:
            names = ", ".join(left_out)
            said.append(f"{names} predict the top genes of less than half of the samples and get no weight.")
        if not top.n:
            said.append("No sample has every model and a truth that varies over its top genes: a start was kept.")
        return tuple(said)


@dataclass(frozen=True)
class DirectPooled(_Direct):
    """Non-negative (or signed) weights of largest mean R2 Top-k against the pooled control; one scale
    afterwards."""

    name: ClassVar[str] = "direct_pooled"
    complexity: ClassVar[int] = 4
    against: ClassVar[Reference] = "pooled"


@dataclass(frozen=True)
class DirectOwn(_Direct):
    """The same against the sample's own control: raises the canonical number, partly by imitating the control's
    noise."""

    name: ClassVar[str] = "direct_own"
    complexity: ClassVar[int] = 5
    candidate: ClassVar[bool] = False  # on the board to make the coupling visible; what it gains may be control noise
    against: ClassVar[Reference] = "own"


@dataclass(frozen=True)
class DirectSigned(_Direct):
    """As ``direct_pooled`` with weights of either sign; the value keeps the sign of agreement, so that
    anti-correlation never pays."""

    name: ClassVar[str] = "direct_signed"
    complexity: ClassVar[int] = 5
    against: ClassVar[Reference] = "pooled"
    signed: bool = True
