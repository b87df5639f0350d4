"""Linear weights: ``reference + intercept + sum_m w_m (prediction_m - reference)``, applied tile by tile.

Serves every linear combiner, global, per gene or per cell line. What the weights are is up to the combiners.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pertstack._base.errors import MisalignedError, first_few
from pertstack.data.rows import Float32
from pertstack.reduce.scoring.mixtures import Mixture, mixed
from pertstack.reduce.tile import Tile
from pertstack.stacking.combiner import FittedCombiner, availability
from pertstack.stacking.sums import Array, Reference


@dataclass(frozen=True)
class LinearWeights(FittedCombiner):
    """Weights of a linear mixture, (M,) for all genes or (n_genes, M), with an intercept in delta units.

    Rule for rows and genes that some models do not predict: weights that are non-negative and sum to one are
    renormalised over the models that are there; any other weights give way to the gene's best available single model
    (``ranking``). A model of weight zero is never missed. Where no model predicts, the answer is NaN. A cell line
    without separate weights gets the weights of all lines.
    """

    name: str
    reference: Reference
    models: tuple[str, ...]
    gene_names: tuple[str, ...]
    coefficients: Array  # (M,) or (n_genes, M)
    intercept: Array  # () or (n_genes,)
    ranking: np.ndarray[Any, np.dtype[np.int64]]  # (n_genes, M) models from best to worst on the evidence
    by_cell_line: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)  # line -> (coefficients, intercept)
    cautions: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # plain JSON: penalty, KKT residual, ...

    def for_line(self, cell_line: str) -> tuple[Array, Array]:
        """Coefficients and intercept used in one cell line."""
        return self.by_cell_line.get(cell_line, (self.coefficients, self.intercept))

    def mixture(self, tile: Tile) -> Mixture:
        """The weights for the rows of a tile, as they are if every model predicts."""
        rows, genes = self.rows_of(tile), self._genes_of(tile)
        weights, intercept = self.for_line(tile.block.cell_line)
        shift = np.broadcast_to(intercept, (len(self.gene_names),))[genes].astype(np.float32)
        return Mixture(rows, weights if weights.ndim == 1 else weights[genes], shift, self.reference == "own")

    def combine(self, tile: Tile) -> Float32:
        """Combined prediction in the treated scale, (n, n_genes) float32."""
        mixture = self.mixture(tile)
        there = availability(tile, mixture.models)
        if there is None:
            return mixed(tile, mixture)
        return self._mix_available(tile, mixture, there, self.ranking[self._genes_of(tile)])

    def _genes_of(self, tile: Tile) -> Any:
        names = tuple(tile.gene_names.tolist())
        if names == self.gene_names:
            return slice(None)
        at = {g: i for i, g in enumerate(self.gene_names)}
        unseen = [g for g in names if g not in at]
        if unseen:
            raise MisalignedError(
                f"Combiner {self.name!r} has no weights for {len(unseen):,} genes ({first_few(unseen, 3)}): they were "
                f"not among the {len(self.gene_names):,} it learned. Leave these genes out, or stack again with them."
            )
        return np.array([at[g] for g in names], dtype=np.int64)

    def _mix_available(self, tile: Tile, mixture: Mixture, there: Any, ranking: Any) -> Float32:
        """The documented rule if some predictions are missing; ``there`` is (M, n, n_genes)."""
        rows, shift = mixture.models, mixture.shift
        reference = tile.control if mixture.own else tile.pooled[None, :]
        spread = np.broadcast_to(mixture.weights, (tile.predictions.shape[2], len(rows)))  # (n_genes, M)
        needed = (spread != 0).T[:, None, :]  # (M, 1, n_genes)
        lacking = (needed & ~there).any(axis=0)  # (n, n_genes)
        filled = np.where(there, tile.predictions[rows], np.float32(0)).astype(np.float32)
        whole = replace(tile, predictions=np.where(there, filled, reference[None]).astype(np.float32))
        out = mixed(whole, replace(mixture, models=list(range(len(rows)))))
        convex = np.isclose(spread.sum(axis=1), 1.0) & (spread >= 0).all(axis=1)  # (n_genes,)
        share = np.einsum("gm,mng->ng", spread, there, optimize=True)
        rescale = lacking & convex[None, :] & (share > 0)
        deltas = out - reference - shift
        safe = np.where(share > 0, share, 1.0)
        out = np.where(rescale, reference + shift + deltas / safe, out)
        single, found = _best_available(filled, there, ranking)
        out = np.where(lacking & ~rescale, np.where(found, single, np.nan), out)
        return np.asarray(out, dtype=np.float32)

    def weights(self) -> dict[str, Any]:
        """Plain JSON: global weights in full, per-gene weights by their mean and spread (the rest is in ``arrays``)."""
        mean = np.atleast_2d(self.coefficients).mean(axis=0)
        spread = np.atleast_2d(self.coefficients).std(axis=0)
        return {
            "combiner": self.name,
            "reference": self.reference,
            "models": list(self.models),
            "per_gene": self.coefficients.ndim == 2,
            "mean": mean.tolist(),
            "spread": spread.tolist(),
            "effective_models": effective_models(mean),
            "cell_lines": sorted(self.by_cell_line),
            "facts": dict(self.facts),
            "cautions": list(self.cautions),
        }

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """``coefficients``, ``intercept`` and, per cell line, the same with the line's name behind a colon."""
        found: dict[str, np.ndarray[Any, Any]] = {"coefficients": self.coefficients, "intercept": self.intercept}
        for line, (coefficients, intercept) in sorted(self.by_cell_line.items()):
            found[f"coefficients:{line}"] = coefficients
            found[f"intercept:{line}"] = intercept
        return found


def effective_models(weights: Array) -> float:
    """Kish's effective number of models, (sum |w|)² / sum w²; 0.0 for no weights at all (Kish 1965).

    >>> effective_models(np.array([0.5, 0.5, 0.0]))
    2.0
    """
    square = float(np.square(weights).sum())
    return float(np.abs(weights).sum() ** 2 / square) if square > 0 else 0.0


def _best_available(filled: Float32, there: Any, ranking: Any) -> tuple[Float32, Any]:
    """Per row and gene the prediction of the best-ranked model that is there, and whether there is one."""
    out, found = np.zeros(filled.shape[1:], dtype=np.float32), np.zeros(filled.shape[1:], dtype=bool)
    columns = np.arange(filled.shape[2])
    for place in range(ranking.shape[1]):
        model = ranking[:, place]
        take = ~found & there[model, :, columns].T
        out = np.where(take, filled[model, :, columns].T, out)
        found |= take
    return out, found
