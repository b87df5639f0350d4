"""Means over samples with whole groups as the unit: the mean, and what each group adds to it beyond itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._stats.group_sums import group_codes
from pertstack._stats.shared_parts import Parts, Shared, keys_of, wider


@dataclass(frozen=True)
class GroupMeans:
    """Means of several rows of values, linearised in groups.

    A standard error is the square root of the sum of squares of ``pull`` times n / (n - 1); so is that of a difference,
    with the difference of two rows of ``pull``.
    """

    means: Float64  # (n_rows,) over defined values; NaN if there is none
    pull: Float64  # (n_rows, n_groups) what each group adds to a mean beyond it; 0 if nothing is defined
    n_groups: Any  # (n_rows,) groups with a defined value
    share: Float64  # (n_rows, n_groups) of the defined values
    labels: Any  # (n_groups,) text, the order of the groups

    @classmethod
    def of(cls, values: Any, groups: Any) -> GroupMeans:
        """Of ``values`` (n_rows, n) with NaN where undefined and the group of every sample (n,)."""
        values = np.atleast_2d(np.asarray(values, dtype=np.float64))
        labels, code = group_codes(groups)
        valid = ~np.isnan(values)
        total, count = np.zeros((len(values), len(labels))), np.zeros((len(values), len(labels)))
        for row in range(len(values)):
            total[row] = np.bincount(code, np.where(valid[row], values[row], 0.0), len(labels))
            count[row] = np.bincount(code, valid[row], len(labels))
        n = count.sum(axis=1)
        means = np.divide(total.sum(axis=1), n, out=np.full(len(values), np.nan), where=n > 0)
        rest = total - np.nan_to_num(means)[:, None] * count
        pull = np.divide(rest, n[:, None], out=np.zeros_like(rest), where=n[:, None] > 0)
        share = np.divide(count, n[:, None], out=np.zeros_like(count), where=n[:, None] > 0)
        return cls(means, pull, (count > 0).sum(axis=1), share, labels)

    def errors(self, parts: Parts | None = None) -> Float64:
        """(n_rows,) standard errors of the means; 0 with one group.

        Parameters
        ----------
        parts : of groups that share some, which widens them (``shared_parts.wider``).
        """
        return standard_errors(self.pull, self.n_groups, self.share, self.sharing(parts))

    def sharing(self, parts: Parts | None) -> Shared | None:
        """Which of the groups share parts."""
        return None if parts is None else keys_of(self.labels, parts)


def standard_errors(pull: Float64, n_groups: Any, share: Float64, shared: Shared | None) -> Float64:
    """(n_rows,) standard errors of means from what each group adds.

    Parameters
    ----------
    pull : (n_rows, n_groups), what each group adds to a mean beyond it.
    n_groups : (n_rows,) or a number, groups with a defined value.
    share : (n_rows, n_groups) of the defined values.
    shared : which groups share parts, which widens the errors; None: none do.
    """
    n = np.asarray(n_groups)
    found = np.asarray(np.sqrt((pull**2).sum(axis=-1) * n / np.maximum(n - 1, 1)), dtype=np.float64)
    if shared is None:
        return found
    factors = [wider(p, s, shared) for p, s in zip(pull, share, strict=True)]
    return np.asarray(found * factors, dtype=np.float64)
