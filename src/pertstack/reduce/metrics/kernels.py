"""Loops behind the metrics: sums over a gene set, ranks, distances. Formulas are in ``definitions.py``.

Differences are taken in float64 from float32 profiles, so they are exact; centred sums are taken in two passes.
A reference is an array (n, n_genes) or (1, n_genes): one row for each sample, or one for all.
"""

from __future__ import annotations

import numpy as np

from pertstack._base.compiled import kernel

N, MEAN_T, MEAN_P, S_TT, S_PP, S_TP, S_ABS, S_SQ, N_SIGN = range(9)
N_SUMS = 9


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
def mean_ranks(values, order, out):  # type: ignore[no-untyped-def]
    """Ranks from 1 of each row of values (n, n_genes), ties sharing their mean rank; ``order`` sorts the row.

    ``out`` may be float32: half integers up to 2 ** 23 are exact in it.
    """
    n = values.shape[1]
    for row in range(values.shape[0]):
        v, o, i = values[row], order[row], 0
        while i < n:
            j = i
            while j + 1 < n and v[o[j + 1]] == v[o[i]]:
                j += 1
            for q in range(i, j + 1):
                out[row, o[q]] = 0.5 * (i + j) + 1.0
            i = j + 1


@kernel
def spearman_of_ranks(truth, prediction, out):  # type: ignore[no-untyped-def]
    """Correlation of ranks (n, n_genes) row by row, into out (n,); 0 where either side is constant in rank."""
    n_genes = truth.shape[1]
    t = np.empty(n_genes, dtype=np.float64)
    p = np.empty(n_genes, dtype=np.float64)
    sums = np.empty(N_SUMS, dtype=np.float64)
    for i in range(truth.shape[0]):
        for g in range(n_genes):
            t[g], p[g] = truth[i, g], prediction[i, g]
        _sums_of(t, p, n_genes, sums)
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
