"""Layers in 16 bits: every value rounded to a 512th of its gene's spread and kept as a whole number of such steps.

All layers of a block share one offset and step a gene, so what was equal stays equal: a prediction that is the control,
a well that many samples share. Zero stays zero. The arithmetic is numpy's, an operation at a time, and gives the same
bits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from pertstack.data.rows import Float32

CODES = np.dtype("<i2")
NO_VALUE = np.iinfo(CODES).min
STEPS = 512  # of a spread: a value moves by a 1024th of it at most
HARDLY = 1 / 64  # of the median spread: what stands in for that of a gene that does not vary
_PIECE = 1 << 16  # values worked on while they are still in cache


class BeyondCodesError(Exception):
    """A value lies further from the offset than 32,767 steps (64 spreads); the layer is kept in float32."""


@dataclass(frozen=True)
class Rounding:
    """Offset and step of each gene, (n_genes,) float32: a value is ``code * step + offset``."""

    offset: Float32
    step: Float32

    @classmethod
    def of(cls, centre: np.ndarray[Any, Any], spread: np.ndarray[Any, Any]) -> Rounding:
        """Steps of a 512th of each gene's spread, counted from the whole number of them nearest to its centre.

        Parameters
        ----------
        centre : (n_genes,), such as the mean control.
        spread : (n_genes,) standard deviations, not negative.
        """
        varying = spread[spread > 0]
        known = np.where(spread > 0, spread, HARDLY * np.median(varying) if len(varying) else 1.0)
        finest = 4 * np.spacing(np.abs(centre).astype(np.float32))  # a finer step is lost in float32
        step = np.maximum(known / STEPS, finest).astype(np.float32)
        return cls(np.rint(centre / step).astype(np.float32) * step, step)

    @property
    def digest(self) -> str:
        return sha256(self.offset.astype("<f4").tobytes() + self.step.astype("<f4").tobytes()).hexdigest()

    def rounded(self, values: Float32) -> tuple[Float32, bool]:
        """The nearest values that can be kept, a new array, and whether 16 bits are enough for all of them; NaN stays
        NaN."""
        out, fits = np.empty(values.shape, np.float32), True
        for rows in self._pieces(len(values)):
            counted = np.rint((values[rows].astype(np.float64) - self.offset) / self.step).astype(np.float32)
            fits = fits and not (np.abs(counted) > -(NO_VALUE + 1)).any()
            self._value(counted, out[rows])
        return out, fits

    def codes(self, values: Float32) -> np.ndarray[Any, Any]:
        """16-bit codes of values, (n, n_genes); NaN is the lowest number.

        Raises
        ------
        BeyondCodesError
            16 bits are too few for one of them.
        """
        out = np.empty(values.shape, CODES)
        for rows in self._pieces(len(values)):
            counted = np.rint((values[rows].astype(np.float64) - self.offset) / self.step)
            if (np.abs(counted) > -(NO_VALUE + 1)).any():
                raise BeyondCodesError
            out[rows] = np.where(np.isnan(counted), NO_VALUE, counted)
        return out

    def values(self, codes: np.ndarray[Any, Any], out: Float32) -> None:
        """Values of codes, both (n, n_genes)."""
        for rows in self._pieces(len(codes)):
            self._value(codes[rows], out[rows])
            gone = codes[rows] == NO_VALUE
            if gone.any():
                out[rows][gone] = np.nan

    def _value(self, counted: np.ndarray[Any, Any], out: Float32) -> None:
        np.multiply(counted, self.step, out=out, dtype=np.float32)
        np.add(out, self.offset, out=out)

    def _pieces(self, n: int) -> Iterator[slice]:
        rows = max(1, _PIECE // len(self.step))
        return (slice(low, low + rows) for low in range(0, n, rows))
