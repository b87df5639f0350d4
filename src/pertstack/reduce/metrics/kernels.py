"""Loops behind the metrics: sums over a gene set. Formulas are in ``definitions.py``.

Differences are taken in float64 from float32 profiles, so they are exact; centred sums are taken in two passes.
A reference is an array (n, n_genes) or (1, n_genes): one row for each sample, or one for all.
"""

from __future__ import annotations

import numpy as np

from pertstack._base.machine.compiled import kernel

N, MEAN_T, MEAN_P, S_TT, S_PP, S_TP, S_ABS, S_SQ, N_SIGN = range(9)
N_SUMS = 9
STRIP = 512  # genes whose truth stays in the first cache while every prediction meets it


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
def truth_sums(treated, reference, start, stop, mean, square):  # type: ignore[no-untyped-def]
    """Mean and centred sum of squares of treated - reference over all genes, for rows [start, stop), into (n,) each."""
    n_genes, shared = treated.shape[1], reference.shape[0] == 1
    for i in range(start, stop):
        t, ref = treated[i], reference[0 if shared else i]
        s = 0.0
        for g in range(n_genes):
            s += np.float64(t[g]) - np.float64(ref[g])
        m, ss = s / n_genes, 0.0
        for g in range(n_genes):
            d = np.float64(t[g]) - np.float64(ref[g]) - m
            ss += d * d
        mean[i], square[i] = m, ss


@kernel
def error_sums(given, made, treated, by_row, shared, mean, start, stop, out):  # type: ignore[no-untyped-def]
    """Sums over all genes of the errors D = prediction - treated of many predictions, for rows [start, stop).

    Into out (names, n, 3 + references): D, D², |D| and, for each reference, D times the centred truth T against it.
    With P = T + D every correlation against every reference follows from them and the sums of T.

    Parameters
    ----------
    given, made : float32 (names, n, n_genes), predictions; names of ``given`` come first
    by_row : float32 (references, n, n_genes); shared : float32 (references, n_genes), references after those by row
    mean : float64 (references, n), mean of treated - reference
    """
    n_genes, n_given, n_own = treated.shape[1], given.shape[0], by_row.shape[0]
    n_refs = n_own + shared.shape[0]
    truth = np.empty((n_refs, n_genes), dtype=np.float64)
    error = np.empty(STRIP, dtype=np.float64)
    for i in range(start, stop):
        t = treated[i]
        for r in range(n_refs):
            ref = by_row[r, i] if r < n_own else shared[r - n_own]
            m, row = mean[r, i], truth[r]
            for g in range(n_genes):
                row[g] = np.float64(t[g]) - np.float64(ref[g]) - m
        out[:, i] = 0.0
        for g in range(0, n_genes, STRIP):
            size = min(STRIP, n_genes - g)
            mine = t[g : g + size]
            for c in range(n_given + made.shape[0]):
                p = given[c, i, g : g + size] if c < n_given else made[c - n_given, i, g : g + size]
                s, ss, sad = 0.0, 0.0, 0.0
                for q in range(size):
                    d = np.float64(p[q]) - np.float64(mine[q])
                    error[q] = d
                    s += d
                    ss += d * d
                    sad += abs(d)
                found = out[c, i]
                found[0] += s
                found[1] += ss
                found[2] += sad
                for r in range(n_refs):
                    row, together = truth[r, g : g + size], 0.0
                    for q in range(size):
                        together += error[q] * row[q]
                    found[3 + r] += together


@kernel
def sign_counts(given, made, treated, reference, start, stop, out):  # type: ignore[no-untyped-def]
    """Genes whose prediction lies on the truth's side of the reference, for rows [start, stop), into out (names, n)."""
    n_genes, n_given, shared = treated.shape[1], given.shape[0], reference.shape[0] == 1
    for i in range(start, stop):
        t, ref = treated[i], reference[0 if shared else i]
        for c in range(n_given + made.shape[0]):
            p = given[c, i] if c < n_given else made[c - n_given, i]
            equal = np.int32(0)
            for g in range(n_genes):
                equal += ((t[g] > ref[g]) == (p[g] > ref[g])) & ((t[g] < ref[g]) == (p[g] < ref[g]))
            out[c, i] = equal


@kernel
def top_sums(given, made, treated, reference, top, ks, start, stop, out):  # type: ignore[no-untyped-def]
    """Sums over each set of top genes for rows [start, stop), into out (names, n, len(ks), 9).

    ``top`` (n, at least max ks) holds genes in order, so that a smaller k is a prefix. Names as in ``error_sums``.
    """
    n_k, n_given, shared = ks.shape[0], given.shape[0], reference.shape[0] == 1
    most = ks[n_k - 1]
    t, p = np.empty(most, dtype=np.float64), np.empty(most, dtype=np.float64)
    for i in range(start, stop):
        ref, genes = reference[0 if shared else i], top[i]
        for j in range(most):
            t[j] = np.float64(treated[i, genes[j]]) - np.float64(ref[genes[j]])
        for c in range(n_given + made.shape[0]):
            row = given[c, i] if c < n_given else made[c - n_given, i]
            for j in range(most):
                p[j] = np.float64(row[genes[j]]) - np.float64(ref[genes[j]])
            for q in range(n_k):
                _sums_of(t, p, ks[q], out[c, i, q])


@kernel
def whole_sums(prediction, treated, reference, rows, out):  # type: ignore[no-untyped-def]
    """Sums over all genes of some rows, gene by gene and in two passes, into out (len(rows), 9)."""
    n_genes, shared = treated.shape[1], reference.shape[0] == 1
    t, p = np.empty(n_genes, dtype=np.float64), np.empty(n_genes, dtype=np.float64)
    for at in range(rows.shape[0]):
        i = rows[at]
        ref = reference[0 if shared else i]
        for g in range(n_genes):
            t[g] = np.float64(treated[i, g]) - np.float64(ref[g])
            p[g] = np.float64(prediction[i, g]) - np.float64(ref[g])
        _sums_of(t, p, n_genes, out[at])
