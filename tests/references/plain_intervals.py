"""CV+ intervals as plain loops over every residual: the formula of Barber et al. (2021), nothing clever."""

from __future__ import annotations

import math


def cv_plus(centres, residuals, level):
    """Ends for one sample and gene. ``centres`` and ``residuals`` are lists by fold: a number, and a list of
    numbers."""
    n = sum(len(r) for r in residuals)
    ups = sorted(c + abs(e) for c, r in zip(centres, residuals, strict=True) for e in r)
    downs = sorted(c - abs(e) for c, r in zip(centres, residuals, strict=True) for e in r)
    up_rank = math.ceil(level * (n + 1) - 1e-9)
    down_rank = math.floor((1 - level) * (n + 1) + 1e-9)
    hi = ups[up_rank - 1] if up_rank <= n else math.inf
    lo = downs[down_rank - 1] if down_rank >= 1 else -math.inf
    return lo, hi
