"""Scores of every base model alone, inside the evidence: what ``best_single`` chooses by.

By the primary metric itself: R2 Top-k from slices, correlation and RMSE over all genes from sample moments, everything
else from the visible rows, which are then read once more. Official scores with intervals are handled by
``reduce.score`` and ``verdict/``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pertstack.design.metric_names import Metric, parse_metric
from pertstack.predictions.source import BlockSource
from pertstack.predictions.sources.some_rows import SomeRows
from pertstack.reduce.scoring.score import score
from pertstack.stacking.solvers.top_gene import single_r2
from pertstack.stacking.sums import Array, Sums

if TYPE_CHECKING:
    from pertstack.reduce.references import References
    from pertstack.reduce.sums.reduction import Reduction


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


def score_singles(
    reduction: Reduction,
    primary: str,
    sums: Sums,
    *,
    source: BlockSource | None = None,
    references: References | None = None,
) -> SingleScores:
    """Goodness of each model on the primary metric over the rows that all models predict (each one's own, if none are).

    Larger is better: errors have their sign turned. A model without a single defined sample gets -inf.

    Parameters
    ----------
    reduction : restricted to the rows that may be seen.
    primary : metric by name.
    sums : of the same rows, for the mean squared error.
    source, references : to read rows if the reduction does not determine the metric (against the centroid, Spearman,
        landmarks, retrieval, ...). Without them mean squared error stands in there, with a caution.
    """
    metric = parse_metric(primary)
    values = _from_slices(reduction, metric, sums.n_genes)
    values = _from_moments(reduction, metric) if values is None else values
    if values is None and source is not None and references is not None:
        rows = SomeRows.of_blocks(source, reduction.blocks)
        table = score(rows, {}, references, metrics=(metric,))
        values = np.stack([table.values(m, primary) for m in reduction.models]).astype(np.float64)
    if values is None:
        return SingleScores(-mean_squared_errors(sums), "mse_all", (_stand_in(primary),))
    mean = _mean_of_common(values)
    return SingleScores(np.where(np.isfinite(mean), mean if metric.higher_is_better else -mean, -np.inf), primary)


def _from_slices(reduction: Reduction, metric: Metric, n_genes: int) -> Array | None:
    """R2 Top-k (M, n) from the top-gene slices; None for other metrics."""
    if metric.kind != "r2" or metric.top is None or metric.landmark or metric.reference not in reduction.slices:
        return None
    values = single_r2(reduction.slices[metric.reference], metric.reference, min(metric.top, n_genes))
    if metric.strict:
        values = np.where(np.isnan(values) & np.isfinite(values).any(axis=0), 0.0, values)
    return values


def _from_moments(reduction: Reduction, metric: Metric) -> Array | None:
    """Pearson and RMSE over all genes (M, n) from sample moments; None for other metrics."""
    known = metric.kind in ("pearson", "rmse") and metric.top is None and not metric.landmark
    if not known or metric.reference not in ("own", "pooled"):
        return None
    moments, each = reduction.sample, np.eye(reduction.n_models)
    measure = moments.pearson if metric.kind == "pearson" else moments.rmse
    return np.stack([measure(one, metric.reference) for one in each])


def _mean_of_common(values: Array) -> Array:
    """Mean over the samples in which every model is defined, (M,); each one's own samples when there are none.

    Models that are defined nowhere have no say in which samples are common.
    """
    defined = np.isfinite(values)
    common = defined[defined.any(axis=1)].all(axis=0)
    rows = values[:, common] if common.any() else values
    n = np.isfinite(rows).sum(axis=1)
    return np.asarray(np.where(n > 0, np.nansum(rows, axis=1) / np.maximum(n, 1), np.nan))


def mean_squared_errors(sums: Sums) -> Array:
    """Mean squared error of each model over complete genes (its own available genes when none are complete), (M,)."""
    errors = np.einsum("gmm->gm", sums.error_gram())
    seen = sums.available & (sums.complete[:, None] if sums.complete.any() else True)
    total = np.where(seen, errors, 0.0).sum(axis=0)
    count = np.where(seen, sums.count[:, None], 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1.0), np.inf))


def _stand_in(primary: str) -> str:
    return (
        f"The best single model is chosen by squared error, because {primary} needs rows and only sums are at hand; "
        f"provide source and references to choose by it."
    )
