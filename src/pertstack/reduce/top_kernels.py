"""Loops that find the genes of largest measured change, and cut what depends on them out of a tile.

Differences are taken in float64 from float32 profiles, so they are exact; ties go by gene order.
"""

from __future__ import annotations

import numpy as np

from pertstack._base.machine.compiled import kernel

RUN = 32  # genes whose maximum is looked at first; fewer if there are not several runs for each of the top k


@kernel
def _before(a, ia, b, ib):  # type: ignore[no-untyped-def]
    """Whether gene ia with |delta| a stands before gene ib with |delta| b: larger first, ties by gene order."""
    return a > b or (a == b and ia < ib)


@kernel
def _sift(values, genes, at, k):  # type: ignore[no-untyped-def]
    """Sift the entry ``at`` down the heap of size k whose root is the gene that stands last."""
    while True:
        child = 2 * at + 1
        if child >= k:
            return
        if child + 1 < k and _before(values[child], genes[child], values[child + 1], genes[child + 1]):
            child += 1
        if not _before(values[at], genes[at], values[child], genes[child]):
            return
        values[at], values[child] = values[child], values[at]
        genes[at], genes[child] = genes[child], genes[at]
        at = child


@kernel
def top_of(size, values, genes):  # type: ignore[no-untyped-def]
    """The k = len(genes) largest of ``size`` (n_genes,), in order; ties by gene order. Fills values and genes."""
    k, n_genes = genes.shape[0], size.shape[0]
    root = np.int64(0)  # with a plain 0 ``_sift`` would be compiled once more, for a constant
    for j in range(k):
        values[j], genes[j] = size[j], j
    for inner in range(k // 2 - 1, -1, -1):
        _sift(values, genes, inner, k)
    g = k
    while g < n_genes:
        stop = min(n_genes, g + 64)
        above = 0
        bar = values[0]
        for j in range(g, stop):  # counts in vector lanes; most runs of 64 hold nothing new
            above += size[j] > bar
        if above:
            for j in range(g, stop):
                if size[j] > values[0]:
                    values[0], genes[0] = size[j], j
                    _sift(values, genes, root, k)
        g = stop
    for last in range(k - 1, 0, -1):  # take the one that stands last to the end, again and again
        values[0], values[last] = values[last], values[0]
        genes[0], genes[last] = genes[last], genes[0]
        _sift(values, genes, root, last)


@kernel
def top_of_row(treated, reference, rough, values, chosen):  # type: ignore[no-untyped-def]
    """Genes of largest |treated - reference|, both (n_genes,) float32, in order, ties by gene order, into chosen (k,).

    Differences rounded to float32 keep their order, so the k-th largest maximum of runs of genes is a bar that none
    of the top k falls below. Only the few genes that reach it are compared exactly, in float64. ``rough``
    (n_genes,) float32 and ``values`` (n_genes,) float64 are workspace.
    """
    n_genes, k = treated.shape[0], chosen.shape[0]
    length = RUN
    while length > 4 and n_genes < 4 * k * length:
        length //= 2
    n_runs = n_genes // length
    for g in range(n_genes):
        rough[g] = abs(treated[g] - reference[g])
    bits = rough.view(np.int32)  # of numbers that are not negative: same order as the numbers
    bar = np.int32(0)
    largest = np.zeros(n_runs, dtype=np.int32)
    if n_runs > k:
        for run in range(n_runs):
            piece = bits[run * length : (run + 1) * length]
            most = np.int32(0)
            for j in range(length):
                most = max(most, piece[j])
            largest[run] = most
        bar = _kth_largest(largest, k)
    n = 0
    places = np.empty(n_genes, dtype=np.int32)
    for run in range(n_runs):
        if largest[run] < bar:
            continue
        for g in range(run * length, (run + 1) * length):
            if bits[g] >= bar:
                places[n] = g
                n += 1
    for g in range(n_runs * length, n_genes):
        if bits[g] >= bar:
            places[n] = g
            n += 1
    for j in range(n):
        values[j] = abs(np.float64(treated[places[j]]) - np.float64(reference[places[j]]))
    best = np.empty(k, dtype=np.float64)
    top_of(values[:n], best, chosen)  # places ascend, so ties still go by gene order
    for j in range(k):
        chosen[j] = places[chosen[j]]


@kernel
def _kth_largest(numbers, k):  # type: ignore[no-untyped-def]
    """The k-th largest by quickselect on a copy; pivots are taken from the middle, so the answer needs no chance."""
    a = numbers.copy()
    low, high, want = 0, a.shape[0] - 1, k - 1
    while low < high:
        pivot = a[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while a[i] > pivot:
                i += 1
            while a[j] < pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if want <= j:
            high = j
        elif want >= i:
            low = i
        else:
            break
    return a[want]


@kernel
def top_genes(treated, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Genes of largest |treated - reference| for rows [start, stop), into out (n, k) int32."""
    n_genes = treated.shape[1]
    rough = np.empty(n_genes, dtype=np.float32)
    values = np.empty(n_genes, dtype=np.float64)
    shared = reference.shape[0] == 1
    for i in range(start, stop):
        top_of_row(treated[i], reference[0 if shared else i], rough, values, out[i])


@kernel
def cut_slices(tile, reference, lacking, usable, start, stop, genes, y, offset, delta):  # type: ignore[no-untyped-def]
    """Rows [start, stop) of a tile into genes (n, k) int32, y, offset (n, k) and delta (n, M, k) float32.

    ``tile`` (M + 2, n, n_genes) holds predictions, treated, control; ``reference`` is (1, n_genes), or (0, n_genes)
    for the own control. The genes are those of largest |treated - reference|, in order, ties by gene order; NaN
    where a model has no prediction.
    """
    n_models, n_genes, k = tile.shape[0] - 2, tile.shape[2], genes.shape[1]
    treated, control = tile[n_models], tile[n_models + 1]
    own = reference.shape[0] == 0
    rough = np.empty(n_genes, dtype=np.float32)
    values = np.empty(n_genes, dtype=np.float64)
    for i in range(start, stop):
        t = treated[i]
        ref = control[i] if own else reference[0]
        chosen = genes[i]
        top_of_row(t, ref, rough, values, chosen)
        for j in range(k):
            g = chosen[j]
            y[i, j] = np.float64(t[g]) - np.float64(control[i, g])
            offset[i, j] = np.float64(control[i, g]) - np.float64(ref[g])
        for m in range(n_models):
            if not usable[m, i]:
                for j in range(k):
                    delta[i, m, j] = np.nan
                continue
            p = tile[m, i]
            for j in range(k):
                g = chosen[j]
                delta[i, m, j] = np.float64(p[g]) - np.float64(control[i, g])
                if lacking[m, 0] >= 0 and lacking[m, g] > 0:
                    delta[i, m, j] = np.nan
