"""Reduced-rank ridge regression of many targets on some features, from sums alone, and its error on held-out sums.

Pure functions. Where the sums come from is handled by ``stacking/experimental/embedding_sums.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pertstack.stacking.experimental.embedding_sums import FeatureSums
from pertstack.stacking.sums import Array


@dataclass(frozen=True, eq=False)
class LowRank:
    """Slopes ``left @ right``, (F, r) and (r, G), between features about ``mean_x`` and targets."""

    mean_x: Array
    left: Array
    right: Array
    energy: Array  # (r,) what each component explains of the fitted targets, penalty included; descending

    def cut(self, rank: int) -> LowRank:
        return LowRank(self.mean_x, self.left[:, :rank], self.right[:rank], self.energy[:rank])

    def predict(self, x: Array) -> Array:
        """(n, G) float64."""
        return np.asarray(((x - self.mean_x) @ self.left) @ self.right)


def low_rank_paths(sums: FeatureSums, strengths: Sequence[float], most: int) -> Iterator[LowRank]:
    """Slopes for each penalty in turn, components in order: the first r are the solution of rank r.

    Minimises ``|Y - X B|² + p |B|²`` over B of rank r, with ``p = strength * trace(X'X) / F``: the ridge solution
    projected on the leading right singular vectors of its fit to the rows with the penalty's rows added (Mukherjee and
    Zhu 2011, Statistical Analysis and Data Mining 4, 612-622). With ``A = X'X + p`` and ``M = A^-1/2 X'Y`` these are
    M's, so one F x F eigenproblem per penalty does, F being the number of features.

    Parameters
    ----------
    sums : centred sums of F features and G targets.
    strengths : >= 0, no unit.
    most : largest rank.
    """
    values, vectors = np.linalg.eigh(sums.xx)
    values = np.maximum(values, 0.0)
    n_features = max(len(values), 1)
    unit = float(values.sum()) / n_features
    turned = vectors.T @ sums.xy  # (F, G)
    gram = turned @ turned.T
    for strength in strengths:
        shrink = 1.0 / np.sqrt(np.maximum(values + strength * unit, 1e-300)) if unit > 0 else np.zeros(len(values))
        energy, axes = np.linalg.eigh(shrink[:, None] * gram * shrink[None, :])
        order = np.argsort(-energy, kind="stable")[:most]
        scaled = shrink[:, None] * axes[:, order]  # (F, r)
        yield LowRank(sums.mean_x, vectors @ scaled, scaled.T @ turned, np.maximum(energy[order], 0.0))


def held_out_errors(path: LowRank, held: FeatureSums, intercept: Array) -> Array:
    """Squared error on held-out rows of ``intercept + slopes`` of rank 0, 1, ..., r; (r + 1,), target units squared.

    Components of one path have right factors that are orthogonal, so ranks add up and all cost as much as one.

    Parameters
    ----------
    path : of rank r, learned without the held-out rows.
    held : sums of the held-out rows, same features and targets.
    intercept : (G,), prediction at ``path.mean_x``.
    """
    xx, xy, yy = held.around(path.mean_x, intercept)
    cross = np.einsum("fk,fk->k", path.left, xy @ path.right.T)
    own = np.einsum("fk,fk->k", path.left, xx @ path.left) * path.energy
    return np.asarray(yy + np.concatenate([[0.0], np.cumsum(own - 2 * cross)]))
