"""The upper end of "minus the best of several models": which values of the smallest difference can be rejected?

The value under test is imposed: in the worlds drawn, models whose difference lies below it are set to it. Two things
can then go wrong: the lower bounds of all models pass the value, or one model's difference lies so far below it that
the test rejects. The value is rejected when both together happen in at most ``1 - level`` of the worlds. So the two
ends share one error: if several models are close, the lower end uses little of it and the upper end may use the
rest. With one model this is the ordinary two-sided test.

How far the other models lie above the value is seen only roughly, and each end is drawn with the careful guess, as in
the selection of moments of Andrews and Soares (2010, Econometrica 78:119). The upper end errs most with ties, so its
worlds have the distance seen less ``NEARER`` standard errors; the lower end errs most with one dominant model, so its
worlds have the distance seen and ``FARTHER`` standard errors more. The two numbers were set in the normal limit with
known covariance, as Andrews and Barwick (2012, Econometrica 80:2805) set theirs, for 2 to 12 models of many gaps
(benchmarks/calibration_limit.py); docs/calibration.md says how the form of the guess came about.

That is test inversion for a smallest mean (also Chernozhukov, Lee and Rosen 2013, Econometrica 81:667), with the error
of both ends together set in bootstrap worlds (Beran 1987, Biometrika 74:457). Near-ties cannot be told from ties, so
the error is not exactly ``1 - level`` there; docs/calibration.md has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from pertstack._base.arrays import Array
from pertstack._stats.group_sums import Draws, GroupSums

NEARER, FARTHER = 0.5, 1.0
_HALVINGS = 22
_SAME = 1e-9


def careful(distance: Array, error: Array) -> tuple[Array, Array]:
    """Distances (M,) above the value under test for the worlds of the upper and of the lower end."""
    above = np.maximum(distance, 0.0)
    return np.maximum(above - NEARER * error, 0.0), np.where(above > 0, above + FARTHER * error, 0.0)


@dataclass(frozen=True)
class Statistics:
    """Studentised differences to the value under test. Most values are judged by ``seen`` and ``near`` alone, so the
    others are made when they are asked for."""

    seen: Array  # (M,)
    near: Array  # (n_draws, M) in worlds whose other models are near it
    make_far: Callable[[], Array]
    make_plain: Callable[[], Array]
    each: int = 1  # worlds that a row of ``plain`` stands for

    @cached_property
    def far(self) -> Array:
        """(n_draws, M) in worlds whose other models are far from the value."""
        return self.make_far()

    @cached_property
    def plain(self) -> Array:
        """(n_draws / each, M) |t| of each model alone, which its lower bound is made of."""
        return self.make_plain()


class Null(Protocol):
    """Worlds in which the smallest of M differences is a given value."""

    @property
    def start(self) -> tuple[float, float]:
        """The smallest difference seen, and a step of the size of its standard error."""
        ...

    def at(self, value: float) -> Statistics:
        """What is seen and drawn when the value is true."""
        ...


def upper_end(null: Null, level: float) -> float:
    """The largest value that is not rejected; infinite when none is."""
    low, step = null.start
    if _rejected(null, low, level):
        return low
    high = low + step
    for _ in range(_HALVINGS):
        if _rejected(null, high, level):
            break
        low, high = high, high + 2 * (high - null.start[0])
    else:
        return np.inf
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _rejected(null, middle, level):
            high = middle
        else:
            low = middle
    return float(low)


def null_p(null: Null, value: float) -> float:
    """The smallest ``1 - level`` at which ``value`` lies above ``upper_end``."""
    found = null.at(value)
    above = _share(found)
    by_chance = np.zeros(len(found.far))  # per world: the level of error at which all lower bounds pass the value
    for m in range(found.far.shape[1]):
        sizes = np.sort(found.plain[:, m])
        at_least = len(sizes) - np.searchsorted(sizes, found.far[:, m] - _SAME)
        by_chance = np.maximum(by_chance, np.where(found.far[:, m] > 0, at_least / len(sizes), 1.0))
    by_chance.sort()
    p, last = above, -1.0
    while p > last:  # p = above + share of worlds with by_chance <= p: grows to its fixed point
        last, p = p, min(1.0, above + float(np.searchsorted(by_chance, p + _SAME, side="right")) / len(by_chance))
    return p


def _share(found: Statistics) -> float:
    """How often the worst statistic of a world is at least as far below as the one seen."""
    return float(np.mean(found.near.min(axis=1) <= found.seen.min() + _SAME))


def _rejected(null: Null, value: float, level: float) -> bool:
    """Whether both ends together err in few enough worlds when ``value`` is true and just rejected."""
    found, most = null.at(value), 1 - level + _SAME
    share = _share(found)
    if share > most:
        return False
    n_draws = len(found.plain) * found.each
    rank = min(n_draws - 1, int(np.floor((1 - level) * n_draws + _SAME))) // found.each
    at = len(found.plain) - 1 - rank
    needed = np.partition(found.plain, at, axis=0)[at]  # beyond it, at most 1 - level of |t|
    return share + float(np.mean((found.far > needed + _SAME).all(axis=1))) <= most


@dataclass(frozen=True)
class ResampledNull:
    """Worlds from resamples of whole groups, studentised in each resample."""

    d: Array  # (M,) differences seen
    error: Array  # (M,) their standard errors
    shift: Array  # (n_draws, M) mean of the resample minus d
    errors: Array  # (n_draws, M) standard errors in the resamples
    plain: Array  # (n_draws, M) |shift| / errors

    @classmethod
    def of(cls, sums: GroupSums, draws: Draws) -> ResampledNull:
        """Resamples in which some difference is undefined are left out."""
        shift = draws.means - sums.means()
        shift = np.where(np.abs(shift) <= 1e-12 * (1 + np.abs(sums.means())), 0.0, shift)
        whole = ~np.isnan(shift).any(axis=1)
        shift, errors = shift[whole], np.nan_to_num(draws.errors[whole])
        return cls(sums.means(), sums.errors(), shift, errors=errors, plain=np.abs(_over(shift, errors)))

    @property
    def start(self) -> tuple[float, float]:
        return float(self.d.min()), float(max(self.error.max(), 1e-12))

    def at(self, value: float) -> Statistics:
        if len(self.shift) == 0:
            nothing = np.zeros((1, len(self.d)))
            return Statistics(nothing[0], nothing, lambda: nothing, lambda: nothing + np.inf)
        near, far = careful(self.d - value, self.error)
        return Statistics(
            _over(self.d - value, self.error),
            _over(self.shift + near, self.errors),
            lambda: _over(self.shift + far, self.errors),
            lambda: self.plain,
        )


@dataclass(frozen=True)
class FlippedNull:
    """Worlds from all sign patterns of few groups: their residuals around the imposed differences are flipped."""

    total: Array  # (M, C) sums by group
    count: Array  # (M, C)
    signs: Array  # (2^C, C)

    @classmethod
    def of(cls, sums: GroupSums) -> FlippedNull:
        """Groups that are empty for all models are left out."""
        some = (sums.count > 0).any(axis=0)
        n = int(some.sum())
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return cls(sums.total[:, some], sums.count[:, some], signs)

    @property
    def start(self) -> tuple[float, float]:
        sums = GroupSums(self.total, self.count)
        return float(sums.means().min()), float(max(sums.errors().max(), 1e-12))

    def at(self, value: float) -> Statistics:
        d = self.total.sum(axis=1) / self.count.sum(axis=1)
        above = np.maximum(d - value, 0.0)
        residual = self.total - np.maximum(d, value)[:, None] * self.count  # (M, C)
        residual = np.where(np.abs(residual) <= 1e-12 * (1 + np.abs(self.total)), 0.0, residual)
        flipped, with_count = self.signs @ residual.T, self.signs @ (residual * self.count).T  # (2^C, M)
        square = (residual**2).sum(axis=1)

        sizes, squares = self.count.sum(axis=1), (self.count**2).sum(axis=1)

        def alone() -> Array:
            """Nothing moved: a pattern and its opposite have the same |t|, and the first half holds one of each."""
            return np.abs(_over(flipped[: len(flipped) // 2], np.sqrt(square)))

        def moved(step: Array, patterns: slice = slice(None)) -> Array:
            """Patterns, with all models moved up by a step (M,)."""
            spread = square + 2 * step * with_count[patterns] + step**2 * squares
            return _over(flipped[patterns] + sizes * step, np.sqrt(np.maximum(spread, 0.0)))

        seen = moved(above, slice(1))[0]  # the first pattern flips nothing
        near, far = careful(d - value, GroupSums(self.total, self.count).errors())
        return Statistics(seen, moved(near), lambda: moved(far), alone, each=2)


def _over(value: Array, error: Array) -> Array:
    """Studentised; 0 / 0 is 0, otherwise no spread is infinite."""
    if (error > 0).all():
        return np.asarray(value / error)
    wide = np.broadcast_to(error, value.shape)
    filled = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    ratio: Array = np.divide(value, wide, out=filled, where=wide > 0)
    return ratio
