"""Loops behind the metrics: top genes of a truth, sums over a gene set, ranks. Formulas are in ``definitions.py``.

Differences are taken in float64 from float32 profiles, so they are exact; centred sums are taken in two passes.
A reference is an array (n, n_genes) or (1, n_genes): one row for each sample, or one for all.
"""

from __future__ import annotations

import numpy as np

from pertstack.reduce._numba import kernel

N, MEAN_T, MEAN_P, S_TT, S_PP, S_TP, S_ABS, S_SQ, N_SIGN = range(9)
N_SUMS = 9
RUN = 32  # genes whose maximum is looked at first when top genes are chosen


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
                    _sift(values, genes, 0, k)
        g = stop
    for last in range(k - 1, 0, -1):  # take the one that stands last to the end, again and again
        values[0], values[last] = values[last], values[0]
        genes[0], genes[last] = genes[last], genes[0]
        _sift(values, genes, 0, last)


@kernel
def top_of_row(treated, reference, rough, values, chosen):  # type: ignore[no-untyped-def]
    """Genes of largest |treated - reference|, both (n_genes,) float32, in order, ties by gene order, into chosen (k,).

    Differences rounded to float32 keep their order, so the k-th largest maximum of runs of 32 genes is a bar that
    none of the top k falls below. Only the few genes that reach it are compared exactly, in float64. ``rough``
    (n_genes,) float32 and ``values`` (n_genes,) float64 are workspace.
    """
    n_genes, k = treated.shape[0], chosen.shape[0]
    n_runs = n_genes // RUN
    for g in range(n_genes):
        rough[g] = abs(treated[g] - reference[g])
    bits = rough.view(np.int32)  # of numbers that are not negative: same order as the numbers
    bar = np.int32(0)
    largest = np.zeros(n_runs, dtype=np.int32)
    if n_runs > k:
        for run in range(n_runs):
            piece = bits[run * RUN : (run + 1) * RUN]
            most = np.int32(0)
            for j in range(RUN):
                most = max(most, piece[j])
            largest[run] = most
        bar = _kth_largest(largest, k)
    n = 0
    places = np.empty(n_genes, dtype=np.int32)
    for run in range(n_runs):
        if largest[run] < bar:
            continue
        for g in range(run * RUN, (run + 1) * RUN):
            if bits[g] >= bar:
                places[n] = g
                n += 1
    for g in range(n_runs * RUN, n_genes):
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
def _sums_of(t, p, n, out):  # type: ignore[no-untyped-def]
    """Centred sums over the first n entries of truth t and prediction p (float64), in two passes."""
    st, sp = 0.0, 0.0
    for j in range(n):
        st += t[j]
        sp += p[j]
    mt, mp = st / n, sp / n
    tt, pp, tp, sad, ssd, equal = 0.0, 0.0, 0.0, 0.0, 0.0, 0
    for j in range(n):
        a, b, d = t[j] - mt, p[j] - mp, t[j] - p[j]
        tt += a * a
        pp += b * b
        tp += a * b
        sad += abs(d)
        ssd += d * d
        equal += ((t[j] > 0.0) == (p[j] > 0.0)) & ((t[j] < 0.0) == (p[j] < 0.0))
    out[N], out[MEAN_T], out[MEAN_P], out[S_TT], out[S_PP], out[S_TP] = n, mt, mp, tt, pp, tp
    out[S_ABS], out[S_SQ], out[N_SIGN] = sad, ssd, equal


@kernel
def gene_set_sums(prediction, treated, reference, top, ks, with_all, start, stop, out):  # type: ignore[no-untyped-def]
    """Sums over each gene set for rows [start, stop), into out (n, len(ks) + 1, 9); the last set is all genes.

    ``top`` (n, at least max ks) holds genes in order, so that a smaller k is a prefix.
    """
    n_genes, n_k = prediction.shape[1], ks.shape[0]
    t = np.empty(n_genes, dtype=np.float64)
    p = np.empty(n_genes, dtype=np.float64)
    shared = reference.shape[0] == 1
    for i in range(start, stop):
        ref = reference[0 if shared else i]
        if n_k:
            for j in range(ks[n_k - 1]):
                g = top[i, j]
                t[j] = np.float64(treated[i, g]) - np.float64(ref[g])
                p[j] = np.float64(prediction[i, g]) - np.float64(ref[g])
            for q in range(n_k):
                _sums_of(t, p, ks[q], out[i, q])
        if with_all:
            for g in range(n_genes):
                t[g] = np.float64(treated[i, g]) - np.float64(ref[g])
                p[g] = np.float64(prediction[i, g]) - np.float64(ref[g])
            _sums_of(t, p, n_genes, out[i, n_k])


@kernel
def _ranks(values, out):  # type: ignore[no-untyped-def]
    """Ranks from 1, ties sharing their mean rank."""
    order = np.argsort(values)
    n, i = values.shape[0], 0
    while i < n:
        j = i
        while j + 1 < n and values[order[j + 1]] == values[order[i]]:
            j += 1
        for q in range(i, j + 1):
            out[order[q]] = 0.5 * (i + j) + 1.0
        i = j + 1


@kernel
def spearman_rows(prediction, treated, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Spearman correlation over all genes for rows [start, stop); 0 where either side is constant in rank."""
    n_genes = prediction.shape[1]
    t = np.empty(n_genes, dtype=np.float64)
    p = np.empty(n_genes, dtype=np.float64)
    rt = np.empty(n_genes, dtype=np.float64)
    rp = np.empty(n_genes, dtype=np.float64)
    sums = np.empty(N_SUMS, dtype=np.float64)
    shared = reference.shape[0] == 1
    for i in range(start, stop):
        ref = reference[0 if shared else i]
        for g in range(n_genes):
            t[g] = np.float64(treated[i, g]) - np.float64(ref[g])
            p[g] = np.float64(prediction[i, g]) - np.float64(ref[g])
        _ranks(t, rt)
        _ranks(p, rp)
        _sums_of(rt, rp, n_genes, sums)
        scale = np.sqrt(sums[S_TT] * sums[S_PP])
        out[i] = sums[S_TP] / scale if scale > 0.0 else 0.0


@kernel
def profile_distances(truth, prediction, start, stop, out):  # type: ignore[no-untyped-def]
    """Sums of |t - p|, (t - p)^2 and t p between predictions [start, stop) and every truth, added to out (n, n, 3)."""
    n, n_genes = truth.shape
    for low in range(0, n_genes, 512):  # all truths of a run of genes stay in cache
        high = min(n_genes, low + 512)
        for i in range(start, stop):
            p = prediction[i, low:high]
            for j in range(n):
                t = truth[j, low:high]
                l1, l2, dot = 0.0, 0.0, 0.0
                for g in range(high - low):
                    d = t[g] - p[g]
                    l1 += abs(d)
                    l2 += d * d
                    dot += t[g] * p[g]
                out[i, j, 0] += l1
                out[i, j, 1] += l2
                out[i, j, 2] += dot
