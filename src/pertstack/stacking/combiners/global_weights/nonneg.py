"""Non-negative least squares over all genes; not normalised afterwards, which would be the optimum of neither
problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, one_gene


def nonneg_weights(gram: Array, cross: Array, *, tolerance: float = 1e-12) -> Array:
    """``argmin w'Gw - 2 b'w`` with ``w >= 0``: active sets on G and b alone (Lawson and Hanson 1974; Bro and de Jong
    1997).

    Parameters
    ----------
    gram, cross : arrays of shape (M, M) and (M,), uncentred sums, delta units squared.
    tolerance : relative slope under which a weight of zero stays.

    Returns
    -------
    weights : array, shape (M,)
        Zeros where nothing correlates with the target. Identical models: the first takes the weight.
    """
    n_models = cross.shape[0]
    weights, passive = np.zeros(n_models), np.zeros(n_models, dtype=bool)
    floor = tolerance * max(float(np.abs(cross).max(initial=0.0)), np.finfo(float).tiny)
    ridge = 1e-13 * max(float(np.trace(gram)) / n_models, np.finfo(float).tiny) * np.eye(n_models)
    for _ in range(30 * n_models):
        slope = cross - gram @ weights
        slope[passive] = -np.inf
        entering = int(np.argmax(slope))
        if slope[entering] <= floor:
            break
        passive[entering] = True
        while passive.any():
            at = np.flatnonzero(passive)
            wanted = np.linalg.solve((gram + ridge)[np.ix_(at, at)], cross[at])
            if (wanted > 0).all():
                weights = np.zeros(n_models)
                weights[at] = wanted
                break
            low = wanted <= 0
            room = weights[at][low] - wanted[low]
            step = float(np.min(np.where(room > 0, weights[at][low] / np.where(room > 0, room, 1.0), 0.0)))
            weights[at] += step * (wanted - weights[at])
            leaving = at[low & (weights[at] <= 1e-15)]
            passive[leaving if leaving.size else at[low]] = False
            weights[~passive] = 0.0
    return weights


@dataclass(frozen=True)
class Nonneg(Combiner):
    """Non-negative weights of least squared error over all genes (Breiman 1996); their sum is free, so scale is
    learned.

    Rows and genes that lack a model it uses fall back to the gene's best available model.
    """

    name: ClassVar[str] = "nonneg"
    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 3

    def fit(self, evidence: Evidence) -> LinearWeights:
        pooled = one_gene(evidence.sums)
        weights = nonneg_weights(pooled.xx[0], pooled.xt[0])
        gradient = pooled.xx[0] @ weights - pooled.xt[0]
        scale = max(float(np.abs(pooled.xt).max()), np.finfo(float).tiny)
        residual = max(float(np.abs(gradient * weights).max()), float(-gradient.min())) / scale
        return linear(self.name, evidence, weights, facts={"kkt_residual": residual})
