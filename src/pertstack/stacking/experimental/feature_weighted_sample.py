"""Feature-weighted linear stacking over samples: weights are linear functions of what is known about a sample.

Features are those of the selector and the soft gate. With features of genes it is ``feature_weighted.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import Float32
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need, availability
from pertstack.stacking.combiners.global_weights.ridge import DEFAULT_STRENGTH
from pertstack.stacking.combiners.row_weights.sample_features import SampleFeatures, pieces, products_with_truth
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import STRENGTHS, cross_validated_error, ridge_path
from pertstack.stacking.sums import Array, Mask, Sums


def expanded_over_samples(evidence: Evidence, features: Array, rows: Mask) -> Sums:
    """Sums of the regressors ``feature_j(sample) * x_m`` over all genes, as one problem of J * M columns.

    Products are means over genes, so a count is one sample.

    Parameters
    ----------
    evidence : the rows that may be seen; those that some model did not predict are passed over.
    features : (n, J) in the evidence's order.
    rows : (n,), the samples to take.
    """
    size = features.shape[1] * evidence.n_models
    xx, xt, tt, count = np.zeros((size, size)), np.zeros(size), 0.0, 0
    for part in pieces(len(features)):
        gram, cross, truth = products_with_truth(evidence, part)
        whole = rows[part] & np.isfinite(gram).all(axis=(1, 2)) & np.isfinite(cross).all(axis=1)
        phi, gram, cross = features[part][whole], gram[whole], cross[whole]
        xx += np.einsum("nj,nk,nml->jmkl", phi, phi, gram, optimize=True).reshape(size, size)
        xt += np.einsum("nj,nm->jm", phi, cross).reshape(size)
        tt, count = tt + float(truth[whole].sum()), count + int(whole.sum())
    return Sums(
        count=np.array([float(count)]),
        mean_x=np.zeros((1, size)),
        mean_t=np.zeros(1),
        xx=xx[None],
        xt=xt[None],
        tt=np.array([tt]),
        available=np.ones((1, size), dtype=bool),
    )


@dataclass(frozen=True)
class SampleWeights(FittedCombiner):
    """Weights per sample, linear in its features: ``base + sum_m w_nm (prediction_m - base)``."""

    name: str
    models: tuple[str, ...]
    features: SampleFeatures
    table: Array  # (1 + J, M)
    cautions: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def weights_of(self, tile: Tile) -> Array:
        """(n, M) weights of a tile's samples."""
        return _with_one(self.features.of_tile(tile, self.rows_of(tile))) @ self.table

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction (n, n_genes); if a model is missing the mean of those that are there stands in."""
        rows = self.rows_of(tile)
        base = tile.pooled[None, :] if self.features.reference == "pooled" else tile.control
        weights, there = self.weights_of(tile), availability(tile, rows)
        delta = tile.predictions[rows] - base
        if there is not None:
            known = np.where(there, delta, np.float32(0))
            n_there = there.sum(axis=0)
            mean = np.where(n_there > 0, known.sum(axis=0) / np.maximum(n_there, 1), np.nan)
            delta = np.where(there, delta, mean[None])
        return np.asarray(base + np.einsum("nm,mng->ng", weights, delta, optimize=True), dtype=np.float32)

    def weights(self) -> dict[str, Any]:
        """Weights of an average sample; how they move is in ``arrays``."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.features.reference,
            "mean": self.table[0].tolist(),
            "features": ["one", *self.features.names(self.models)],
            "facts": self.facts,
            "cautions": list(self.cautions),
        }

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """``table`` (1 + J, M): weights are features (with a one in front) times this."""
        return {"table": self.table}


@dataclass(frozen=True)
class FeatureWeightedSample(Combiner):
    """``w_nm = sum_j v_jm feature_j(n)``: squared error over all genes, ridge towards equal weights without features.

    Sill et al. (2009), "Feature-weighted linear stacking", arXiv:0911.0460, equation 3, with meta-features of the
    sample: sizes, agreement, disagreement, cell line, dose, time, distance to the training perturbations. From sample
    moments; the strength by leaving folds out.
    """

    name: ClassVar[str] = "feature_weighted_sample"
    family: ClassVar[Family] = "sample"
    needs: ClassVar[frozenset[Need]] = frozenset({"sample_moments"})
    complexity: ClassVar[int] = 6
    default: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> SampleWeights:
        scaling, plain = SampleFeatures.learn(evidence)
        features, n_models = _with_one(plain), evidence.n_models
        centre = np.zeros(features.shape[1] * n_models)
        centre[:n_models] = 1.0 / n_models
        strength, cautions = DEFAULT_STRENGTH, evidence.cautions
        fold = evidence.reduction.samples["fold"].to_numpy(dtype=np.int64)
        if len(evidence.folds) > 1:
            parts = {k: expanded_over_samples(evidence, features, fold == k) for k in evidence.folds}
            halves = [(_sum([p for j, p in parts.items() if j != k]), held) for k, held in parts.items()]
            error = cross_validated_error(halves, STRENGTHS, toward=lambda _: centre)[0]
            strength = float(STRENGTHS[len(STRENGTHS) - 1 - int(np.argmin(error[::-1]))])
            sums = _sum(list(parts.values()))
        else:
            cautions = (*cautions, f"One fold only: penalty strength set to {strength}, not chosen.")
            sums = expanded_over_samples(evidence, features, np.ones(len(features), dtype=bool))
        path = ridge_path(sums, np.array([strength]), toward=centre)
        table = path.weights[0, 0].reshape(-1, n_models) if sums.count[0] else centre.reshape(-1, n_models)
        facts = {"strength": strength, "samples": int(sums.count[0])}
        return SampleWeights(self.name, evidence.models, scaling, table, cautions, facts)


def _sum(parts: list[Sums]) -> Sums:
    """Sums of one uncentred problem over disjoint samples."""
    return Sums(
        count=np.sum([p.count for p in parts], axis=0),
        mean_x=parts[0].mean_x,
        mean_t=parts[0].mean_t,
        xx=np.sum([p.xx for p in parts], axis=0),
        xt=np.sum([p.xt for p in parts], axis=0),
        tt=np.sum([p.tt for p in parts], axis=0),
        available=parts[0].available,
    )


def _with_one(features: Array) -> Array:
    return np.column_stack([np.ones(len(features)), features])
