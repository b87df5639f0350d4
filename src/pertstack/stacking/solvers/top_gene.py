"""Mean R2 Top-k of any mixture from top-gene slices, with its exact gradient (methods F8).

For sample i let Q_i (M, k) be ``prediction - reference`` on its k genes of largest ``|treated - reference|`` and t_i
the truth there, both centred over the k genes. A mixture w has r_i = w'b_i / sqrt(yy_i w'A_i w) with A_i = Q_i Q_i',
b_i = Q_i t_i. How weights are searched is handled by ``direct.py`` and the greedy combiners.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pertstack._base.errors import InputError
from pertstack.stacking.sums import Array, Mask, Reference

_PIECE = 8192  # samples turned to float64 at once
_FLAT = 1e-10  # population standard deviation below which a vector counts as constant, as in the canonical metric


class Slices(Protocol):
    """What is read of ``reduce.TopSlices``: own delta, own y and offset on each sample's ordered top genes."""

    @property
    def genes(self) -> Any: ...  # (n, k)

    @property
    def y(self) -> Any: ...  # (n, k)

    @property
    def offset(self) -> Any: ...  # (n, k)

    @property
    def delta(self) -> Any: ...  # (n, M, k)


@dataclass(frozen=True)
class TopGeneSums:
    """Per sample the quadratic form of R2 Top-k in global weights. Samples of constant truth are left out."""

    a: Array  # (n, M, M)
    b: Array  # (n, M)
    yy: Array  # (n,)
    k: int
    rows: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Which rows of the slices these are, (n,)."""

    @property
    def n(self) -> int:
        return int(self.b.shape[0])

    def correlations(self, weights: Array) -> tuple[Array, Array]:
        """Signed r of each sample and the variance w'A w it was divided by; r = 0 for a constant prediction."""
        top = self.b @ weights
        spread = np.einsum("m,nml,l->n", weights, self.a, weights, optimize=True)
        good = spread > self.k * _FLAT**2
        safe = np.where(good, spread, 1.0)
        return np.where(good, top / np.sqrt(safe * self.yy), 0.0), np.where(good, spread, np.inf)

    def value(self, weights: Array) -> float:
        """Mean over samples of r |r|: R2 with the sign of agreement, so that anti-correlation never pays."""
        r, _ = self.correlations(weights)
        return float(np.mean(r * np.abs(r))) if self.n else 0.0

    def mean_of(self, top: Array, spread: Array) -> Array:
        """Mean over samples of r |r| for many mixtures at once, (c,), from their w'b and w'Aw, both (n, c)."""
        if not self.n:
            return np.zeros(top.shape[1])
        good = spread > self.k * _FLAT**2
        r = np.where(good, top / np.sqrt(np.where(good, spread, 1.0) * self.yy[:, None]), 0.0)
        return np.asarray(np.mean(r * np.abs(r), axis=0))

    def value_and_gradient(self, weights: Array) -> tuple[float, Array]:
        """``value`` and its derivative: 2 |r| dr, with dr/dw = b / sqrt(yy q) - r A w / q and q = w'A w."""
        if not self.n:
            return 0.0, np.zeros_like(weights)
        aw = self.a @ weights  # (n, M)
        top, spread = self.b @ weights, aw @ weights
        good = spread > self.k * _FLAT**2
        q = np.where(good, spread, 1.0)
        root = np.sqrt(q * self.yy)
        r = np.where(good, top / root, 0.0)
        steep = np.where(good, 2.0 * np.abs(r), 0.0)
        gradient = (steep / root) @ self.b - (steep * r / q) @ aw
        return float(np.mean(r * np.abs(r))), gradient / self.n


def usable_models(slices: Slices, k: int) -> Mask:
    """(M,) models that predict all top k genes in at least half of the samples; the others would leave too few to
    learn."""
    whole = np.isfinite(np.asarray(slices.delta)[:, :, :k]).all(axis=2)  # (n, M)
    return np.asarray(whole.mean(axis=0) >= 0.5) if whole.shape[0] else np.ones(whole.shape[1], dtype=bool)


def top_gene_sums(slices: Slices, reference: Reference | str, k: int, *, rows: Mask | None = None) -> TopGeneSums:
    """Quadratic forms of every sample that all usable models predict and whose truth varies over its top k genes.

    Models that are not usable have zeros. Samples are taken in pieces, so that float64 copies stay small.

    Parameters
    ----------
    slices : top genes of n samples.
    reference : "own" or "pooled": what deltas refer to.
    k : how many top genes.
    rows : (n,), the samples to take; None for all.

    Raises
    ------
    InputError
        The slices hold fewer than k genes.
    """
    n, held = np.asarray(slices.y).shape
    if held < k:
        raise InputError(f"The slices hold {held} top genes; k = {k} asks for more. Reduce again with k >= {k}.")
    usable = usable_models(slices, k)
    chosen = np.arange(n) if rows is None else np.flatnonzero(rows)
    pieces = [
        _forms(slices, reference, k, usable=usable, rows=chosen[at : at + _PIECE])
        for at in range(0, len(chosen), _PIECE)
    ]
    n_models = usable.size
    a = np.concatenate([p[0] for p in pieces]) if pieces else np.zeros((0, n_models, n_models))
    b = np.concatenate([p[1] for p in pieces]) if pieces else np.zeros((0, n_models))
    yy = np.concatenate([p[2] for p in pieces]) if pieces else np.zeros(0)
    at = np.concatenate([p[3] for p in pieces]) if pieces else np.zeros(0, dtype=np.int64)
    return TopGeneSums(a, b, yy, k=k, rows=at)


def _forms(slices: Slices, reference: str, k: int, *, usable: Mask, rows: Any) -> tuple[Array, Array, Array, Any]:
    x, t = _centred(slices, reference, k, rows)
    x[:, ~usable] = 0.0
    yy = np.einsum("nk,nk->n", t, t)
    good = np.isfinite(x).all(axis=(1, 2)) & (yy > k * _FLAT**2)  # NaN in yy compares False
    x, t = x[good], t[good]
    return x @ x.transpose(0, 2, 1), (x @ t[:, :, None])[:, :, 0], yy[good], rows[good]


def _centred(slices: Slices, reference: str, k: int, rows: Any = slice(None)) -> tuple[Array, Array]:
    """prediction - reference (n, M, k) and treated - reference (n, k) on the top k genes, centred over them,
    float64."""
    delta, y = np.asarray(slices.delta)[rows, :, :k], np.asarray(slices.y)[rows, :k]
    shift = np.zeros_like(y) if reference == "own" else np.asarray(slices.offset)[rows, :k]
    x = np.asarray(delta, dtype=np.float64) + shift[:, None, :].astype(np.float64)
    t = np.asarray(y, dtype=np.float64) + shift.astype(np.float64)
    return x - x.mean(axis=2, keepdims=True), t - t.mean(axis=1, keepdims=True)


def single_r2(slices: Slices, reference: Reference | str, k: int) -> Array:
    """R2 Top-k of every model alone, (M, n); NaN where undefined (not predicted, constant truth or prediction).

    Parameters
    ----------
    slices : top genes of n samples, at least k each.
    reference : "own" or "pooled": what deltas refer to.
    k : how many top genes.
    """
    n = np.asarray(slices.y).shape[0]
    pieces = [_single_piece(slices, reference, k, slice(at, at + _PIECE)) for at in range(0, max(n, 1), _PIECE)]
    return np.concatenate(pieces, axis=1)


def _single_piece(slices: Slices, reference: str, k: int, rows: slice) -> Array:
    x, t = _centred(slices, reference, k, rows)
    xx, xt, tt = np.einsum("nmk,nmk->nm", x, x), np.einsum("nmk,nk->nm", x, t), np.einsum("nk,nk->n", t, t)
    floor = t.shape[1] * _FLAT**2
    defined = (xx > floor) & (tt > floor)[:, None]
    r2 = xt**2 / np.where(defined, xx * tt[:, None], 1.0)
    return np.asarray(np.where(defined, r2, np.nan).T)
