"""The formulas of the metrics, from sums over a gene set. One function for out-of-fold and test alike.

For sample i: T = treated - reference, P = prediction - reference, on the genes of the set. The loops are in
``kernels.py``. Definitions, edge cases and sources: ``docs/metrics.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack.design.metric_names import Metric
from pertstack.reduce.metrics.kernels import MEAN_P, MEAN_T, N_SIGN, S_ABS, S_PP, S_SQ, S_TP, S_TT, N

SMALLEST_STD = 1e-10  # population standard deviation below which a side counts as constant


def from_sums(metric: Metric, sums: Float64, spearman: Float64 | None = None) -> Float64:
    """Values (n,) of a per-sample metric; NaN where undefined.

    A constant truth leaves the sample out of every correlation. A constant prediction leaves it out of ``r2``
    (canonical: Pearson r squared, valid if both population standard deviations reach 1e-10), and counts 0 in
    ``r2_*_strict``, ``pearson``, ``spearman`` and ``cosine``, so that abstaining is never paid. ``rmse``, ``mae``,
    ``sign_acc`` are always defined; ``cod`` = 1 - sum (T - P)^2 / sum (T - mean T)^2 wherever the truth varies.

    Parameters
    ----------
    metric : which.
    sums : (n, 9), over its gene set.
    spearman : (n,), rank correlations; needed for that metric only.
    """
    n = sums[:, N]
    truth_varies = np.sqrt(sums[:, S_TT] / n) >= SMALLEST_STD
    answer: Float64
    if metric.kind == "rmse":
        answer = np.sqrt(sums[:, S_SQ] / n)
    elif metric.kind == "mae":
        answer = sums[:, S_ABS] / n
    elif metric.kind == "sign_acc":
        answer = sums[:, N_SIGN] / n
    elif metric.kind == "cod":
        answer = _where(truth_varies, 1.0 - _ratio(sums[:, S_SQ], sums[:, S_TT], truth_varies))
    elif metric.kind == "cosine":
        answer = _cosine(sums)
    elif metric.kind == "spearman":
        assert spearman is not None
        varies = np.sqrt(sums[:, S_PP] / n) >= SMALLEST_STD
        answer = _where(truth_varies, np.where(varies, spearman, 0.0))
    else:
        answer = _correlation(metric, sums, truth_varies)
    return answer


def _correlation(metric: Metric, sums: Float64, truth_varies: Any) -> Float64:
    both = truth_varies & (np.sqrt(sums[:, S_PP] / sums[:, N]) >= SMALLEST_STD)
    r = np.clip(_ratio(sums[:, S_TP], np.sqrt(sums[:, S_TT]) * np.sqrt(sums[:, S_PP]), both), -1.0, 1.0)
    value = r * r if metric.kind == "r2" else r
    if metric.kind == "r2" and not metric.strict:
        return _where(both, value)
    return _where(truth_varies, np.where(both, value, 0.0))


def _cosine(sums: Float64) -> Float64:
    """Uncentred: a truth that is zero everywhere is undefined, a prediction that is zero everywhere counts 0."""
    n = sums[:, N]
    tt = sums[:, S_TT] + n * sums[:, MEAN_T] ** 2
    pp = sums[:, S_PP] + n * sums[:, MEAN_P] ** 2
    tp = sums[:, S_TP] + n * sums[:, MEAN_T] * sums[:, MEAN_P]
    truth = np.sqrt(tt / n) >= SMALLEST_STD
    both = truth & (np.sqrt(pp / n) >= SMALLEST_STD)
    return _where(truth, np.where(both, np.clip(_ratio(tp, np.sqrt(tt) * np.sqrt(pp), both), -1.0, 1.0), 0.0))


def _ratio(top: Float64, bottom: Float64, where: Any) -> Float64:
    return np.divide(top, bottom, out=np.zeros(top.shape), where=where)


def _where(mask: Any, values: Float64) -> Float64:
    """Values where the mask holds, NaN elsewhere."""
    answer: Float64 = np.where(mask, values, np.nan)
    return answer
