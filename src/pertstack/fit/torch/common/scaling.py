"""Standardisation per gene, fitted on fit rows only: the scale in which networks learn, undone on output.

Control and treated profiles are pooled, so both are moved by the same numbers and a delta stays a delta. Models never
see statistics of rows they are to predict.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pertstack.data.rows import Float32


@dataclass(frozen=True)
class GeneScaler:
    """Mean and spread of each gene over the control and treated profiles of the fit rows."""

    mean: Float32  # (n_genes,)
    sd: Float32  # (n_genes,) > 0
    low: float  # smallest value among the fit rows: tells data that cannot be negative

    @classmethod
    def fit(cls, control: Float32, treated: Float32, *, rows_at_once: int = 4096) -> GeneScaler:
        """Mean and spread per gene over control and treated rows together, in float64 over slices of rows, so that a
        memory-mapped matrix is never copied whole.

        A gene that never varies gets spread 1 (its standardised value is 0 everywhere).

        Parameters
        ----------
        control, treated : (n, n_genes), the fit rows.
        rows_at_once : size of a slice.
        """
        n, total = 2 * len(control), np.zeros(control.shape[1])
        low = np.inf
        for matrix in (control, treated):
            for start in range(0, len(matrix), rows_at_once):
                part = matrix[start : start + rows_at_once]
                total += part.sum(axis=0, dtype=np.float64)
                low = min(low, float(part.min())) if part.size else low
        mean = total / max(n, 1)
        scatter = np.zeros_like(mean)
        for matrix in (control, treated):
            for start in range(0, len(matrix), rows_at_once):
                scatter += ((matrix[start : start + rows_at_once].astype(np.float64) - mean) ** 2).sum(axis=0)
        sd = np.sqrt(scatter / max(n, 1))
        sd = np.where(sd > 1e-6 * np.maximum(1.0, np.abs(mean)), sd, 1.0)
        return cls(mean.astype(np.float32), sd.astype(np.float32), low)

    def apply(self, values: Float32) -> Float32:
        """Input scale to standardised, (n, n_genes) float32."""
        return ((values - self.mean) / self.sd).astype(np.float32, copy=False)

    def invert(self, standardised: Float32) -> Float32:
        """Standardised back to the input scale, (n, n_genes) float32."""
        return (standardised * self.sd + self.mean).astype(np.float32, copy=False)
