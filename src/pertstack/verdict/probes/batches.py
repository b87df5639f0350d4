"""Batches of replicates: which rows share a plate by name or control, what that shifts, whether controls tell it."""

from __future__ import annotations

import numpy as np
import xxhash

from pertstack._base.arrays import Array

LEAST_OF_BATCH = 4
"""Rows of a batch (plate) from which its effect is estimated."""


PLATES_UNNAMED = 0.2
"""Level at which controls show plates that were not named: lenient, since missing them flags honest models."""


DIRECTIONS = 5
"""Main directions of control differences whose effect is taken out of replicates, with at least ten pairs for each."""


def replicated_rows(conditions: Array) -> tuple[Array, Array, Array]:
    """Rows of conditions with several samples, their condition code 0.., and the size of each condition."""
    _, code, size = np.unique(np.asarray(conditions).astype(str), return_inverse=True, return_counts=True)
    rows = np.flatnonzero(size[code] > 1)
    _, again, kept = np.unique(code[rows], return_inverse=True, return_counts=True)
    return rows, again, kept


def control_batches(control: Array) -> Array:
    """A name per row, equal where controls are equal."""
    rows = np.ascontiguousarray(control)
    return np.array([xxhash.xxh3_128_hexdigest(row.data) for row in rows])


def batch_effects(rows: Array, conditions: Array, batch: Array) -> Array:
    """What every row owes to its batch, (n, n_genes), told by samples of one condition in different batches.

    Least squares on rows less the mean of their condition, so that the effects of perturbations do not enter. Batches
    under ``LEAST_OF_BATCH`` such rows, and those never compared with another, owe nothing.

    Parameters
    ----------
    rows : (n, n_genes), treated scale.
    conditions : (n,), by which replicates are known.
    batch : (n,) names.
    """
    within, code, size = replicated_rows(conditions)
    effect = np.zeros(np.shape(rows))
    kept = [name for name, n in zip(*np.unique(batch[within], return_counts=True), strict=True) if n >= LEAST_OF_BATCH]
    if len(kept) < 2:
        return effect
    inside = np.stack([batch == name for name in kept], axis=1).astype(np.float64)
    y, z = np.asarray(rows[within], dtype=np.float64), inside[within]
    y, z = (a - (np.stack([np.bincount(code, w) for w in a.T], axis=1) / size[:, None])[code] for a in (y, z))
    effect[:] = inside @ np.linalg.lstsq(z, y, rcond=None)[0]
    return effect


def replicate_pairs(conditions: Array, batch: Array) -> tuple[Array, Array]:
    """Disjoint pairs of rows of the same condition; of the same batch first, if there are such."""
    _, code = np.unique(np.asarray(conditions).astype(str), return_inverse=True)
    first, second = [], []
    left = np.ones(len(code), dtype=bool)
    for key in (
        np.unique(np.stack([code, np.unique(batch, return_inverse=True)[1]]), axis=1, return_inverse=True)[1],
        code,
    ):
        rows = np.flatnonzero(left)
        order, i = rows[np.argsort(key.ravel()[rows], kind="stable")], 0
        while i + 1 < len(order):
            same = key.ravel()[order[i]] == key.ravel()[order[i + 1]]
            if same:
                first.append(order[i])
                second.append(order[i + 1])
                left[[order[i], order[i + 1]]] = False
            i += 2 if same else 1
    order = np.argsort(first, kind="stable")
    return np.array(first, dtype=np.int64)[order], np.array(second, dtype=np.int64)[order]


def comparable_pairs(first: Array, second: Array, batch: Array, *, named: bool) -> tuple[Array, Array, Array]:
    """Pairs whose batches can be taken out, and which batches they differ by, (n_pairs, n_batches) of 1, -1 and 0.

    A pair on two plates one of which is in fewer than ``LEAST_OF_BATCH`` pairs is left out: its plates cannot be told
    from its noise. If batches are recognised by controls, one that no other sample has is a well and no plate.

    Parameters
    ----------
    first, second : (n_pairs,) rows of each pair.
    batch : (n,) names.
    named : batches are plates by name, not by their controls.
    """
    apart = batch[first] != batch[second]
    names, n = np.unique(np.concatenate([batch[first][apart], batch[second][apart]]), return_counts=True)
    kept = names[n >= LEAST_OF_BATCH]
    both = np.isin(batch[first], kept) & np.isin(batch[second], kept)
    well = np.zeros(len(first), dtype=bool)
    if not named:
        all_names, size = np.unique(batch, return_counts=True)
        wells = all_names[size < LEAST_OF_BATCH]
        well = np.isin(batch[first], wells) & np.isin(batch[second], wells)
    use = ~apart | both | well
    a, b = first[use], second[use]
    kinds = (
        np.stack([(batch[a] == k).astype(np.float64) - (batch[b] == k) for k in kept], axis=1) if len(kept) else None
    )
    return a, b, np.zeros((len(a), 0)) if kinds is None else kinds


def main_directions(c: Array) -> Array:
    """(n_pairs, at most ``DIRECTIONS``) scores of the differences of controls: an honest model may follow them with any
    pattern of genes, as plates that were not named."""
    n = min(DIRECTIONS, len(c) // 10)
    if n == 0 or not np.any(c):
        return np.zeros((len(c), 0))
    scores: Array = np.linalg.svd(c, full_matrices=False)[0][:, :n]
    return scores


def controls_tell_plates(y: Array, c: Array, known: Array, *, rng: np.random.Generator) -> bool:
    """Whether pairs whose controls differ alike have truths that differ alike (Mantel's test, at a lenient level).

    Differences must be private to a pair, as the noise of wells is, before knowing them accuses anybody. What is
    ``known`` was taken out of both; truths that change places lose it again (Freedman and Lane).

    Parameters
    ----------
    y, c : (n_pairs, n_genes), differences of truths and of controls.
    known : (n_pairs, k), orthonormal.
    rng : draws the orders.
    """
    if not np.any(c):
        return False
    over = np.triu_indices(len(y), 1)
    of_c = unit_rows(c) @ unit_rows(c).T
    values = []
    for turn in range(100):
        rows = y if turn == 0 else rng.choice([-1.0, 1.0], (len(y), 1)) * y[rng.permutation(len(y))]
        rows = unit_rows(rows - known @ (known.T @ rows))
        values.append(float((rows @ rows.T)[over] @ of_c[over]))
    return bool(np.mean(np.array(values[1:]) >= values[0]) < PLATES_UNNAMED)


def basis(design: Array) -> Array:
    """Orthonormal columns that span those of a design."""
    if design.shape[1] == 0:
        return design
    u, size, _ = np.linalg.svd(design, full_matrices=False)
    basis: Array = u[:, size > 1e-9 * max(size.max(), 1e-300)]
    return basis


def cyclic_shifts(n: int, rng: np.random.Generator) -> Array:
    """At most forty different steps by which n pairs are moved on."""
    return rng.permutation(np.arange(1, n))[:40]


def without_span(rows: Array, other: Array) -> Array:
    """Rows less their mean over genes and what the same row of ``other`` explains."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    size = (other**2).sum(axis=1)
    slope = np.divide((rows * other).sum(axis=1), size, out=np.zeros_like(size), where=size > 0)
    left: Array = rows - slope[:, None] * other
    return left


def unit_rows(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
