"""Near-duplicates: treated profiles on both sides of the plan that are almost the same.

Candidates come from sketches (Johnson-Lindenstrauss: a random projection keeps angles), by a search that misses no
pair of close sketches; then, if the rows can be read again, their correlation is computed. Profiles are centred per
gene by cell line first, else every two samples of a cell line would look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.findings import Finding
from pertstack.design.leaks.rows import SKETCH, RowScan, pieces

Again = Callable[[], Iterable[tuple[Array, Array, Array]]]
SLACK = 2.0
"""1 - cos of the sketches of a pair at the threshold stays within this factor: its relative s.d. is 0.125."""
MOST_PAIRS = 20_000
_TREE_DIMENSIONS = 10


def near_duplicates(
    scan: RowScan, frame: pd.DataFrame, near: float, *, again: Again | None, memory: int
) -> list[Finding]:
    """The finding on near-duplicates across the plan, or none. Identical rows are left to the scan's other findings.

    Parameters
    ----------
    scan : of all rows.
    frame : one row per sample, in the scan's order, with ``place``.
    near : least correlation of a near-duplicate.
    again : reads the rows once more, for exact correlations; None estimates them from sketches.
    memory : bytes for the rows that are compared.
    """
    pairs, complete = candidates(scan, frame["place"].to_numpy(), near)
    if len(pairs) == 0:
        return []
    if again is None:
        unit = scan.directions()
        r = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]])
        how = f"correlation estimated from sketches of {SKETCH} numbers"
    else:
        pairs, fits = _fit_memory(pairs, scan, memory)
        complete &= fits
        r = exact_correlations(scan, pairs, again)
        how = "correlation of centred profiles"
    keep = r >= near
    pairs, r = pairs[keep], r[keep]
    if len(pairs) == 0:
        return []
    order = np.argsort(-r, kind="stable")
    names = frame.index.astype(str)
    examples = tuple(f"{names[a]} ~ {names[b]} ({r[i]:.5f})" for i in order[:10] for a, b in [pairs[i]])
    in_test = int((frame["place"].to_numpy()[pairs] < 0).any(axis=1).sum())
    at_least = "" if complete else "at least "
    return [
        Finding(
            "warning",
            "near_duplicates_across",
            f"{at_least}{len(pairs):,} pairs of samples on both sides of the plan are almost the same ({how} >= "
            f"{near}), {in_test:,} of them with a test sample: {'; '.join(examples[:5])}. They may be one measurement "
            "stored twice. Remove copies, or group so that they stay together.",
            count=len(pairs),
            examples=examples,
            numbers={
                "pairs": len(pairs),
                "in_test": in_test,
                "largest": float(r.max()),
                "threshold": near,
                "exact": again is not None,
                "complete": complete,
            },
        )
    ]


def candidates(scan: RowScan, place: Array, near: float) -> tuple[Array, bool]:
    """Pairs (n_pairs, 2) in different places whose sketches are close, and whether these are all (at most
    ``MOST_PAIRS``).

    Distances in a few leading directions are never larger than in all of them, so a tree over those finds every pair of
    close sketches; the rest is sorted out with all numbers.

    Parameters
    ----------
    scan : of all n rows.
    place : (n,) fold, below 0 for the test.
    near : least correlation; sketches get some slack.
    """
    from scipy.spatial import cKDTree  # slow to import

    unit = scan.directions()
    usable = np.flatnonzero([row.any() for row in unit])
    if len(usable) < 2:
        return np.zeros((0, 2), dtype=np.int64), True
    gram = np.zeros((unit.shape[1], unit.shape[1]))
    for some in pieces(len(unit)):
        part = unit[some].astype(np.float64)
        gram += part.T @ part
    axes = np.linalg.eigh(gram)[1][:, ::-1][:, :_TREE_DIMENSIONS]
    leading = np.concatenate([unit[usable[some]].astype(np.float64) @ axes for some in pieces(len(usable))])
    radius = np.sqrt(2 * SLACK * (1 - near))
    tree, found, count = cKDTree(leading), [], 0
    for start in range(0, len(usable), 64):
        rows = np.arange(start, min(start + 64, len(usable)))
        hits = tree.query_ball_point(leading[rows], radius)
        first = np.repeat(rows, [len(h) for h in hits])
        second = np.concatenate([np.asarray(h, dtype=np.int64) for h in hits])
        keep = (second > first) & (place[usable[first]] != place[usable[second]])
        first, second = first[keep], second[keep]
        cosine = np.einsum("ij,ij->i", unit[usable[first]], unit[usable[second]], dtype=np.float64)
        close = cosine >= 1 - SLACK * (1 - near)
        pair = np.stack([usable[first[close]], usable[second[close]]], axis=1)
        pair = pair[scan.treated_digest[pair[:, 0]] != scan.treated_digest[pair[:, 1]]]
        found.append(pair)
        count += len(pair)
        if count >= MOST_PAIRS:
            return np.concatenate(found)[:MOST_PAIRS], False
    return np.concatenate(found), True


def _fit_memory(pairs: Array, scan: RowScan, memory: int) -> tuple[Array, bool]:
    """As many pairs, in order, as their rows fit into memory."""
    n_genes = scan.line_sum.shape[1]
    most = max(2, memory // (4 * n_genes))
    _, first_use = np.unique(pairs.ravel(), return_index=True)
    if len(first_use) <= most:
        return pairs, True
    last = int(np.sort(first_use)[most - 1]) // 2
    return pairs[:last], False


def exact_correlations(scan: RowScan, pairs: Array, again: Again) -> Array:
    """(n_pairs,) Pearson correlation over genes of centred treated profiles.

    Parameters
    ----------
    scan : of all rows; gives shift and centres.
    pairs : (n_pairs, 2) row numbers.
    again : reads (rows, control, treated) once more.
    """
    wanted = np.unique(pairs)
    kept = np.zeros((len(wanted), scan.line_sum.shape[1]), dtype=np.float32)
    centres = scan.centres()
    assert scan.shift is not None
    for at, _, treated in again():
        here = np.isin(at, wanted)
        if here.any():
            rows = treated[here].astype(np.float64) - scan.shift - centres[scan.line[at[here]]]
            rows -= rows.mean(axis=1, keepdims=True)
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            kept[np.searchsorted(wanted, at[here])] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    left, right = np.searchsorted(wanted, pairs[:, 0]), np.searchsorted(wanted, pairs[:, 1])
    r = np.empty(len(pairs))
    for start in range(0, len(pairs), 256):
        part = slice(start, start + 256)
        r[part] = np.einsum("ij,ij->i", kept[left[part]], kept[right[part]], dtype=np.float64)
    return r
