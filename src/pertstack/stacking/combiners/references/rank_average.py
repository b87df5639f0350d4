"""Rank average: mean rank over models within each sample, given back a size by the mean sorted profile of deltas.

Immune to models that speak on different scales or bend it (pitfall 8): only the order of a model's deltas counts for
where a gene stands, and the sorted deltas of all models, averaged place by place, say how large an effect such a place
has (quantile averaging: Ratcliff 1979, Psychol. Bull. 86:446; Lichtendahl et al. 2013, Manag. Sci. 59:1594).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import Float32
from pertstack.reduce.metrics.ranks import mean_ranks
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, Mask, Reference


def place_and_profile(delta: Float32, n_genes: int) -> tuple[Array, Array]:
    """Place of each gene in its sample, in (0, 1), and the sorted profile on ``n_genes`` places; each (n, ...).

    With q genes the r-th smallest has the place ``(r - 1/2) / q`` (equal deltas share the mean place). A profile of
    q < n_genes genes is stretched to the places ``(j - 1/2) / n_genes`` by linear interpolation.

    Parameters
    ----------
    delta : array, shape (n, q)
        One model's deltas of n samples, q >= 1 genes, delta units.
    """
    n, q = delta.shape
    profile = np.sort(delta, axis=1).astype(np.float64)
    ranks = np.empty((n, q), dtype=np.float64)
    mean_ranks(np.ascontiguousarray(delta), np.zeros((1, q), dtype=delta.dtype), 0, n, ranks)
    if q != n_genes:
        wanted = np.broadcast_to((np.arange(n_genes) + 0.5) / n_genes, (n, n_genes))
        profile = value_at(profile, wanted)
    return (ranks - 0.5) / q, profile


def value_at(profile: Array, place: Array) -> Array:
    """Sorted profiles (n, q) read at places in [0, 1], (n, g), by linear interpolation; the ends are flat."""
    q = profile.shape[1]
    at = np.clip(place * q - 0.5, 0.0, q - 1.0)
    below = np.minimum(at.astype(np.int64), max(q - 2, 0))
    share = at - below
    low = np.take_along_axis(profile, below, axis=1)
    high = np.take_along_axis(profile, np.minimum(below + 1, q - 1), axis=1)
    return np.asarray(low + share * (high - low))


def rank_average(delta: Float32, there: Mask, genes: Mask) -> Float32:
    """Combined deltas (n, n_genes): the mean sorted profile of the models, read at each gene's mean place.

    Parameters
    ----------
    delta : array, shape (M, n, n_genes)
        ``prediction - reference``; entries of missing rows and genes are not looked at.
    there : bool array, shape (M, n)
        Rows each model predicts.
    genes : bool array, shape (M, n_genes)
        Genes each model predicts. A model of fewer genes ranks those it has, on the same scale from 0 to 1.

    Returns
    -------
    array, float32; NaN for genes of a sample that no model predicts.
    """
    n_models, n, n_genes = delta.shape
    place, profile = np.zeros((n, n_genes)), np.zeros((n, n_genes))
    placed, profiled = np.zeros((n, n_genes)), np.zeros((n, 1))
    for m in range(n_models):
        rows, columns = np.flatnonzero(there[m]), np.flatnonzero(genes[m])
        if not rows.size or not columns.size:
            continue
        whole = rows.size == n and columns.size == n_genes
        mine, sorted_ones = place_and_profile(delta[m] if whole else delta[m][np.ix_(rows, columns)], n_genes)
        where: Any = (slice(None), slice(None)) if whole else np.ix_(rows, columns)
        place[where] += mine
        placed[where] += 1.0
        profile[rows] += sorted_ones
        profiled[rows] += 1.0
    found = value_at(profile / np.maximum(profiled, 1.0), place / np.maximum(placed, 1.0))
    return np.where(placed > 0, found, np.nan).astype(np.float32)


@dataclass(frozen=True)
class RankMean(FittedCombiner):
    """Rank averaging of deltas against a reference; learns nothing."""

    name: str
    models: tuple[str, ...]
    reference: Reference
    cautions: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction in the treated scale, (n, n_genes)."""
        rows = self.rows_of(tile)
        reference = tile.pooled[None, :] if self.reference == "pooled" else tile.control
        delta = tile.predictions[rows] - reference
        return np.asarray(reference + rank_average(delta, tile.available[rows], tile.gene_available[rows]), np.float32)

    def weights(self) -> dict[str, Any]:
        """Nothing was learned; the reference is all there is to say."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.reference,
            "facts": self.facts,
            "cautions": list(self.cautions),
        }


@dataclass(frozen=True)
class RankAverage(Combiner):
    """Mean rank over models within each sample, mapped back through the mean sorted profile of their deltas.

    If some models are missing, of those that are there; a model that predicts fewer genes ranks those it has.
    """

    name: ClassVar[str] = "rank_average"
    family: ClassVar[Family] = "reference"
    needs: ClassVar[frozenset[Need]] = frozenset()
    complexity: ClassVar[int] = 1
    default: ClassVar[bool] = False  # ranks every model in every sample: more work than all other combiners together

    def fit(self, evidence: Evidence) -> RankMean:
        return RankMean(self.name, evidence.models, evidence.reference)
