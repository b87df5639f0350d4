"""How bold every model is: the slope of the measured on its predicted change."""

from __future__ import annotations

import numpy as np

from pertstack.reduce.sums.reduction import Reduction
from pertstack.stacking.sums import merge_within, regression_sums


def slopes_of(reduction: Reduction) -> dict[str, float]:
    """Slope of the measured on each model's predicted delta, within genes and folds, over out-of-fold rows.

    1 is well calibrated; below 1 the model is too bold, above 1 too timid. A model whose deltas hardly vary (less than
    a thousandth of the measured variance) is left out. Within folds, because fold means of cross-fitted predictions
    move against the truth (``stack.sums.merge_within``).
    """
    folds = sorted({b.fold for b in reduction.blocks if b.fold is not None})
    sums = merge_within([regression_sums(reduction.select(folds=[k]).moments(), "own") for k in folds])
    spread, together, least = np.einsum("gmm->m", sums.xx), sums.xt.sum(axis=0), 1e-3 * float(sums.tt.sum())
    return {m: float(t / s) for m, s, t in zip(reduction.models, spread, together, strict=True) if s > least}
