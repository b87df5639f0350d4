"""Means by label (cell line, perturbation) with an answer for labels never seen: small tools of the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack.data.rows import Float32, Names

Floats = np.ndarray[Any, np.dtype[np.float64]]


def label_sums(values: Float32, labels: Names) -> tuple[list[str], Floats, Floats]:
    """Sorted labels, their sums (n_labels, n_genes) in float64 and counts (n_labels,).

    Rows are added in the order of a stable sort, a label at a time, so memory stays at one label's rows in float64.
    """
    names, index = np.unique(labels.astype(str), return_inverse=True)
    order, counts = np.argsort(index, kind="stable"), np.bincount(index, minlength=len(names))
    sums, start = np.empty((len(names), values.shape[1])), 0
    for k, count in enumerate(counts):
        sums[k] = values[order[start : start + count]].sum(axis=0, dtype=np.float64)
        start += count
    return [str(n) for n in names], sums, counts.astype(np.float64)


@dataclass(frozen=True)
class GroupMeans:
    """Mean profile per label; a label never seen gets the mean over all rows."""

    names: tuple[str, ...]
    means: Floats  # (n_labels + 1, n_genes); the last row is the mean over all rows

    @classmethod
    def of(cls, values: Float32, labels: Names) -> GroupMeans:
        names, sums, counts = label_sums(values, labels)
        overall = sums.sum(axis=0) / counts.sum()
        return cls(tuple(names), np.vstack([sums / counts[:, None], overall]))

    def index(self, labels: Names) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Row of ``means`` for every label."""
        position = {name: i for i, name in enumerate(self.names)}
        return np.array([position.get(str(label), len(self.names)) for label in labels], dtype=np.int64)

    def rows(self, labels: Names) -> Float32:
        """Means (n, n_genes) of labels in any order, as a fresh float32 array."""
        return np.asarray(self.means[self.index(labels)], dtype=np.float32)


def centred_group_means(
    values: Float32, labels: Names, centre: GroupMeans, centre_labels: Names
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
