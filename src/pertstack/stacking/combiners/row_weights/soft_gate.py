"""Soft gate: mixture weights that move with the sample, softmax of what is known at prediction time.

Mixture of experts in its plainest form (Jacobs et al. 1991, Neural Computation 3:79; Yao et al. 2022, Bayesian
Analysis 17:1043), fitted to R2 Top-k through the quadratic forms of ``stacking/solvers/top_gene.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import Float32
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need, availability
from pertstack.stacking.combiners.global_weights.direct import direct_starts, maximise_top_gene
from pertstack.stacking.combiners.row_weights.sample_features import (
    SampleFeatures,
    mix_rows,
    pieces,
    products_of_moments,
    softmax,
)
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.minimise import minimise
from pertstack.stacking.solvers.top_gene import TopGeneSums, top_gene_sums, usable_models
from pertstack.stacking.sums import Array, Sums, merge_sums

STRENGTHS = (float("inf"), 0.1, 0.01, 0.001)
_ROUNDS = 60
_HOLD = 1e-3  # pull of the constant part to where it starts
_LEAST = 0.02  # weight, shared by all models, that the start lends to those of no weight


def gate_value_and_gradient(sums: TopGeneSums, features: Array, table: Array) -> tuple[float, Array]:
    """Mean of r |r| over samples with weights ``softmax(features @ table)``, and its derivative (J, M).

    dr/dw as in ``stacking/solvers/top_gene.py``, dw/dz of the softmax.

    Parameters
    ----------
    sums : quadratic forms of n samples; none gives 0 and no slope.
    features : (n, J) of the same samples, in their order.
    table : (J, M); row 0 goes with the constant.
    """
    if not sums.n:
        return 0.0, np.zeros_like(table)
    weights = softmax(features @ table)
    mixed = np.einsum("nml,nl->nm", sums.a, weights)
    top, spread = (sums.b * weights).sum(axis=1), (mixed * weights).sum(axis=1)
    good = spread > sums.k * 1e-20
    q = np.where(good, spread, 1.0)
    root = np.sqrt(q * sums.yy)
    r = np.where(good, top / root, 0.0)
    steep = np.where(good, 2.0 * np.abs(r), 0.0) / sums.n
    slope = (steep / root)[:, None] * sums.b - (steep * r / q)[:, None] * mixed
    through = weights * (slope - (weights * slope).sum(axis=1, keepdims=True))
    return float(np.mean(r * np.abs(r))), features.T @ through


def fit_gate(sums: TopGeneSums, features: Array, start: Array, *, strength: float, hold: Array) -> Array:
    """Table (J, M) that maximises ``value - strength |slopes|² - 0.001 |constant - hold|²``, by L-BFGS.

    Parameters
    ----------
    sums, features : as in ``gate_value_and_gradient``.
    start : (J, M); row 0 is the constant, the others are slopes.
    strength : >= 0; infinite gives ``hold`` without slopes.
    hold : (M,), where the constant is held (logits).
    """
    if not np.isfinite(strength) or not sums.n:
        table = np.zeros_like(start)
        table[0] = hold
        return table

    def negative(flat: Array) -> tuple[float, Array]:
        table = flat.reshape(start.shape)
        value, gradient = gate_value_and_gradient(sums, features, table)
        away = np.vstack([_HOLD * (table[:1] - hold), strength * table[1:]])
        price = float((away[0] * (table[0] - hold)).sum() + (away[1:] * table[1:]).sum())
        return price - value, (2 * away - gradient).ravel()

    found = minimise(negative, start.ravel(), positive=False, maxiter=_ROUNDS, ftol=1e-9, gtol=1e-7)
    return np.asarray(found.x.reshape(start.shape))


@dataclass(frozen=True)
class GatedWeights(FittedCombiner):
    """Weights per sample, positive and of sum one, times one scale for all."""

    name: str
    models: tuple[str, ...]
    features: SampleFeatures
    table: Array  # (1 + J, M)
    scale: float
    cautions: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def weights_of(self, tile: Tile) -> Array:
        """(n, M) weights of a tile's samples."""
        return softmax(_with_one(self.features.of_tile(tile, self.rows_of(tile))) @ self.table)

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction in the treated scale, (n, n_genes)."""
        rows = self.rows_of(tile)
        base = tile.pooled[None, :] if self.features.reference == "pooled" else tile.control
        return mix_rows(tile, rows, self.scale * self.weights_of(tile), base=base, there=availability(tile, rows))

    def weights(self) -> dict[str, Any]:
        """Weights of an average sample; how they move is in ``arrays``."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.features.reference,
            "mean": (self.scale * softmax(self.table[:1])[0]).tolist(),
            "scale": self.scale,
            "features": ["one", *self.features.names(self.models)],
            "facts": self.facts,
            "cautions": list(self.cautions),
        }

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """``table`` (1 + J, M): the softmax's scores are features (with a one in front) times this."""
        return {"table": self.table}


@dataclass(frozen=True)
class SoftGate(Combiner):
    """Softmax weights from the sample's features that maximise mean R2 Top-k; ridge towards constant weights.

    Features as in ``selector``. The strength of the pull is chosen by leaving folds out, constant weights among the
    choices. Learned from samples that every usable model predicts; if models are missing, the weights of the
    others are renormalised.
    """

    name: ClassVar[str] = "soft_gate"
    family: ClassVar[Family] = "sample"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "sample_moments", "slices"})
    complexity: ClassVar[int] = 7
    needs_nested: ClassVar[bool] = False
    strength: float | None = None  # None: chosen by leaving folds out

    def fit(self, evidence: Evidence) -> GatedWeights:
        k = min(parse_metric(evidence.primary).top or 20, len(evidence.gene_names))
        slices, reference = evidence.reduction.slices[evidence.reference], evidence.reference
        scaling, plain = SampleFeatures.learn(evidence)
        features = _with_one(plain)
        sums = top_gene_sums(slices, reference, k)
        usable = usable_models(slices, k)
        usable = usable if usable.any() else np.ones_like(usable)
        strength, values = self.strength, None
        if strength is None:
            strength, values = _choose(evidence, sums, features, usable)
        hold = _constant(sums, evidence.sums, usable)
        table = _path(sums, features[sums.rows], hold, [s for s in STRENGTHS if s > strength] + [strength])[-1]
        scale = _scale(evidence, softmax(features @ table))
        facts = {
            "strength": strength if np.isfinite(strength) else None,
            "k": k,
            "samples": sums.n,
            "value_on_left_out_folds": values,
            "value_in_sample": gate_value_and_gradient(sums, features[sums.rows], table)[0],
        }
        cautions = () if len(evidence.folds) > 1 else ("One fold only: the weights are the same for every sample.",)
        return GatedWeights(self.name, evidence.models, scaling, table, scale, (*evidence.cautions, *cautions), facts)


def _choose(evidence: Evidence, sums: TopGeneSums, features: Array, usable: Any) -> tuple[float, list[float] | None]:
    """The strength with the best metric on folds left out, the largest among equals; and those values."""
    if len(evidence.folds) < 2 or not sums.n:
        return STRENGTHS[0], None
    fold = evidence.reduction.samples["fold"].to_numpy(dtype=np.int64)[sums.rows]
    value = np.zeros(len(STRENGTHS))
    for left in evidence.folds:
        inside, outside = (_rows(sums, which) for which in (fold != left, fold == left))
        squared = merge_sums([s for j, s in evidence.fold_sums.items() if j != left])
        hold = _constant(inside, squared, usable)
        for i, table in enumerate(_path(inside, features[inside.rows], hold, list(STRENGTHS))):
            value[i] += outside.n * gate_value_and_gradient(outside, features[outside.rows], table)[0]
    return float(STRENGTHS[int(np.argmax(value))]), (value / sums.n).tolist()


def _path(sums: TopGeneSums, features: Array, hold: Array, strengths: list[float]) -> list[Array]:
    """A table for every strength, strongest first, each started from the one before."""
    start = np.zeros((features.shape[1], hold.size))
    start[0] = hold
    tables = []
    for strength in strengths:
        start = fit_gate(sums, features, start, strength=strength, hold=hold)
        tables.append(start)
    return tables


def _constant(sums: TopGeneSums, squared: Sums, usable: Any) -> Array:
    """Log of the global non-negative weights of largest metric, a little lent to models of no weight, (M,)."""
    starts = direct_starts(squared) * usable
    weights, _ = maximise_top_gene(sums, starts[starts.sum(axis=1) > 0], signed=False)
    weights = np.where(weights.sum() > 0, weights / max(float(weights.sum()), 1e-300), 1.0 / weights.size)
    return np.asarray(np.log((1 - _LEAST) * weights + _LEAST / weights.size))


def _rows(sums: TopGeneSums, chosen: Any) -> TopGeneSums:
    return TopGeneSums(sums.a[chosen], sums.b[chosen], sums.yy[chosen], k=sums.k, rows=sums.rows[chosen])


def _scale(evidence: Evidence, weights: Array) -> float:
    """Factor of least squared error over all genes of the samples every model predicts; 1 if it is not positive."""
    fitted, together = 0.0, 0.0
    for rows in pieces(len(weights)):
        square, cross = products_of_moments(evidence, rows)
        whole = np.isfinite(square).all(axis=(1, 2)) & np.isfinite(cross).all(axis=1)
        mine = weights[rows][whole]
        fitted += float(np.einsum("nm,nml,nl->", mine, square[whole], mine, optimize=True))
        together += float((cross[whole] * mine).sum())
    scale = together / fitted if fitted > 0 else 1.0
    return scale if scale > 0 else 1.0


def _with_one(features: Array) -> Array:
    return np.column_stack([np.ones(len(features)), features])
