"""Gene moments: what a combiner needs to know of the predictions, summed in one pass.

Blocks come in any order and any size; merging is exact, so workers can share the sum. How blocks are read is the
business of ``predictions/``; what is made of the sums, of ``stack/`` and ``verdict/``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError, MissingFileError
from pertstack._base.files import write_atomic

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class GeneMoments:
    """Count, mean and centred scatter per gene of D = M + 2 columns: delta_1..delta_M, y, offset.

    delta_m = prediction_m - control, y = treated - control, offset = control - pooled control of the cell line; all
    in the units of the data. A model that lacks a gene in a block is not ``available`` there, and its mean and
    scatter are zero. A gene without rows (count 0) is available to all and changes nothing when merged.
    """

    count: Float64  # (n_genes,) rows summed
    mean: Float64  # (n_genes, D)
    scatter: Float64  # (n_genes, D, D) sum over rows of (v - mean)(v - mean)'
    available: Mask  # (n_genes, M)

    def __post_init__(self) -> None:
        g, d = self.mean.shape
        shapes = (self.count.shape, self.scatter.shape, self.available.shape)
        assert shapes == ((g,), (g, d, d), (g, d - 2)), shapes

    @classmethod
    def of(cls, delta: Any, y: Any, offset: Any, *, available: Mask | None = None) -> GeneMoments:
        """Moments of rows in memory. Two passes, float64.

        Parameters
        ----------
        delta : (M, n, n_genes), prediction - control.
        y : (n, n_genes), treated - control.
        offset : (n, n_genes), control - pooled control.
        available : (n_genes, M), False where a model does not predict the gene; None for all.

        Examples
        --------
        >>> m = GeneMoments.of([[[1.0], [3.0]]], [[0.0], [1.0]], [[0.0], [0.0]])
        >>> m.mean[0].tolist(), m.scatter[0, 0].tolist()
        ([2.0, 0.5, 0.0], [2.0, 1.0, 0.0])
        """
        values = np.concatenate([np.asarray(delta, dtype=np.float64), [np.asarray(y), np.asarray(offset)]])
        n_columns, n, n_genes = values.shape
        seen = np.ones((n_genes, n_columns - 2), dtype=bool) if available is None else available.copy()
        values[:-2][~np.broadcast_to(seen.T[:, None], (n_columns - 2, n, n_genes))] = 0.0
        if n == 0:
            return cls.empty(n_genes, n_columns - 2)
        mean = values.mean(axis=1)
        centred = (values - mean[:, None]).transpose(2, 0, 1)  # (n_genes, D, n)
        return cls(np.full(n_genes, float(n)), mean.T.copy(), centred @ centred.transpose(0, 2, 1), seen)

    @classmethod
    def empty(cls, n_genes: int, n_models: int) -> GeneMoments:
        """The neutral element: no rows."""
        d = n_models + 2
        every = np.ones((n_genes, n_models), dtype=bool)
        return cls(np.zeros(n_genes), np.zeros((n_genes, d)), np.zeros((n_genes, d, d)), every)

    @property
    def n_genes(self) -> int:
        return int(self.mean.shape[0])

    @property
    def n_models(self) -> int:
        return int(self.mean.shape[1]) - 2

    def merge(self, other: GeneMoments) -> GeneMoments:
        """Moments of both sets of rows together (Chan, Golub, LeVeque 1983). Empty moments change nothing.

        A model stays available for a gene if it is in both; elsewhere its entries are zero.
        """
        if self.mean.shape != other.mean.shape:
            raise InputError(
                f"Moments of {self.mean.shape} and {other.mean.shape} (genes, columns) do not belong together."
            )
        count = self.count + other.count  # (n_genes,)
        share = np.divide(other.count, count, out=np.zeros(count.shape), where=count > 0)
        step = other.mean - self.mean  # (n_genes, D)
        scatter = (self.count * share)[:, None, None] * step[:, :, None] * step[:, None, :]  # (n_genes, D, D)
        scatter += self.scatter
        scatter += other.scatter
        mean = self.mean + share[:, None] * step
        available = self.available & other.available
        return GeneMoments(count, mean, scatter, available)._without_unavailable()

    def _without_unavailable(self) -> GeneMoments:
        """The same with zeros where a model is not available."""
        if self.available.all():
            return self
        keep = np.concatenate([self.available, np.ones((self.n_genes, 2), dtype=bool)], axis=1)
        both = keep[:, :, None] & keep[:, None, :]
        return GeneMoments(
            self.count, np.where(keep, self.mean, 0.0), np.where(both, self.scatter, 0.0), self.available
        )

    def raw(self) -> Float64:
        """Uncentred second moments, sum over rows of v v', (n_genes, D, D)."""
        answer: Float64 = self.scatter + self.count[:, None, None] * self.mean[:, :, None] * self.mean[:, None, :]
        return answer

    def save(self, path: Path) -> None:
        """Write to one npz file, seen whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, count=self.count, mean=self.mean, scatter=self.scatter, available=self.available)
        write_atomic(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> GeneMoments:
        """Read what ``save`` wrote."""
        if not Path(path).exists():
            raise MissingFileError(f"{path} does not exist.")
        with np.load(path, allow_pickle=False) as z:
            return cls(z["count"], z["mean"], z["scatter"], z["available"])


def merge_moments(parts: Iterable[GeneMoments], n_genes: int, n_models: int) -> GeneMoments:
    """All parts together: equal parts in equal order give equal bits.

    Parameters
    ----------
    parts : in the order in which they are merged; none give empty moments.
    n_genes, n_models : of all parts.
    """
    return reduce(GeneMoments.merge, parts, GeneMoments.empty(n_genes, n_models))
