"""Means by label (cell line, perturbation) with an answer for labels never seen: small tools of the baselines.

Values may be an array, also one mapped from a file, or be made when rows are asked for; either is taken some rows at a
time, so that memory does not grow with the number of fit rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pertstack.data.rows import FitRows, Float32, Names

Floats = np.ndarray[Any, np.dtype[np.float64]]
Index = np.ndarray[Any, np.dtype[np.int64]]
PIECE = 512
"""Rows taken at once."""


class Values(Protocol):
    """Rows of numbers, by their positions: an array, or ``Made``."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Made:
    """Values (n, n_columns) that are made when rows of them are asked for, by positions, mask or slice."""

    shape: tuple[int, ...]
    make: Callable[[Any], Any]

    def __getitem__(self, rows: Any, /) -> Any:
        return self.make(rows)


def deltas(rows: FitRows) -> Made:
    """treated - control of fit rows, when asked for."""
    return Made(rows.treated.shape, lambda some: rows.treated[some] - rows.control[some])


def sums_by_index(values: Values, index: Index, n: int) -> tuple[Floats, Floats]:
    """Sums (n, n_columns) over each of ``n`` labels in float64, and counts (n,).

    Rows of a label are added one after the other in their order, as ``sum(axis=0)`` adds them.

    Parameters
    ----------
    values : (n_rows, n_columns).
    index : (n_rows,) positions of labels.
    n : labels; one without a row has the sum 0.
    """
    order, counts = np.argsort(index, kind="stable"), np.bincount(index, minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)])
    sums = np.zeros((n, values.shape[1]))
    for first, last in _bunches(starts):
        some = values[order[starts[first] : min(starts[last], starts[first] + PIECE)]]
        for k in range(first, last):
            sums[k] = some[starts[k] - starts[first] : starts[k + 1] - starts[first]].sum(axis=0, dtype=np.float64)
        for a in range(starts[first] + PIECE, starts[last], PIECE):  # one label with more rows than a piece
            more = values[order[a : min(a + PIECE, starts[last])]]
            sums[first] = np.concatenate([sums[first][None], more]).sum(axis=0)
    return sums, counts.astype(np.float64)


def _bunches(starts: Index) -> Iterator[tuple[int, int]]:
    """Labels [first, last) whose rows together are at most a piece, or one label that has more."""
    first, n = 0, len(starts) - 1
    while first < n:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + PIECE, side="right")) - 1)
        yield first, last
        first = last


def label_sums(values: Values, labels: Names) -> tuple[list[str], Floats, Floats]:
    """Sorted labels, their sums (n_labels, n_genes) in float64 and counts (n_labels,)."""
    names, index = np.unique(labels.astype(str), return_inverse=True)
    sums, counts = sums_by_index(values, index, len(names))
    return [str(n) for n in names], sums, counts


@dataclass(frozen=True)
class GroupMeans:
    """Mean profile per label; a label never seen gets the mean over all rows."""

    names: tuple[str, ...]
    means: Floats  # (n_labels + 1, n_genes); the last row is the mean over all rows

    @classmethod
    def of(cls, values: Values, labels: Names) -> GroupMeans:
        names, sums, counts = label_sums(values, labels)
        overall = sums.sum(axis=0) / counts.sum()
        return cls(tuple(names), np.vstack([sums / counts[:, None], overall]))

    def index(self, labels: Names) -> Index:
        """Row of ``means`` for every label."""
        position = {name: i for i, name in enumerate(self.names)}
        return np.array([position.get(str(label), len(self.names)) for label in labels], dtype=np.int64)

    def rows(self, labels: Names) -> Float32:
        """Means (n, n_genes) of labels in any order, as a fresh float32 array."""
        at = self.index(labels)
        out = np.empty((len(at), self.means.shape[1]), dtype=np.float32)
        for a in range(0, len(at), PIECE):
            out[a : a + PIECE] = self.means[at[a : a + PIECE]]
        return out


def centred_group_means(
    values: Values, labels: Names, centre: GroupMeans, *, centre_labels: Names
) -> tuple[list[str], Floats, Floats]:
    """Labels, their mean deviation from the centre of each row (n_labels, n_genes), and counts (n_labels,).

    The deviation of a label is the mean over its rows of ``value - centre[row]``, so an unbalanced design (a
    perturbation seen only in some cell lines) does not leak cell line means into the perturbation.

    Parameters
    ----------
    values : (n, n_genes).
    labels : (n,) names, such as perturbations.
    centre : means that are subtracted, such as those of cell lines.
    centre_labels : (n,), which of these goes with each row.
    """
    names, sums, counts = label_sums(values, labels)
    position = {name: i for i, name in enumerate(names)}
    rows = np.array([position[str(label)] for label in labels], dtype=np.int64)
    composition = np.zeros((len(names), len(centre.means)))
    np.add.at(composition, (rows, centre.index(centre_labels)), 1.0)
    return names, (sums - composition @ centre.means) / counts[:, None], counts
