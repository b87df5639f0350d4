"""Sums by group, and resamples of whole groups: the common ground of every interval.

Samples of a group (a perturbation, a cell line) are alike, so groups are drawn, never samples. A mean over valid
samples is a ratio of two sums over groups, so a resample needs only how often each group was drawn: one matrix product
for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._stats.shared_parts import Parts, Shared, keys_of, wider

WidenedBy = Literal["row", "scores", "differences"]
_CELLS = 4_000_000
"""Draws held at once: resamples x groups."""
STILL = 0.01
"""A resample with less than this share of the standard error seen has no spread: it missed the few groups that differ,
and what is left is rounding or the noise of near-copies. To divide by it would make an interval a hundred times as wide
as the values themselves."""


def group_codes(groups: Any) -> tuple[Array, Array]:
    """Labels as text in order, and the position of each sample's (n,): ``np.unique`` of the labels as text, of which
    each is made once and not once a sample."""
    groups = np.asarray(groups)
    place, found = pd.factorize(groups)
    if (place < 0).any():  # missing ones are not told apart there
        return np.unique(groups.astype(str), return_inverse=True)
    labels, at = np.unique(np.asarray(found).astype(str), return_inverse=True)
    return labels, at[place]


@dataclass(frozen=True)
class GroupSums:
    """Sums and counts of valid values by group, for several rows (models, differences)."""

    total: Array  # (n_rows, n_groups) float64
    count: Array  # (n_rows, n_groups) float64: valid samples

    @classmethod
    def of(cls, values: Array, groups: Array, parts: Parts | None = None, *, by: WidenedBy = "row") -> GroupSums:
        """Sums of values by group; those of groups that share parts are pulled apart.

        If groups share parts, each row's deviations from its mean are multiplied by ``shared_parts.wider``: then
        every interval and test that is made of these sums, by whichever method, counts that groups are not independent.

        Parameters
        ----------
        values : (n_rows, n), NaN where undefined.
        groups : (n,), the group of every sample.
        parts : group -> names of its parts, if groups are combinations that share some; None: nothing is done.
        by : the multiplier of each "row"; or, if rows are compared draw by draw, the middle one of all rows'
            "scores" or of their "differences" from the mean row.

        Raises
        ------
        InputError
            Shapes differ, or a value is infinite.
        """
        values = np.atleast_2d(np.asarray(values, dtype=np.float64))
        groups = np.asarray(groups)
        if values.ndim != 2 or groups.shape != (values.shape[1],):
            raise InputError(
                f"Values have shape {values.shape} and groups {groups.shape}; one group per sample is needed."
            )
        if np.isinf(values).any():
            raise InputError(f"{int(np.isinf(values).sum()):,} scores are infinite; a mean of them says nothing.")
        labels, code = group_codes(groups)
        n_groups = len(labels)
        valid = ~np.isnan(values)
        total = np.empty((len(values), n_groups))
        count = np.empty_like(total)
        for row in range(len(values)):
            total[row] = np.bincount(code, weights=np.where(valid[row], values[row], 0.0), minlength=n_groups)
            count[row] = np.bincount(code, weights=valid[row], minlength=n_groups)
        shared = None if parts is None else keys_of([str(label) for label in labels], parts)
        return cls(total, count) if shared is None else cls(_widened(total, count, shared, by), count)

    @property
    def n_rows(self) -> int:
        return len(self.total)

    @property
    def n_groups(self) -> Array:
        """(n_rows,) groups with at least one valid sample."""
        found: Array = (self.count > 0).sum(axis=1)
        return found

    def take(self, rows: Any) -> GroupSums:
        """Chosen rows."""
        return GroupSums(self.total[rows], self.count[rows])

    def means(self) -> Array:
        """(n_rows,) mean over valid samples; NaN if there is none."""
        return _ratio(self.total.sum(axis=1), self.count.sum(axis=1))

    def errors(self) -> Array:
        """(n_rows,) standard error of the mean, from the spread between groups (linearised); NaN below 2 groups."""
        n = self.n_groups
        residual = self.total - self.means()[:, None] * self.count
        scale = np.sqrt(n / np.where(n > 1, n - 1, np.nan)) / self.count.sum(axis=1)
        error: Array = scale * np.sqrt((residual**2).sum(axis=1))
        return error


@dataclass(frozen=True)
class Draws:
    """Resamples of groups, all rows with the same draws."""

    means: Array  # (resamples, n_rows)
    errors: Array  # (resamples, n_rows) standard errors, as ``GroupSums.errors`` on each resample


def draw_counts(n_groups: int, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each group is drawn, (some resamples, n_groups) at a time, float64.

    Parameters
    ----------
    n_groups : of which as many draws with replacement make a resample.
    resamples : in all pieces together.
    rng : draws the groups; the pieces follow from n_groups alone.
    """
    key = n_groups, resamples, str(rng.bit_generator.state)
    if key not in _DRAWN:
        while len(_DRAWN) > 1:  # those of the test and those out of fold
            _DRAWN.pop(next(iter(_DRAWN)))
        _DRAWN[key] = list(_drawn(n_groups, resamples, rng)), rng.bit_generator.state
    pieces, rng.bit_generator.state = _DRAWN[key]
    yield from (piece.astype(np.float64) for piece in pieces)


_DRAWN: dict[tuple[int, int, str], tuple[list[Array], Any]] = {}
"""The last draws and the state they left behind: all rows and metrics of a verdict start from one seed."""


def _drawn(n_groups: int, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    step = max(1, _CELLS // max(1, n_groups))
    for start in range(0, resamples, step):
        k = min(step, resamples - start)
        drawn = rng.integers(0, n_groups, size=(k, n_groups)) + n_groups * np.arange(k)[:, None]
        count = np.bincount(drawn.ravel(), minlength=k * n_groups).reshape(k, n_groups)
        yield count.astype(np.uint8 if count.max(initial=0) < 256 else np.uint32)


def resample(sums: GroupSums, resamples: int, rng: np.random.Generator) -> Draws:
    """Means and standard errors of all rows in bootstrap resamples of whole groups, (resamples, n_rows) each.

    Parameters
    ----------
    sums : by row and group. Standard errors that are less than ``STILL`` of the row's are set to 0: no spread.
    resamples : how many.
    rng : draws the groups, the same for all rows.
    """
    s, c = sums.total.T, sums.count.T  # (n_groups, n_rows)
    least = STILL * np.nan_to_num(sums.errors())
    means, errors = [], []
    for weight in draw_counts(len(s), resamples, rng):
        count = weight @ c
        mean = _ratio(weight @ s, count)
        square = weight @ (s * s) - 2 * mean * (weight @ (s * c)) + mean**2 * (weight @ (c * c))
        n = weight @ (c > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.sqrt(n / (n - 1) * np.maximum(square, 0)) / count
        errors.append(np.where(error < least, 0.0, error))
        means.append(mean)
    return Draws(np.concatenate(means), np.concatenate(errors))


def _widened(total: Array, count: Array, shared: Shared, by: WidenedBy) -> Array:
    """Sums (n_rows, n_groups) whose deviations from the mean of their row are as large as sharing makes them count."""
    n = count.sum(axis=1, keepdims=True)
    mean = _ratio(total.sum(axis=1, keepdims=True), n)
    off = np.where(np.isfinite(mean), total - mean * count, 0.0)
    pull, share = (np.divide(x, n, out=np.zeros_like(x), where=n > 0) for x in (off, count))
    if by == "differences":
        pull = pull - pull.mean(axis=0)
    factor = np.array([wider(p, s, shared) for p, s in zip(pull, share, strict=True)])[:, None]
    return np.asarray(total + ((factor if by == "row" else np.median(factor)) - 1) * off)


def _ratio(total: Array, count: Array) -> Array:
    ratio: Array = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return ratio
