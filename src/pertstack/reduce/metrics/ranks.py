"""Ranks of the genes of a row, and Spearman's correlation from them.

A row is sorted by its differences rounded to float32, whose bits a radix sort takes as numbers: several times faster
than comparing. The few that rounding makes equal are then put in order by the differences themselves.
"""

from __future__ import annotations

import numpy as np

from pertstack._base.machine.compiled import kernel

_DIGITS, _VALUES = 3, 2048  # eleven bits at a time


@kernel
def _radix_order(keys, order, spare, counts):  # type: ignore[no-untyped-def]
    """Order (n,) int32 that sorts the keys (n,) uint32, equal ones as they come."""
    n = keys.shape[0]
    counts[:] = 0
    for i in range(n):
        for digit in range(_DIGITS):
            counts[digit, (keys[i] >> np.uint32(11 * digit)) & np.uint32(_VALUES - 1)] += 1
        order[i] = i
    for digit in range(_DIGITS):
        here, before = counts[digit], 0
        for value in range(_VALUES):
            count = here[value]
            here[value] = before
            before += count
        for i in range(n):
            value = (keys[order[i]] >> np.uint32(11 * digit)) & np.uint32(_VALUES - 1)
            spare[here[value]] = order[i]
            here[value] += 1
        order[:] = spare


@kernel
def _sort_exactly(values, order):  # type: ignore[no-untyped-def]
    """Put a piece of an order right by the values it stands for; mostly there is nothing to do."""
    right = True
    for i in range(1, order.shape[0]):
        right = right and values[order[i - 1]] <= values[order[i]]
    if not right:
        order[:] = order[np.argsort(values[order], kind="mergesort")]


@kernel
def _ranks_of_row(profile, reference, exact, rough, keys, order, spare, counts, out):  # type: ignore[no-untyped-def]
    """Mean ranks from 1 of profile - reference (n_genes,) into out; the rest is workspace."""
    n = profile.shape[0]
    for g in range(n):
        exact[g] = np.float64(profile[g]) - np.float64(reference[g])
        rough[g] = exact[g]
    bits = rough.view(np.uint32)
    top = np.uint32(0x80000000)
    for g in range(n):  # negative numbers count down, and come before the others
        if exact[g] == 0.0:
            keys[g] = top  # of either sign
        else:
            keys[g] = ~bits[g] if bits[g] & top else bits[g] | top
    _radix_order(keys, order, spare, counts)
    i = 0
    while i < n:
        j = i + 1
        while j < n and keys[order[j]] == keys[order[i]]:
            j += 1
        if j - i > 1:
            _sort_exactly(exact, order[i:j])
        i = j
    i = 0
    while i < n:
        j = i
        while j + 1 < n and exact[order[j + 1]] == exact[order[i]]:
            j += 1
        for q in range(i, j + 1):
            out[order[q]] = 0.5 * (i + j) + 1.0
        i = j + 1


@kernel
def mean_ranks(profiles, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Ranks from 1 of profile - reference within rows [start, stop), ties sharing their mean rank, into out.

    ``profiles`` and ``out`` are (n, n_genes), ``reference`` (n, n_genes) or (1, n_genes). ``out`` may be float32: half
    integers up to 2 ** 23 are exact in it.
    """
    n, shared = profiles.shape[1], reference.shape[0] == 1
    exact, rough, keys = np.empty(n, dtype=np.float64), np.empty(n, dtype=np.float32), np.empty(n, dtype=np.uint32)
    order, spare = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    counts = np.empty((_DIGITS, _VALUES), dtype=np.int64)
    for i in range(start, stop):
        ref = reference[0 if shared else i]
        _ranks_of_row(profiles[i], ref, exact, rough, keys, order, spare, counts, out[i])


@kernel
def spearman_with(ranks, profiles, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Correlation of ranks (n, n_genes) with those of profile - reference, rows [start, stop), into out (n,); 0 where
    either side is constant."""
    n, shared = profiles.shape[1], reference.shape[0] == 1
    exact, rough, keys = np.empty(n, dtype=np.float64), np.empty(n, dtype=np.float32), np.empty(n, dtype=np.uint32)
    order, spare = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    counts, mine = np.empty((_DIGITS, _VALUES), dtype=np.int64), np.empty(n, dtype=np.float64)
    middle = 0.5 * (n + 1)
    for i in range(start, stop):
        ref = reference[0 if shared else i]
        _ranks_of_row(profiles[i], ref, exact, rough, keys, order, spare, counts, mine)
        theirs = ranks[i]
        tt, pp, tp = 0.0, 0.0, 0.0
        for g in range(n):
            a, b = theirs[g] - middle, mine[g] - middle
            tt += a * a
            pp += b * b
            tp += a * b
        scale = np.sqrt(tt * pp)
        out[i] = tp / scale if scale > 0.0 else 0.0
