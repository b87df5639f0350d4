"""Weights by how many parts of a combination its fits met in other combinations, pulled towards those of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack.data.rows import Float32
from pertstack.design.plan.known import JOINED, known_levels
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import Combiner, Family, FittedCombiner, Need, availability
from pertstack.stacking.combiners.row_weights.cell_line_shrunken import shrunken
from pertstack.stacking.combiners.row_weights.sample_features import mix_rows, pieces, products_with_truth
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, Reference, Sums


@dataclass(frozen=True)
class WeightsByParts(FittedCombiner):
    """Weights (M,) for every level (``1 of 2``), and those of all rows for a level that was never learned on."""

    name: str
    models: tuple[str, ...]
    reference: Reference
    fitted: Mapping[str, tuple[str, ...]]  # perturbations of every fold that was learned on
    by_level: Mapping[str, Array]
    common: Array
    cautions: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def levels_of(self, tile: Tile) -> list[str]:
        """How many parts of each row's perturbation are in combinations of the other folds."""
        folds = [tile.block.fold] * tile.n
        return _levels(tile.obs["perturbation"], folds, {int(k): v for k, v in self.fitted.items()})

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction in the treated scale, (n, n_genes)."""
        rows = self.rows_of(tile)
        weights = np.stack([self.by_level.get(x, self.common) for x in self.levels_of(tile)])
        base = tile.pooled[None, :] if self.reference == "pooled" else tile.control
        return mix_rows(tile, rows, weights, base=base, there=availability(tile, rows))

    def weights(self) -> dict[str, Any]:
        """The common weights as ``mean``, and those of every level."""
        return {
            "combiner": self.name,
            "models": list(self.models),
            "reference": self.reference,
            "mean": self.common.tolist(),
            "by_level": {level: w.tolist() for level, w in self.by_level.items()},
            "facts": dict(self.facts),
            "cautions": list(self.cautions),
        }


@dataclass(frozen=True)
class PartsShrunken(Combiner):
    """One set of weights for every number of parts that the fits met in other combinations, all genes together.

    Which base model is right for a combination of known parts need not be for one of new parts. The pull to the
    weights of all rows is one for all levels and chosen by leaving folds out (Lindley and Smith 1972). Learned from
    rows that every model predicts; if models are missing the weights of the others are renormalised. Stacked by
    ``pertstack stack`` if combinations differ in this.
    """

    name: ClassVar[str] = "parts_shrunken"
    family: ClassVar[Family] = "condition"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "sample_moments"})
    complexity: ClassVar[int] = 5
    needs_nested: ClassVar[bool] = False
    default: ClassVar[bool] = False

    def fit(self, evidence: Evidence) -> WeightsByParts:
        samples = evidence.reduction.samples
        fitted = {
            k: tuple(sorted(map(str, samples["perturbation"][samples["fold"] == k].unique()))) for k in evidence.folds
        }
        levels = np.asarray(_levels(samples["perturbation"], samples["fold"], fitted))
        sums = _sums(evidence, levels, samples["fold"].to_numpy(dtype=np.int64))
        common, by_level, facts, cautions = shrunken(sums, evidence)
        return WeightsByParts(
            self.name,
            evidence.models,
            evidence.reference,
            {str(k): v for k, v in fitted.items()},
            by_level,
            common,
            (*evidence.cautions, *cautions),
            facts | {"rows": {x: int((levels == x).sum()) for x in sorted(set(levels))}},
        )


def _levels(perturbations: Any, folds: Any, fitted: Mapping[int, tuple[str, ...]]) -> list[str]:
    return known_levels(perturbations, folds, fitted)[JOINED]


def _sums(evidence: Evidence, levels: Any, folds: Any) -> dict[tuple[str, int], Sums]:
    """Sums of every level and fold over all genes, as one gene without intercept; rows with every model."""
    n_genes = float(len(evidence.gene_names))
    gram = np.full((len(levels), evidence.n_models, evidence.n_models), np.nan)
    cross, target = gram[:, :, 0].copy(), np.full(len(levels), np.nan)
    for rows in pieces(len(levels)):
        gram[rows], cross[rows], target[rows] = products_with_truth(evidence, rows)
    whole = np.isfinite(gram).all(axis=(1, 2)) & np.isfinite(cross).all(axis=1) & np.isfinite(target)
    found = {}
    for level, fold in sorted({(str(x), int(k)) for x, k in zip(levels[whole], folds[whole], strict=True)}):
        here = whole & (levels == level) & (folds == fold)
        found[level, fold] = Sums(
            count=np.array([n_genes * here.sum()]),
            mean_x=np.zeros((1, evidence.n_models)),
            mean_t=np.zeros(1),
            xx=n_genes * gram[here].sum(axis=0)[None],
            xt=n_genes * cross[here].sum(axis=0)[None],
            tt=n_genes * target[here].sum()[None],
            available=np.ones((1, evidence.n_models), dtype=bool),
        )
    return found
