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
Codes = np.ndarray[Any, np.dtype[np.int16]]
NO_VALUE = np.iinfo(CODES).min
STEPS = 512  # of a spread: a value moves by a 1024th of it at most
MOST = np.iinfo(CODES).max
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

    def fits(self, values: np.ndarray[Any, Any]) -> bool:
        """Whether 16 bits are enough for values, (n, n_genes); extremes of each gene tell it for all of its values."""
        return not any(_beyond(self._steps(values[rows])) for rows in self._pieces(len(values)))

    def rounded(self, values: Float32) -> Float32:
        """The nearest whole numbers of steps, a new array, also if there is no code for them; NaN stays NaN."""
        out = np.empty(values.shape, np.float32)
        for rows in self._pieces(len(values)):
            self._value(self._steps(values[rows]).astype(np.float32), out[rows])
        return out

    def codes(self, values: Float32) -> Codes:
        """16-bit codes of values, (n, n_genes); NaN is the lowest number.

        Raises
        ------
        BeyondCodesError
            They do not fit.
        """
        out = np.empty(values.shape, CODES)
        for rows in self._pieces(len(values)):
            steps = self._steps(values[rows])
            if _beyond(steps):
                raise BeyondCodesError
            out[rows] = np.where(np.isnan(steps), NO_VALUE, steps)
        return out

    def values(self, codes: Codes, out: Float32) -> None:
        """Values of codes, both (n, n_genes)."""
        for rows in self._pieces(len(codes)):
            self._value(codes[rows], out[rows])
            gone = codes[rows] == NO_VALUE
            if gone.any():
                out[rows][gone] = np.nan

    def _steps(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.rint((values.astype(np.float64) - self.offset) / self.step)

    def _value(self, steps: np.ndarray[Any, Any], out: Float32) -> None:
        np.multiply(steps, self.step, out=out, dtype=np.float32)
        np.add(out, self.offset, out=out)

    def _pieces(self, n: int) -> Iterator[slice]:
        rows = max(1, _PIECE // len(self.step))
        return (slice(low, low + rows) for low in range(0, n, rows))


def _beyond(steps: np.ndarray[Any, Any]) -> bool:
    return bool((np.abs(steps) > MOST).any())
