"""Loops of ``held.py``: cells are packed or copied, and added up group by group."""

from __future__ import annotations

from typing import Any

import numpy as np

from pertstack._base.machine.compiled import kernel

FEW = 4
"""Held cells of a group are added up apart if they have entries for one gene in so many; else entry by entry."""


@kernel
def _in_order(genes: Any, n_genes: int) -> bool:
    """Whether every gene is there once, in order."""
    wrong = np.int32(0)
    for k in range(1, len(genes)):
        wrong |= np.int32(genes[k] <= genes[k - 1])
    return wrong == 0 and (len(genes) == 0 or (genes[0] >= 0 and genes[-1] < n_genes))


@kernel
def _packed(genes: Any, values: Any, bits: int, out: Any) -> Any:
    """Pack one cell: its counts in all, the largest, and whether one is no count or does not fit."""
    total, largest, wrong, most = np.int64(0), np.int32(0), np.int32(0), (1 << bits) - 1
    for k in range(len(values)):
        x = values[k]
        c = np.int32(x) if x >= 0 and x <= most else np.int32(-1)
        wrong |= np.int32(c < 0) | np.int32(c != x)
        total += c
        largest = max(largest, c)
        out[k] = (np.uint32(genes[k]) << np.uint32(bits)) | np.uint32(c)
    return total, largest, wrong != 0


@kernel
def pack_counts(
    indptr: Any,
    indices: Any,
    data: Any,
    n_genes: int,
    bits: int,
    group: Any,
    entries: Any,
    at: int,
    ends: Any,
    depth: Any,
    top: Any,
) -> None:
    """Pack the cells that can be; ``top``, their largest count, is -1 for others."""
    n = at
    for r in range(len(group)):
        ends[r] = n
        if group[r] < 0:
            continue
        genes, values = indices[indptr[r] : indptr[r + 1]], data[indptr[r] : indptr[r + 1]]
        total, largest, wrong = _packed(genes, values, bits, entries[n:])
        if wrong or not _in_order(genes, n_genes):
            top[r] = -1
            continue
        n += len(values)
        ends[r], depth[r], top[r] = n, total, largest


@kernel
def _take_logs(values: Any, scale: float, known: Any, out: Any) -> None:
    """log1p of the scaled counts of one cell; those of small counts, which come again, are taken once."""
    known[:] = -1.0
    for k in range(len(values)):
        x = np.float64(values[k])
        if x >= len(known):
            out[k] = np.log1p(x * scale)
            continue
        i = np.int64(x)
        if known[i] < 0.0:
            known[i] = np.log1p(x * scale)
        out[k] = known[i]


@kernel
def hold_logs(
    indptr: Any,
    indices: Any,
    data: Any,
    n_genes: int,
    take_log: bool,
    logs: Any,
    group: Any,
    genes: Any,
    at: int,
    ends: Any,
    depth: Any,
    top: Any,
) -> None:
    """Hold the cells whose values are logarithms, or counts to take logarithms of; ``top`` is -1 for others."""
    n, known, most = at, np.zeros(256), 4e15 if take_log else 64.0
    for r in range(len(group)):
        ends[r] = n
        if group[r] < 0:
            continue
        mine, values = indices[indptr[r] : indptr[r + 1]], data[indptr[r] : indptr[r + 1]]
        total, wrong = 0.0, np.int32(0)
        for k in range(len(values)):
            x = np.float64(values[k])
            wrong |= np.int32(not (x >= 0.0 and x <= most)) | np.int32(take_log and x != np.floor(x))
            total += x
        if wrong != 0 or not _in_order(mine, n_genes):
            top[r] = -1
            continue
        if take_log:
            _take_logs(values, 1e4 / max(total, 1.0), known, logs[n:])
        else:
            logs[n : n + len(values)] = values
        genes[n : n + len(values)] = mine
        n += len(values)
        ends[r] = n


@kernel
def _same_group(order: Any, group: Any, begins: Any, ends: Any, i: int) -> Any:
    """The end of the cells from i on that are of one group, and how many entries they have."""
    stop, n = i, 0
    while stop < len(order) and group[order[stop]] == group[order[i]]:
        n += ends[order[stop]] - begins[order[stop]]
        stop += 1
    return stop, n


@kernel
def pour_counts(
    order: Any,
    group: Any,
    half: Any,
    begins: Any,
    ends: Any,
    depth: Any,
    top: Any,
    entries: Any,
    bits: int,
    table: Any,
    of_half: Any,
    values: Any,
) -> None:
    """Sums of packed counts. In ``table`` lie sum (24 bits) and sum of squares (40), and sum of products."""
    shift, mask, n_genes, i = np.uint32(bits), np.uint32((1 << bits) - 1), len(table), 0
    while i < len(order):
        stop, n = _same_group(order, group, begins, ends, i)
        out, apart, most, squares = values[group[order[i]]], n * FEW >= n_genes, 0, 0
        for q in range(i, stop):
            r = order[q]
            d, first = depth[r], half[r]
            if not apart:
                for k in range(begins[r], ends[r]):
                    j, c = entries[k] >> shift, np.int64(entries[k] & mask)
                    out[j, 0] += c
                    out[j, 1] += c * c
                    out[j, 2] += c * d
                    if first:
                        out[j, 3] += c
                continue
            if most + top[r] >= 1 << 24 or squares + top[r] * top[r] >= 1 << 39:  # no room for one more cell
                _counts_to_sums(table, of_half, out, half[order[q - 1]])
                most, squares = 0, 0
            elif q > i and half[order[q - 1]] and not first:
                for j in range(n_genes):
                    of_half[j] = table[j, 0] & 0xFFFFFF
            most, squares = most + top[r], squares + top[r] * top[r]
            for k in range(begins[r], ends[r]):
                j, c = entries[k] >> shift, np.int64(entries[k] & mask)
                table[j, 0] += c * (1 + (c << 24))
                table[j, 1] += c * d
        if apart:
            _counts_to_sums(table, of_half, out, half[order[stop - 1]])
        i = stop


@kernel
def _counts_to_sums(table: Any, of_half: Any, out: Any, all_first: bool) -> None:
    """Add a table of packed sums to those of a group, and empty it; all of it is of the first half, or ``of_half``."""
    for j in range(len(table)):
        total = table[j, 0] & 0xFFFFFF
        out[j, 0] += total
        out[j, 1] += table[j, 0] >> 24
        out[j, 2] += table[j, 1]
        out[j, 3] += total if all_first else of_half[j]
        table[j, 0] = 0
        table[j, 1] = 0
        of_half[j] = 0


@kernel
def pour_logs(
    order: Any,
    group: Any,
    half: Any,
    begins: Any,
    ends: Any,
    genes: Any,
    logs: Any,
    table: Any,
    of_half: Any,
    values: Any,
) -> Any:
    """Sums of logarithms and of their squares, and the largest logarithm."""
    n_genes, i, highest = len(table), 0, 0.0
    while i < len(order):
        stop, n = _same_group(order, group, begins, ends, i)
        out, apart = values[group[order[i]]], n * FEW >= n_genes
        for q in range(i, stop):
            r = order[q]
            first = half[r]
            if apart and q > i and half[order[q - 1]] and not first:
                for j in range(n_genes):
                    of_half[j] = table[j, 0]
            for k in range(begins[r], ends[r]):
                j, x = genes[k], np.float64(logs[k])
                highest = max(highest, x)
                v, square = np.int64(np.rint(x * 1073741824.0)), np.int64(np.rint(x * x * 16777216.0))  # 1 / STEP
                if apart:
                    table[j, 0] += v
                    table[j, 1] += square
                    continue
                out[j, 0] += v
                out[j, 1] += square
                if first:
                    out[j, 3] += v
        if apart:
            _logs_to_sums(table, of_half, out, half[order[stop - 1]])
        i = stop
    return highest


@kernel
def _logs_to_sums(table: Any, of_half: Any, out: Any, all_first: bool) -> None:
    """As ``_counts_to_sums``; in ``table`` lie sum and sum of squares."""
    for j in range(len(table)):
        out[j, 0] += table[j, 0]
        out[j, 1] += table[j, 1]
        out[j, 3] += table[j, 0] if all_first else of_half[j]
        table[j, 0] = 0
        table[j, 1] = 0
        of_half[j] = 0
