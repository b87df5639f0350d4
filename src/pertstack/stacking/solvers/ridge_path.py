"""Ridge solutions for many genes and many penalties at once, from sums (methods F1 and F6).

One eigen-decomposition per gene and training set serves every penalty. Which penalty is taken is decided by leaving
folds out, also from sums; no row is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pertstack.stacking.sums import Array, Sums

STRENGTHS: Array = np.concatenate([[1e-6], np.logspace(-4, 3, 19)])
"""Default grid of 20 scale-free strengths: penalty = strength * trace(gram) / M."""


@dataclass(frozen=True)
class RidgePath:
    """Weights and intercepts for every strength, and how well each gene's problem was conditioned."""

    weights: Array  # (n_genes, n_strengths, M)
    intercept: Array  # (n_genes, n_strengths)
    condition: Array  # (n_genes,) largest over smallest eigenvalue of the centred gram among available models


def ridge_path(sums: Sums, strengths: Array, *, toward: Array | None = None, scale: Array | None = None) -> RidgePath:
    """Per gene ``argmin |t - w0 - Xw|² + a |w - toward|²`` for ``a = strength * scale``, intercept not penalised.

    Solved as ``toward + (G + aI)^-1 (b - G toward)`` with centred G and b; Hoerl and Kennard (1970), Lindley and
    Smith (1972).

    Parameters
    ----------
    sums : Sums
        Centred sums of the training rows.
    strengths : array, shape (n_strengths,)
        Unitless, > 0. A large one gives ``toward`` (or zero).
    toward : array, shape (M,) or (n_genes, M), optional
        Where weights are pulled to; zero when absent.
    scale : array, shape (n_genes,), optional
        Penalty units per gene; default trace(G) / M of these sums. Genes that do not vary get weights ``toward``.
    """
    n_models = sums.n_models
    target = np.zeros((sums.n_genes, n_models)) if toward is None else np.broadcast_to(toward, (sums.n_genes, n_models))
    target = np.where(sums.available | ~sums.available.any(axis=1, keepdims=True), target, 0.0)
    unit = penalty_scale(sums) if scale is None else scale
    values, vectors = np.linalg.eigh(sums.xx)
    values = np.maximum(values, 0.0)
    pull = (sums.xt - (sums.xx @ target[:, :, None])[:, :, 0])[:, None, :] @ vectors  # (n_genes, 1, M)
    penalty = unit[:, None] * strengths[None, :]  # (n_genes, n_strengths)
    below = values[:, None, :] + penalty[:, :, None]
    scaled = np.divide(np.broadcast_to(pull, below.shape), below, out=np.zeros(below.shape), where=below > 0)
    weights = target[:, None, :] + scaled @ vectors.transpose(0, 2, 1)
    weights = np.where(sums.available[:, None, :] | (sums.count == 0)[:, None, None], weights, 0.0)
    intercept = sums.mean_t[:, None] - (weights @ sums.mean_x[:, :, None])[:, :, 0]
    return RidgePath(weights, intercept, condition_numbers(values, sums))


def penalty_scale(sums: Sums) -> Array:
    """trace(G) / M per gene over available models, (n_genes,): what a strength of one means."""
    there = np.maximum(sums.available.sum(axis=1), 1)
    return np.asarray(np.einsum("gmm->g", sums.xx) / there)


def condition_numbers(values: Array, sums: Sums) -> Array:
    """Largest over smallest eigenvalue of the available part of each gram; inf where singular, 1 where nothing
    varies."""
    first = sums.n_models - sums.available.sum(axis=1)  # zero rows of missing models sort first
    smallest = np.take_along_axis(values, np.minimum(first, sums.n_models - 1)[:, None], axis=1)[:, 0]
    largest = values[:, -1]
    safe = np.where(smallest > 0, smallest, 1.0)
    return np.asarray(np.where(largest <= 0, 1.0, np.where(smallest > 0, largest / safe, np.inf)))


def cross_validated_error(
    splits: Sequence[tuple[Sums, Sums]],
    strengths: Array,
    *,
    toward: Callable[[Sums], Array] | None = None,
    scale: Array | None = None,
) -> Array:
    """Squared error on the rows left out, summed over splits, (n_genes, n_strengths); delta units squared.

    Parameters
    ----------
    splits : (learn, held) sums, one pair per fold left out.
    strengths : (n_strengths,), as in ``ridge_path``.
    toward : gives, from the sums of a training part, where weights are pulled to; learned anew for each, so that
        nothing of the held part is known. None for zero.
    scale : (n_genes,) penalty units; None for those of each training part.
    """
    total = np.zeros((splits[0][0].n_genes, len(strengths)))
    for learn, held in splits:
        path = ridge_path(learn, strengths, toward=None if toward is None else toward(learn), scale=scale)
        total += held.squared_error(path.weights, path.intercept)
    return total


def pick(path: RidgePath, at: Array | int) -> tuple[Array, Array]:
    """Weights (n_genes, M) and intercepts (n_genes,) at one strength for all genes, or one per gene."""
    place = np.broadcast_to(np.asarray(at), path.intercept.shape[:1])
    rows = np.arange(path.intercept.shape[0])
    return path.weights[rows, place], path.intercept[rows, place]
