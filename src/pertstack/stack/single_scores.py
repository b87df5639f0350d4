"""Scores of every base model alone, inside the evidence: what ``best_single`` chooses by.

Top-gene metrics come from slices, squared error from gene sums; nothing is read again. Official scores with intervals
are the business of ``reduce.score`` and ``verdict/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pertstack.reduce.metrics.names import parse_metric
from pertstack.stack.sums import Array, Sums
from pertstack.stack.top_gene import single_r2

if TYPE_CHECKING:
    from pertstack.reduce.reduction import Reduction


@dataclass(frozen=True)
class SingleScores:
    """Goodness of each base model (larger is better), the metric it was measured by, and cautions."""

    goodness: Array  # (M,)
    metric: str
    cautions: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Position of the best model; ties go to the first."""
        return int(np.argmax(self.goodness))


def score_singles(reduction: Reduction, primary: str, sums: Sums) -> SingleScores:
    """Goodness of each model on the primary metric over the rows that all models predict (each one's own, if none are).

    ``r2_topk`` and ``r2_topk_strict`` are exact; every other metric is stood in for by mean squared error, with a
    caution. A model without a single defined sample gets -inf.
    """
    metric = parse_metric(primary)
    if metric.kind == "r2" and metric.top is not None and not metric.landmark and metric.reference in reduction.slices:
        k = min(metric.top, sums.n_genes)
        values = single_r2(reduction.slices[metric.reference], metric.reference, k)
        if metric.strict:
            values = np.where(np.isnan(values) & np.isfinite(values).any(axis=0), 0.0, values)
        common = np.isfinite(values).all(axis=0)
        rows = values[:, common] if common.any() else values
        n = np.isfinite(rows).sum(axis=1)
        mean = np.nansum(rows, axis=1) / np.maximum(n, 1)
        return SingleScores(np.where(n > 0, mean, -np.inf), primary)
    error = mean_squared_errors(sums)
    cautions = () if metric.kind == "rmse" else (_stand_in(primary),)
    return SingleScores(-error, "mse_all", cautions)


def mean_squared_errors(sums: Sums) -> Array:
    """Mean squared error of each model over complete genes (its own available genes when none are complete), (M,)."""
    errors = np.einsum("gmm->gm", sums.error_gram())
    seen = sums.available & (sums.complete[:, None] if sums.complete.any() else True)
    total = np.where(seen, errors, 0.0).sum(axis=0)
    count = np.where(seen, sums.count[:, None], 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1.0), np.inf))


def _stand_in(primary: str) -> str:
    return (
        f"Inside the folds the best single model is chosen by squared error, because {primary} cannot be computed from "
        f"slices; name r2_topk as primary metric to choose by it."
    )
