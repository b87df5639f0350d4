"""Which base models say the same whatever was done: their predictions hardly vary within a cell line and fold.

Such a model is a fair benchmark and a poor thing to ship: it answers no question about a perturbation. What is made of
it is decided in ``stacking/choose.py`` and ``stacking/combiners/references/best_informed.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.sums import regression_sums

if TYPE_CHECKING:
    from pertstack.reduce.sums.reduction import Reduction

LEAST_SHARE = 1e-3
"""Predicted variance within blocks, as a share of the measured one, below which a model counts as constant."""


def constant_models(reduction: Reduction) -> tuple[str, ...]:
    """Models whose predicted profile, or predicted change from control, is one and the same within every block.

    From gene moments: the variance within blocks of ``prediction - pooled`` or of ``prediction - own control``, summed
    over genes, is below ``LEAST_SHARE`` of the measured variance.
    """
    smallest = np.full(len(reduction.models), np.inf)
    for reference in ("pooled", "own"):
        predicted, measured = np.zeros(len(reduction.models)), 0.0
        for block in reduction.blocks:
            sums = regression_sums(reduction.gene[block], reference)
            predicted += np.einsum("gmm->m", sums.xx)
            measured += float(sums.tt.sum())
        smallest = np.minimum(smallest, predicted / measured if measured > 0 else np.inf)
    return tuple(m for m, share in zip(reduction.models, smallest, strict=True) if share < LEAST_SHARE)


def is_constant(fitted: FittedCombiner, constants: Iterable[str]) -> bool:
    """Whether a combination says the same whatever was done: all its weight lies on constant models."""
    known = set(constants)
    if known.issuperset(fitted.models):
        return True
    if not isinstance(fitted, LinearWeights):
        return False
    size = np.abs(np.atleast_2d(fitted.coefficients)).max(axis=0)
    return bool(all(s <= 1e-9 for m, s in zip(fitted.models, size, strict=True) if m not in known))
