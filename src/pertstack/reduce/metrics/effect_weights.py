"""Gene weights from the measured effect, and the metrics that use them: weighted errors and recovered genes.

The effect of a perturbation on a gene is a Welch t statistic of its samples (replicates, cells) against those of all
other perturbations. Weights rise with |t|, or are equal on a set of genes: the strongest, the significant, the
most expressed. Every array holds one perturbation a row. Which rows and which profiles, is decided in
``effect_level.py``.

References: Mejia et al. 2025 (arXiv 2506.22641: weights from |t|, weighted MSE and R2 of deltas); Miller et al. 2025
and Vollenweider and Buehlmann 2026 (weighted Pearson of deltas); Ahlmann-Eltze et al. 2025 (the 1,000 most expressed
genes); Benjamini and Hochberg 1995.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertstack._base.arrays import Float64

SIGNIFICANT = 0.05
"""Adjusted p below which a gene counts as differentially expressed."""


@dataclass(frozen=True)
class EffectTest:
    """Per perturbation (row) and gene (column): difference of means, its t statistic, p and adjusted p."""

    difference: Float64
    t: Float64
    p: Float64
    p_adjusted: Float64  # Benjamini and Hochberg over the genes of a row


def welch_test(
    mean: Float64, variance: Float64, n: Float64, *, other_mean: Float64, other_variance: Float64, other_n: Float64
) -> EffectTest:
    """Welch's t-test of every perturbation against the others, gene by gene.

    Parameters
    ----------
    mean, variance : arrays, shape (n_perturbations, n_genes)
        Of a perturbation's samples; variances unbiased.
    n : array, shape (n_perturbations,)
        Samples of each. A perturbation measured once has no variance: that of the others stands in, with their
        degrees of freedom.
    other_mean, other_variance, other_n : as above, of the samples that a perturbation is tested against.

    Returns
    -------
    EffectTest
        A gene without any spread has t = 0 and p = 1.
    """
    from scipy import stats  # slow to import

    once = (n < 2)[:, None]
    spread = np.where(once, other_variance, variance)
    mine, theirs = spread / n[:, None], other_variance / other_n[:, None]
    square = mine + theirs
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (mean - other_mean) / np.sqrt(square)
        df = square**2 / (mine**2 / np.maximum(n - 1, 1)[:, None] + theirs**2 / np.maximum(other_n - 1, 1)[:, None])
        df = np.where(once, np.maximum(other_n - 1, 1)[:, None], df)
    t = np.nan_to_num(t, nan=0.0, posinf=0.0, neginf=0.0)
    df = np.where(np.isfinite(df) & (df > 0), df, 1.0)
    p = np.nan_to_num(2.0 * stats.t.sf(np.abs(t), df), nan=1.0)
    return EffectTest(mean - other_mean, t, p, np.asarray(stats.false_discovery_control(p, axis=1)))


def effect_weights(t: Float64, exponent: float) -> Float64:
    """Weights (n, n_genes) of sum one from |t|: scaled to [0, 1] over the genes of a row, then to a power.

    Equal |t| everywhere gives equal weights. Exponent 1, 2 or 4 in use; Mejia et al. 2025.

    >>> effect_weights(np.array([[0.0, -1.0, 2.0]]), 2.0).round(2).tolist()
    [[0.0, 0.2, 0.8]]
    """
    size = np.abs(t)
    low, high = size.min(axis=1, keepdims=True), size.max(axis=1, keepdims=True)
    scaled = np.divide(size - low, high - low, out=np.ones_like(size), where=high > low)
    return normalised(scaled**exponent)


def top_by_t(t: Float64, k: int) -> Float64:
    """Equal weights on the k genes of largest |t| of each row; ties by gene order."""
    order = np.argsort(-np.abs(t), axis=1, kind="stable")[:, :k]
    return _on(order, t.shape)


def significant(p_adjusted: Float64, level: float = SIGNIFICANT) -> Float64:
    """Equal weights on the genes with adjusted p below ``level``; rows without any are NaN."""
    return normalised((p_adjusted < level).astype(np.float64))


def most_expressed(control: Float64, k: int, n: int) -> Float64:
    """Equal weights on the genes of highest control expression, (n, n_genes), the same for all rows.

    Parameters
    ----------
    control : (n_genes,), mean control.
    k : how many genes.
    n : rows.
    """
    order = np.argsort(-control, kind="stable")[:k]
    return np.repeat(_on(order[None], (1, len(control))), n, axis=0)


def normalised(weights: Float64) -> Float64:
    """Rows scaled to sum one; a row of zeros becomes NaN, so that what is scored with it is undefined."""
    total = weights.sum(axis=1, keepdims=True)
    answer: Float64 = np.divide(weights, total, out=np.full_like(weights, np.nan), where=total > 0)
    return answer


def without(weights: Float64, genes: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Float64:
    """Weights with chosen genes of each row (n, n_genes) left out, scaled to sum one again."""
    return normalised(np.where(genes, 0.0, weights))


def _on(genes: np.ndarray[tuple[int, int], np.dtype[np.int64]], shape: tuple[int, ...]) -> Float64:
    weights = np.zeros(shape)
    np.put_along_axis(weights, genes, 1.0, axis=1)
    return normalised(weights)


def weighted_mse(truth: Float64, prediction: Float64, weights: Float64) -> Float64:
    """Sum over genes of w (t - p)^2, (n,). With equal weights on a set of genes: their mean squared error.

    Parameters
    ----------
    truth, prediction : (n, n_genes).
    weights : (n, n_genes), sum one per row.
    """
    answer: Float64 = (weights * (truth - prediction) ** 2).sum(axis=1)
    return answer


def weighted_pearson(truth: Float64, prediction: Float64, weights: Float64) -> Float64:
    """Weighted correlation (n,); NaN for a constant truth, 0 for a constant prediction.

    Parameters
    ----------
    truth, prediction, weights : as in ``weighted_mse``.
    """
    t = truth - (weights * truth).sum(axis=1, keepdims=True)
    p = prediction - (weights * prediction).sum(axis=1, keepdims=True)
    tt, pp, tp = ((weights * a * b).sum(axis=1) for a, b in ((t, t), (p, p), (t, p)))
    both = (tt > _NOTHING) & (pp > _NOTHING)
    r = np.divide(tp, np.sqrt(tt * pp), out=np.zeros_like(tp), where=both)
    return _where(tt > _NOTHING, np.clip(r, -1.0, 1.0))


def weighted_cod(truth: Float64, prediction: Float64, weights: Float64) -> Float64:
    """Weighted coefficient of determination (n,), unbounded below: what peers call ``weighted_r2``, ``r2_ctrl``. NaN
    for a constant truth.

    Parameters
    ----------
    truth, prediction, weights : as in ``weighted_mse``.
    """
    middle = (weights * truth).sum(axis=1, keepdims=True)
    total = (weights * (truth - middle) ** 2).sum(axis=1)
    error = weighted_mse(truth, prediction, weights)
    return _where(total > _NOTHING, 1.0 - np.divide(error, total, out=np.zeros_like(total), where=total > _NOTHING))


def corrected_mse(truth: Float64, prediction: Float64, variance: Float64, n: Float64) -> Float64:
    """Mean squared error (n,) less what the noise of the measured means alone would give; may be negative.

    Only the noise of the measurement is taken out: whoever corrects a prediction for the noise it reports can be made
    to score better by reporting more.

    Parameters
    ----------
    truth, prediction : (n, n_genes), means over samples.
    variance : (n, n_genes), unbiased, of the samples behind the measured mean.
    n : (n,), their number; a mean of one sample is NaN.
    """
    raw = ((truth - prediction) ** 2).mean(axis=1)
    return _where(n > 1, raw - np.divide(variance.mean(axis=1), n, out=np.zeros_like(raw), where=n > 1))


def direction_of_degs(test: EffectTest, prediction: Float64) -> Float64:
    """Share (n,) of significant genes whose predicted change has the measured sign; NaN without any."""
    degs = significant(test.p_adjusted)
    return np.asarray((degs * (np.sign(test.difference) == np.sign(prediction))).sum(axis=1))


def jaccard_of_degs(test: EffectTest, prediction: Float64) -> Float64:
    """Overlap (n,) of the significant genes with equally many genes of largest predicted change: |both| / |either|.

    A predicted mean cannot be tested, so the sets are made equally large; ties by gene order.
    """
    degs = test.p_adjusted < SIGNIFICANT
    size = degs.sum(axis=1)
    rank = np.argsort(np.argsort(-np.abs(prediction), axis=1, kind="stable"), axis=1, kind="stable")
    both = (degs & (rank < size[:, None])).sum(axis=1)
    return _where(size > 0, both / np.maximum(2 * size - both, 1))


def auprc_of_degs(test: EffectTest, prediction: Float64) -> Float64:
    """Area under precision and recall (n,) of finding significant genes by |predicted change|; NaN where none or all
    genes are significant."""
    from sklearn.metrics import average_precision_score  # slow to import

    degs = test.p_adjusted < SIGNIFICANT
    some = np.asarray(degs.any(axis=1) & ~degs.all(axis=1))
    scored = [
        float(average_precision_score(d, np.abs(p))) if s else np.nan
        for d, p, s in zip(degs, prediction, some, strict=True)
    ]
    return np.array(scored, dtype=np.float64)


def lfc_error_of_degs(test: EffectTest, prediction: Float64) -> Float64:
    """Sum of |predicted - measured change| over significant genes, as a share (n,) of their measured change."""
    degs = test.p_adjusted < SIGNIFICANT
    wrong = np.where(degs, np.abs(test.difference - prediction), 0.0).sum(axis=1)
    total = np.where(degs, np.abs(test.difference), 0.0).sum(axis=1)
    return _where(total > 0, np.divide(wrong, total, out=np.zeros_like(wrong), where=total > 0))


_NOTHING = 1e-20  # variance below which a side counts as constant (standard deviation 1e-10)


def _where(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], values: Float64) -> Float64:
    answer: Float64 = np.where(mask, values, np.nan)
    return answer
