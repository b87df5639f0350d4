"""Ranks of the genes of a row, and Spearman's correlation from them.

A row is dealt by the leading bits of its differences, twice (a radix sort: Knuth, The Art of Computer Programming 3,
section 5.2.5), and what these bits do not tell is put right by insertion. Where they tell little (most differences
nearly alike beside a few large ones), the row is sorted by merging.
"""

from __future__ import annotations

import numpy as np

from pertstack._base.machine.compiled import kernel

_PILES = 2048  # by 11 bits: sign, exponent and 2 bits of the mantissa at last, 11 more bits of it at first
_MOVES = 16  # per gene: with more, insertion takes longer than merging
_RUN = 16  # sorted by insertion before they are merged; never takes more than _MOVES


@kernel
def _deal(exact, values, order, pile, keys, counts):  # type: ignore[no-untyped-def]
    """Put exact (n,) nearly in order, into values and order; as they are if all are equal or one is not finite."""
    n, total, spread = exact.shape[0], 0.0, 0.0
    for g in range(n):
        total += exact[g]
    middle = total / n
    for g in range(n):
        spread += abs(exact[g] - middle)
    if not (spread > 0.0 and np.isfinite(spread)):
        for g in range(n):
            values[g], order[g] = exact[g], g
        return
    rounded, bits = keys.view(np.float32), keys.view(np.int32)
    for g in range(n):  # what is rounded keeps its order
        rounded[g] = exact[g] - middle
    for g in range(n):  # as numbers without sign, which have the same order
        bits[g] ^= (bits[g] >> 31) | np.int32(-2147483648)
    for b in range(2 * _PILES):
        counts[b] = 0
    for g in range(n):
        counts[(keys[g] >> np.uint32(10)) & np.uint32(_PILES - 1)] += 1
        counts[_PILES + (keys[g] >> np.uint32(21))] += 1
    first, second = np.int32(0), np.int32(0)
    for b in range(_PILES):
        counts[b], first = first, first + counts[b]
        counts[_PILES + b], second = second, second + counts[_PILES + b]
    for g in range(n):
        b = (keys[g] >> np.uint32(10)) & np.uint32(_PILES - 1)
        at = counts[b]
        counts[b], pile[at] = at + 1, g
    for i in range(n):
        g = pile[i]
        b = _PILES + (keys[g] >> np.uint32(21))
        at = counts[b]
        counts[b], values[at], order[at] = at + 1, exact[g], g


@kernel
def _insert(values, order):  # type: ignore[no-untyped-def]
    """Put values that are nearly in order into it, and order with them; False if that takes too long."""
    n = values.shape[0]
    moves = 0
    for i in range(1, n):
        value = values[i]
        if values[i - 1] > value:
            gene, j = order[i], i
            while j > 0 and values[j - 1] > value:
                values[j], order[j] = values[j - 1], order[j - 1]
                j -= 1
            values[j], order[j] = value, gene
            moves += i - j
            if moves > _MOVES * n:
                return False
    return True


@kernel
def _merge(values, order, spare_values, spare_order):  # type: ignore[no-untyped-def]
    """Sort values (n,), and order with them, by merging runs of twice the length until one is left."""
    n, length = values.shape[0], _RUN
    for low in range(0, n, length):
        _insert(values[low : low + length], order[low : low + length])
    while length < n:
        for low in range(0, n, 2 * length):
            middle, high = min(low + length, n), min(low + 2 * length, n)
            i, j = low, middle
            for q in range(low, high):
                if j >= high or (i < middle and values[i] <= values[j]):
                    spare_values[q], spare_order[q] = values[i], order[i]
                    i += 1
                else:
                    spare_values[q], spare_order[q] = values[j], order[j]
                    j += 1
        for q in range(n):
            values[q], order[q] = spare_values[q], spare_order[q]
        length *= 2


@kernel
def _sort_row(profile, reference, exact, values, order, pile, keys, counts):  # type: ignore[no-untyped-def]
    """Sort profile - reference (n_genes,), without NaN, into values, its genes into order; the rest is workspace."""
    for g in range(profile.shape[0]):
        exact[g] = np.float64(profile[g]) - np.float64(reference[g])
    _deal(exact, values, order, pile, keys, counts)
    if not _insert(values, order):
        _merge(values, order, exact, pile)


@kernel
def mean_ranks(profiles, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Ranks from 1 of profile - reference within rows [start, stop), ties sharing their mean rank, into out.

    ``profiles`` and ``out`` are (n, n_genes), ``reference`` (n, n_genes) or (1, n_genes). ``out`` may be float32: half
    integers up to 2 ** 23 are exact in it.
    """
    n, shared = profiles.shape[1], reference.shape[0] == 1
    exact, values = np.empty(n, dtype=np.float64), np.empty(n, dtype=np.float64)
    order, pile = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    keys, counts = np.empty(n, dtype=np.uint32), np.empty(2 * _PILES, dtype=np.int32)
    for row in range(start, stop):
        _sort_row(profiles[row], reference[0 if shared else row], exact, values, order, pile, keys, counts)
        i = 0
        while i < n:
            j = i
            while j + 1 < n and values[j + 1] == values[i]:
                j += 1
            for q in range(i, j + 1):
                out[row, order[q]] = 0.5 * (i + j) + 1.0
            i = j + 1


@kernel
def spearman_with(ranks, profiles, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Correlation of ranks (n, n_genes) with those of profile - reference, rows [start, stop), into out (n,); 0 if
    either side is constant. Sums of ranks are exact in float64, in whatever order."""
    n, shared = profiles.shape[1], reference.shape[0] == 1
    exact, values = np.empty(n, dtype=np.float64), np.empty(n, dtype=np.float64)
    order, pile = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    keys, counts = np.empty(n, dtype=np.uint32), np.empty(2 * _PILES, dtype=np.int32)
    middle = 0.5 * (n + 1)
    for row in range(start, stop):
        _sort_row(profiles[row], reference[0 if shared else row], exact, values, order, pile, keys, counts)
        theirs = ranks[row]
        tt, pp, tp = 0.0, 0.0, 0.0
        for g in range(n):
            a = theirs[g] - middle
            tt += a * a
        i = 0
        while i < n:
            j, run = i + 1, theirs[order[i]] - middle
            while j < n and values[j] == values[i]:
                run += theirs[order[j]] - middle
                j += 1
            b = 0.5 * (i + j - 1) + 1.0 - middle
            tp += run * b
            pp += (j - i) * b * b
            i = j
        scale = np.sqrt(tt * pp)
        out[row] = tp / scale if scale > 0.0 else 0.0
