"""Do rows or genes fit better under other names? The best one-to-one assignment, held against the names given.

``shift.py`` tries neighbours, which finds values moved by a row or two. Here any exchange among the sampled rows, and
among the genes, is tried: the assignment is chosen on one half of the values and judged on the other, so that choosing
among many gives nothing away. Gene names are also judged by levels: expression differs far more between genes than a
model errs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
FEWEST = 12  # rows or genes that must change places
MOST_GENES = 400  # among which an exchange is tried
SIGNIFICANT = 6.0  # standard errors
GAIN = 0.2  # in correlation, and the own fit is less than half the better one
BACKWARDS = -0.1  # an own fit below this is that of a model that errs, not of values under other names
LEAST_GENES = 20


@dataclass(frozen=True)
class Exchange:
    """A better assignment: how many changed places, the fit under the names and under it, and its certainty."""

    moved: int
    own: float
    better: float
    z: float


def exchanged_rows(
    values: Array, measured: Array, lines: Sequence[str], *, perturbations: Sequence[str] | None = None
) -> Exchange | None:
    """Whether predictions fit other measured rows of their cell line clearly better; None else.

    Rows are centred per gene and cell line first; the fit is the correlation over genes, judged on other genes than
    those that chose the assignment.

    Parameters
    ----------
    values, measured : (n, n_genes), the same scale; rows with NaN are left out.
    lines : (n,) cell lines.
    perturbations : (n,), within which rows may be exchanged for nothing: what a model learned from the other replicates
        fits these better than the row left out. None if all rows differ.
    """
    names, gains, own = np.asarray(lines, dtype=object), [], []
    kinds = np.arange(len(values)) if perturbations is None else np.asarray(perturbations, dtype=object)
    usable = np.isfinite(values).all(axis=1) & np.isfinite(measured).all(axis=1)
    for line in dict.fromkeys(names[usable].tolist()):
        rows = np.flatnonzero(usable & (names == line))
        if len(rows) < FEWEST or values.shape[1] < 6:
            continue
        p, y = (_centred(a[rows], axis=0) for a in (values, measured))
        choose, judge = (_correlations(p[:, half::2], y[:, half::2]) for half in (0, 1))
        to = _assigned(choose)
        moved = np.flatnonzero((to != np.arange(len(rows))) & (kinds[rows] != kinds[rows][to]))
        gains.append(judge[moved, to[moved]] - judge[moved, moved])
        own.append(judge[moved, moved])
    return _exchange(gains, own)


def exchanged_genes(values: Array, measured: Array, lines: Sequence[str]) -> Exchange | None:
    """Whether predicted genes vary with other measured genes clearly more than with their own; None else.

    Genes are centred per cell line, so that levels do not count; the fit is the correlation over rows.

    Parameters
    ----------
    values, measured : (n, n_genes), the same scale; rows with NaN are left out.
    lines : (n,) cell lines.
    """
    names = np.asarray(lines, dtype=object)
    usable = np.isfinite(values).all(axis=1) & np.isfinite(measured).all(axis=1)
    rows = np.flatnonzero(usable)
    if len(rows) < 2 * FEWEST or values.shape[1] < LEAST_GENES:
        return None
    genes = np.linspace(0, values.shape[1] - 1, min(MOST_GENES, values.shape[1])).round().astype(int)
    p, y = (np.array(a[np.ix_(rows, genes)], dtype=np.float64) for a in (values, measured))
    for line in dict.fromkeys(names[rows].tolist()):
        mine = names[rows] == line
        p[mine], y[mine] = _centred(p[mine], axis=0), _centred(y[mine], axis=0)
    live = (p.std(axis=0) > 1e-9) & (y.std(axis=0) > 1e-9)
    if live.sum() < LEAST_GENES:
        return None
    p, y = p[:, live], y[:, live]
    choose, judge = (_correlations(p[half::2].T, y[half::2].T) for half in (0, 1))
    to = _assigned(choose)
    moved = np.flatnonzero(to != np.arange(len(to)))
    return _exchange([judge[moved, to[moved]] - judge[moved, moved]], [judge[moved, moved]])


def levels_of_other_genes(values: Array, treated: Array, orders: Sequence[Array]) -> Exchange | None:
    """Whether the predicted means of genes are the measured ones under other names; None else.

    Tried on all genes and on pieces of them. Nothing is said if levels differ between genes no more than rows do
    within one.

    Parameters
    ----------
    values, treated : (n, n_genes), treated scale; genes with NaN are left out.
    orders : positions of all genes, once per order to cut pieces from (that of the study, that of the file).
    """
    if not len(values):
        return None
    whole: Array = np.asarray(np.isfinite(values).all(axis=0) & np.isfinite(treated).all(axis=0))
    predicted, measured = values.mean(axis=0), treated.mean(axis=0)
    if np.var(measured[whole]) < np.mean(np.var(treated[:, whole], axis=0)):
        return None
    for order in orders:
        for piece in _pieces(order[whole[order]]):
            p, y = predicted[piece], measured[piece]
            own, sorted_fit = _r(p, y), _r(np.sort(p), np.sort(y))
            ratio, apart = np.std(p) / max(np.std(y), 1e-12), abs(p.mean() - y.mean()) / max(np.std(y), 1e-12)
            if own < 0.6 and sorted_fit > 0.95 and 0.8 < ratio < 1.25 and apart < 0.25:
                return Exchange(len(piece), own, sorted_fit, np.inf)
    return None


def _pieces(order: Array) -> Iterator[Array]:
    """The whole, its halves, and its quarters, as long as they hold enough."""
    for parts in (1, 2, 4):
        yield from (piece for piece in np.array_split(order, parts) if len(piece) >= LEAST_GENES)


def _exchange(gains: list[Array], own: list[Array]) -> Exchange | None:
    gain = np.concatenate(gains) if gains else np.empty(0)
    keep = np.isfinite(gain)
    gain = gain[keep]
    if len(gain) < FEWEST:
        return None
    mine = float(np.concatenate(own)[keep].mean())
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    z = float(gain.mean() / error) if error > 0 else np.inf
    better = mine + float(gain.mean())
    if better - mine < GAIN or z < SIGNIFICANT or not BACKWARDS < mine < 0.5 * better:
        return None
    return Exchange(len(gain), mine, better, z)


def _centred(a: Array, axis: int) -> Array:
    wide = np.array(a, dtype=np.float64)
    return np.asarray(wide - wide.mean(axis=axis, keepdims=True))


def _correlations(a: Array, b: Array) -> Array:
    """Pearson correlation of every row of ``a`` with every row of ``b``; 0 if one is constant."""
    a, b = _centred(a, axis=1), _centred(b, axis=1)
    return np.asarray(_unit(a) @ _unit(b).T)


def _unit(a: Array) -> Array:
    length = np.sqrt((a * a).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(a, length, out=np.zeros_like(a), where=length > 1e-12))


def _r(a: Array, b: Array) -> float:
    return float(_correlations(a[None], b[None])[0, 0])


def _assigned(gain: Any) -> Any:
    """The column of each row in the assignment of largest total gain."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    return linear_sum_assignment(-gain)[1]
