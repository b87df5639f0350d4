"""Regression sums: gene moments seen from one reference, as the squared-error combiners need them.

Gene moments hold own deltas, ``y = treated - control`` and ``offset = control - pooled``. Every regression on
``prediction - reference`` follows from them by a linear map, so no combiner reads the predictions again. How moments
are summed is handled by ``reduce/``; which rows may be seen, by ``stacking/evidence.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from pertstack._base.errors import InputError

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Reference = Literal["pooled", "own"]


class Moments(Protocol):
    """What is read of ``reduce.GeneMoments``: columns delta_1..M, y, offset; count, mean and centred scatter per
    gene."""

    @property
    def count(self) -> Any: ...  # (n_genes,)

    @property
    def mean(self) -> Any: ...  # (n_genes, M + 2)

    @property
    def scatter(self) -> Any: ...  # (n_genes, M + 2, M + 2)


@dataclass(frozen=True)
class Sums:
    """Centred sums per gene of regressors x_m = prediction_m - reference and target t = treated - reference.

    A model that is not available for a gene has zeros in its row and column and False in ``available``.
    """

    count: Array  # (n_genes,) rows summed
    mean_x: Array  # (n_genes, M)
    mean_t: Array  # (n_genes,)
    xx: Array  # (n_genes, M, M) centred
    xt: Array  # (n_genes, M) centred
    tt: Array  # (n_genes,) centred
    available: Mask  # (n_genes, M)

    @property
    def n_genes(self) -> int:
        return int(self.count.shape[0])

    @property
    def n_models(self) -> int:
        return int(self.mean_x.shape[1])

    @property
    def complete(self) -> Mask:
        """(n_genes,) genes with rows that every model predicts."""
        return np.asarray(self.available.all(axis=1) & (self.count > 0))

    def raw_gram(self) -> Array:
        """Uncentred sums of x x', (n_genes, M, M)."""
        return np.asarray(self.xx + self.count[:, None, None] * self.mean_x[:, :, None] * self.mean_x[:, None, :])

    def raw_cross(self) -> Array:
        """Uncentred sums of x t, (n_genes, M)."""
        return np.asarray(self.xt + (self.count * self.mean_t)[:, None] * self.mean_x)

    def raw_target(self) -> Array:
        """Uncentred sums of t², (n_genes,)."""
        return np.asarray(self.tt + self.count * self.mean_t**2)

    def error_gram(self) -> Array:
        """Sums of e e' with e_m = x_m - t, (n_genes, M, M): the quadratic form of every mixture with weights of sum
        one."""
        cross = self.raw_cross()
        return np.asarray(self.raw_gram() - cross[:, :, None] - cross[:, None, :] + self.raw_target()[:, None, None])

    def squared_error(self, weights: Array, intercept: Array) -> Array:
        """Sum over the rows of (t - intercept - w'x)², (n_genes, ...).

        ``weights`` is (n_genes, ..., M) and ``intercept`` (n_genes, ...): any number of candidates at once.
        """
        many = weights.reshape(self.n_genes, -1, self.n_models)  # (n_genes, candidates, M)
        fitted = ((many @ self.xx) * many).sum(axis=2)
        cross = (many @ self.xt[:, :, None])[:, :, 0]
        level = (many @ self.mean_x[:, :, None])[:, :, 0]
        bias = self.mean_t[:, None] - intercept.reshape(self.n_genes, -1) - level
        total = self.tt[:, None] - 2 * cross + fitted + self.count[:, None] * bias**2
        return np.asarray(np.maximum(total, 0.0).reshape(intercept.shape))

    def over_genes(self, genes: Any = None) -> tuple[Array, Array, float]:
        """Uncentred gram (M, M), cross (M,) and target sum over the chosen genes (default: all complete genes)."""
        chosen = self.complete if genes is None else genes
        return (
            self.raw_gram()[chosen].sum(axis=0),
            self.raw_cross()[chosen].sum(axis=0),
            float(self.raw_target()[chosen].sum()),
        )


def regression_sums(moments: Moments, reference: Reference) -> Sums:
    """Sums of ``prediction - reference`` and ``treated - reference`` from gene moments, exactly.

    With reference "own" the regressors are the deltas and the target is y; with "pooled" they are delta + offset and
    y + offset, where offset = control - pooled control of the cell line.
    """
    count = np.asarray(moments.count, dtype=np.float64)
    mean = np.asarray(moments.mean, dtype=np.float64)
    scatter = np.asarray(moments.scatter, dtype=np.float64)
    n_models = mean.shape[1] - 2
    transform = np.eye(n_models + 1, n_models + 2)
    if reference == "pooled":
        transform[:, -1] = 1.0
    elif reference != "own":
        raise InputError(f"Combiners learn against the reference 'pooled' or 'own'; {reference!r} is neither.")
    available = np.isfinite(mean[:, :n_models]) & (count > 0)[:, None]
    if hasattr(moments, "available"):
        available &= np.asarray(moments.available, dtype=bool)
    mean = np.where(np.isfinite(mean), mean, 0.0)
    scatter = np.where(np.isfinite(scatter), scatter, 0.0)
    mean = mean @ transform.T
    scatter = transform @ scatter @ transform.T
    keep = available.astype(np.float64)
    return Sums(
        count=count,
        mean_x=mean[:, :-1] * keep,
        mean_t=mean[:, -1].copy(),
        xx=scatter[:, :-1, :-1] * keep[:, :, None] * keep[:, None, :],
        xt=scatter[:, :-1, -1] * keep,
        tt=scatter[:, -1, -1].copy(),
        available=available,
    )


def merge_sums(parts: Sequence[Sums]) -> Sums:
    """Sums over all parts together. A model counts as available for a gene if every part with rows has it.

    Parts are merged in the order given, so equal parts in equal order give equal bits.
    """
    if not parts:
        raise InputError("There is nothing to learn from: no block of rows is left. Give at least two folds.")
    total = parts[0]
    for part in parts[1:]:
        total = _merge_two(total, part)
    return total


def merge_within(parts: Sequence[Sums]) -> Sums:
    """As ``merge_sums``, but centred within each part: differences between the parts' means stay out of the scatter.

    Out-of-fold predictions of fold j come from fits on the other folds, so their mean moves against the mean of fold
    j: a fold measured high by chance is predicted low. Slopes with an intercept per gene would learn that artefact of
    cross-fitting (for K folds, a slope of -(K - 1) on a constant model). Within folds it is not there. The means, and
    with them the intercepts, stay those of all rows.
    """
    total = merge_sums(parts)
    keep = total.available.astype(np.float64)
    return replace(
        total,
        xx=np.sum([p.xx for p in parts], axis=0) * keep[:, :, None] * keep[:, None, :],
        xt=np.sum([p.xt for p in parts], axis=0) * keep,
        tt=np.sum([p.tt for p in parts], axis=0),
    )


def _merge_two(a: Sums, b: Sums) -> Sums:
    count = a.count + b.count
    share = np.divide(b.count, count, out=np.zeros(count.shape), where=count > 0)
    weight = a.count * share
    available = (a.available | (a.count == 0)[:, None]) & (b.available | (b.count == 0)[:, None]) & (count > 0)[:, None]
    keep = available.astype(np.float64)
    step_x, step_t = b.mean_x - a.mean_x, b.mean_t - a.mean_t
    xx = a.xx + b.xx + weight[:, None, None] * step_x[:, :, None] * step_x[:, None, :]
    return Sums(
        count=count,
        mean_x=(a.mean_x + share[:, None] * step_x) * keep,
        mean_t=a.mean_t + share * step_t,
        xx=xx * keep[:, :, None] * keep[:, None, :],
        xt=(a.xt + b.xt + weight[:, None] * step_x * step_t[:, None]) * keep,
        tt=a.tt + b.tt + weight * step_t**2,
        available=available,
    )


def one_gene(sums: Sums, genes: Any = None) -> Sums:
    """The chosen genes (default: the complete ones) put together as if they were one, without intercept.

    Where no gene is complete, every gene that has rows is taken; a model counts only if it predicts.
    """
    chosen = np.asarray(sums.complete if genes is None else genes)
    if not chosen.any():
        chosen = sums.count > 0
    gram, cross, target = sums.over_genes(chosen)
    return Sums(
        count=np.array([float(sums.count[chosen].sum())]),
        mean_x=np.zeros((1, sums.n_models)),
        mean_t=np.zeros(1),
        xx=gram[None],
        xt=cross[None],
        tt=np.array([target]),
        available=sums.available[chosen].any(axis=0)[None],
    )


def stack_sums(parts: Sequence[Sums]) -> Sums:
    """Sums side by side along the gene axis: problems to be solved at once, each on its own."""
    return Sums(
        *(
            np.concatenate([getattr(p, name) for p in parts])
            for name in ("count", "mean_x", "mean_t", "xx", "xt", "tt", "available")
        )
    )
