"""Sample moments: sums over genes per sample, from which correlation and error of any global mixture follow.

Columns as in ``moments.py``: delta_1..delta_M, y, offset. How they are summed is handled by ``one_pass.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError
from pertstack.reduce.metrics.definitions import SMALLEST_STD


@dataclass(frozen=True, eq=False)
class SampleMoments:
    """Mean and centred scatter over all genes of D = M + 2 columns, per sample.

    The scatter is kept as its upper triangle, row by row. A model that did not predict the sample, or lacks any gene
    in its block, is NaN there: a sum over fewer genes would not be comparable.
    """

    n_genes: int
    mean: Float64  # (n, D)
    triangle: Float64  # (n, D (D + 1) / 2)

    @property
    def n(self) -> int:
        return len(self.mean)

    @property
    def n_models(self) -> int:
        return int(self.mean.shape[1]) - 2

    @property
    def scatter(self) -> Float64:
        """(n, D, D), made on request: 1152 bytes per sample at ten models."""
        return unpack(np.asarray(self.triangle), self.mean.shape[1])

    def take(self, rows: Any) -> SampleMoments:
        return SampleMoments(self.n_genes, self.mean[rows], self.triangle[rows])

    def pearson(self, weights: Any, reference: str = "own") -> Float64:
        """Pearson correlation over all genes of the mixture sum_m w_m (prediction_m - reference), per sample (n,).

        NaN where the truth is constant or a model of weight other than zero is missing, 0 where the mixture is
        constant.
        """
        p, t = self._columns(weights, reference)
        s_tt, s_pp, s_tp = self._form(t, t), self._form(p, p), self._form(p, t)
        truth = self._varies(s_tt, t)
        both = truth & self._varies(s_pp, p)
        scale = np.sqrt(np.maximum(s_tt, 0) * np.maximum(s_pp, 0))
        r = np.clip(np.divide(s_tp, scale, out=np.zeros(self.n), where=both), -1.0, 1.0)
        answer: Float64 = np.where(truth & ~np.isnan(s_tp), r, np.nan)
        return answer

    def rmse(self, weights: Any, reference: str = "own") -> Float64:
        """Root mean squared error over all genes of the mixture, per sample (n,)."""
        p, t = self._columns(weights, reference)
        square = np.maximum(self._form(t - p, t - p), 0.0) / self.n_genes + _dot(self.mean, t - p) ** 2
        return np.asarray(np.sqrt(square))

    def _columns(self, weights: Any, reference: str) -> tuple[Float64, Float64]:
        """Mixture and truth as combinations of the D columns."""
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != (self.n_models,):
            raise InputError(f"weights have shape {w.shape}; one weight for each of {self.n_models} models is needed.")
        if reference not in ("own", "pooled"):
            raise InputError(f"Sample moments know the references 'own' and 'pooled'; {reference!r} is neither.")
        pooled = float(reference == "pooled")
        return np.array([*w, 0.0, pooled * w.sum()]), np.array([*np.zeros(len(w)), 1.0, pooled])

    def _varies(self, square: Float64, column: Float64) -> Any:
        """Spread of at least 1e-10, and of more than the rounding of sums (1e-7 of the mean)."""
        least = np.maximum(SMALLEST_STD, 1e-7 * np.abs(_dot(self.mean, column)))
        return np.sqrt(np.maximum(square, 0) / self.n_genes) >= least

    def _form(self, a: Float64, b: Float64) -> Float64:
        """a' scatter b per sample, without unpacking. A NaN entry counts only if its weight is not zero."""
        i, j = np.triu_indices(self.mean.shape[1])
        return _dot(self.triangle, np.where(i == j, a[i] * b[j], a[i] * b[j] + a[j] * b[i]))


def _dot(values: Float64, weights: Float64) -> Float64:
    """values @ weights over the columns of weight other than zero."""
    used = np.flatnonzero(weights)
    return np.asarray(values[:, used] @ weights[used])


def unpack(triangle: Float64, n_columns: int) -> Float64:
    """Symmetric matrices (n, D, D) from upper triangles (n, D (D + 1) / 2)."""
    i, j = np.triu_indices(n_columns)
    full = np.empty((len(triangle), n_columns, n_columns))
    full[:, i, j] = triangle
    full[:, j, i] = triangle
    return full
