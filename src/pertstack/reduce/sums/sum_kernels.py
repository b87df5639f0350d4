"""The inner loop of the one pass: products of every pair of columns, summed over rows per gene and over genes per row.

Columns are delta_1..delta_M, y, offset. Both sums come from the same few rows x 256 genes, converted to float64
differences once and kept in cache. Columns meet in blocks of 3 x 3, so that six loads serve nine products; all
products and sums are float64. The order of every sum is fixed by the position of a row in its block, so neither tile
size nor threads change a bit.
"""

from __future__ import annotations

import numpy as np

from pertstack._base.machine.compiled import kernel

GENES = 256  # genes of a strip: long enough for sums over genes to run in vector lanes
ROWS = 8  # rows of a strip; a tile starts at a multiple of it
PANEL = 4 * GENES  # genes a thread takes at a time
_COLUMN = GENES * ROWS


def n_triples(n_columns: int) -> int:
    """Blocks of three columns; the last is padded with zeros."""
    return -(-n_columns // 3)


def n_pairs(n_columns: int) -> int:
    """Pairs of such blocks, first <= second."""
    triples = n_triples(n_columns)
    return triples * (triples + 1) // 2


@kernel
def _difference(a, b, out):  # type: ignore[no-untyped-def]
    for g in range(a.shape[0]):
        out[g] = np.float64(a[g]) - np.float64(b[g])


@kernel
def _load(tile, pooled, lacking, usable, first, n_rows, start, stop, strip):  # type: ignore[no-untyped-def]
    """Rows [first, first + n_rows), genes [start, stop) as differences, zero where a model has nothing to say."""
    n_models = tile.shape[0] - 2
    treated, control = tile[n_models], tile[n_models + 1]
    n_genes = stop - start
    for r in range(ROWS):
        for c in range(n_models + 2):
            out = strip[c * _COLUMN + r * GENES : c * _COLUMN + r * GENES + GENES]
            if r >= n_rows or (c < n_models and not usable[c, first + r]):
                for g in range(GENES):
                    out[g] = 0.0
                continue
            i = first + r
            ctl = control[i, start:stop]
            if c < n_models:
                _difference(tile[c, i, start:stop], ctl, out)
                if lacking[c, 0] >= 0:
                    for g in range(n_genes):
                        if lacking[c, start + g] > 0:
                            out[g] = 0.0
            elif c == n_models:
                _difference(treated[i, start:stop], ctl, out)
            else:
                _difference(ctl, pooled[start:stop], out)
            for g in range(n_genes, GENES):
                out[g] = 0.0


@kernel
def _gene_products(strip, a, b, sums):  # type: ignore[no-untyped-def]
    """Add the products of column blocks a and b over the strip's rows to sums (9 x GENES, flat), four rows at a
    time.
    """
    for r in range(0, ROWS, 4):
        x = strip[a * 3 * _COLUMN + r * GENES :]
        y = strip[b * 3 * _COLUMN + r * GENES :]
        for g in range(GENES):
            x00, x01, x02, x03 = x[g], x[GENES + g], x[2 * GENES + g], x[3 * GENES + g]
            x10, x11 = x[_COLUMN + g], x[_COLUMN + GENES + g]
            x12, x13 = x[_COLUMN + 2 * GENES + g], x[_COLUMN + 3 * GENES + g]
            x20, x21 = x[2 * _COLUMN + g], x[2 * _COLUMN + GENES + g]
            x22, x23 = x[2 * _COLUMN + 2 * GENES + g], x[2 * _COLUMN + 3 * GENES + g]
            y00, y01, y02, y03 = y[g], y[GENES + g], y[2 * GENES + g], y[3 * GENES + g]
            y10, y11 = y[_COLUMN + g], y[_COLUMN + GENES + g]
            y12, y13 = y[_COLUMN + 2 * GENES + g], y[_COLUMN + 3 * GENES + g]
            y20, y21 = y[2 * _COLUMN + g], y[2 * _COLUMN + GENES + g]
            y22, y23 = y[2 * _COLUMN + 2 * GENES + g], y[2 * _COLUMN + 3 * GENES + g]
            sums[g] += x00 * y00 + x01 * y01 + x02 * y02 + x03 * y03
            sums[GENES + g] += x00 * y10 + x01 * y11 + x02 * y12 + x03 * y13
            sums[2 * GENES + g] += x00 * y20 + x01 * y21 + x02 * y22 + x03 * y23
            sums[3 * GENES + g] += x10 * y00 + x11 * y01 + x12 * y02 + x13 * y03
            sums[4 * GENES + g] += x10 * y10 + x11 * y11 + x12 * y12 + x13 * y13
            sums[5 * GENES + g] += x10 * y20 + x11 * y21 + x12 * y22 + x13 * y23
            sums[6 * GENES + g] += x20 * y00 + x21 * y01 + x22 * y02 + x23 * y03
            sums[7 * GENES + g] += x20 * y10 + x21 * y11 + x22 * y12 + x23 * y13
            sums[8 * GENES + g] += x20 * y20 + x21 * y21 + x22 * y22 + x23 * y23


@kernel
def _row_products(strip, a, b, r, sums):  # type: ignore[no-untyped-def]
    """Add the products of column blocks a and b over the genes of row r to sums (9,)."""
    x = strip[a * 3 * _COLUMN + r * GENES :]
    y = strip[b * 3 * _COLUMN + r * GENES :]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = 0.0
    for g in range(GENES):
        x0, x1, x2 = x[g], x[_COLUMN + g], x[2 * _COLUMN + g]
        y0, y1, y2 = y[g], y[_COLUMN + g], y[2 * _COLUMN + g]
        s0 += x0 * y0
        s1 += x0 * y1
        s2 += x0 * y2
        s3 += x1 * y0
        s4 += x1 * y1
        s5 += x1 * y2
        s6 += x2 * y0
        s7 += x2 * y1
        s8 += x2 * y2
    sums[0] += s0
    sums[1] += s1
    sums[2] += s2
    sums[3] += s3
    sums[4] += s4
    sums[5] += s5
    sums[6] += s6
    sums[7] += s7
    sums[8] += s8


@kernel
def _row_totals(strip, n_columns, r, sums):  # type: ignore[no-untyped-def]
    for c in range(n_columns):
        x = strip[c * _COLUMN + r * GENES :]
        s = 0.0
        for g in range(GENES):
            s += x[g]
        sums[c] += s


@kernel
def _centre(strip, n_columns, n_rows, first, complete, pivot_row, pivot, sums):  # type: ignore[no-untyped-def]
    """Subtract the pivot (D, GENES), the block's first complete row, so that a large mean costs no digits; add to sums.

    Rows that are not complete are emptied.
    """
    whole = n_rows == ROWS
    for r in range(n_rows):
        whole = whole and complete[first + r]
    for c in range(n_columns):
        middle, out = pivot[c], sums[c]
        if first <= pivot_row < first + n_rows:
            at = c * _COLUMN + (pivot_row - first) * GENES
            for g in range(GENES):
                middle[g] = strip[at + g]
        x = strip[c * _COLUMN : (c + 1) * _COLUMN]
        if whole:
            for g in range(GENES):
                m = middle[g]
                x0, x1, x2, x3 = x[g] - m, x[GENES + g] - m, x[2 * GENES + g] - m, x[3 * GENES + g] - m
                x4, x5, x6, x7 = x[4 * GENES + g] - m, x[5 * GENES + g] - m, x[6 * GENES + g] - m, x[7 * GENES + g] - m
                x[g], x[GENES + g], x[2 * GENES + g], x[3 * GENES + g] = x0, x1, x2, x3
                x[4 * GENES + g], x[5 * GENES + g], x[6 * GENES + g], x[7 * GENES + g] = x4, x5, x6, x7
                out[g] += ((x0 + x1) + (x2 + x3)) + ((x4 + x5) + (x6 + x7))
            continue
        for r in range(n_rows):
            row = x[r * GENES : (r + 1) * GENES]
            if complete[first + r]:
                for g in range(GENES):
                    row[g] -= middle[g]
                    out[g] += row[g]
            else:
                for g in range(GENES):
                    row[g] = 0.0


@kernel
def add_panel(  # type: ignore[no-untyped-def]
    tile, pooled, lacking, usable, complete, start, stop, pivot_row, pivot, gene_sum, gene_cross, row_sum, row_cross
):
    """Add one tile's rows to the sums of the genes [start, stop) and this panel's share of the sums per row.

    Parameters
    ----------
    tile : float32 (M + 2, n, n_genes): predictions, treated, control
    pooled : float32 (n_genes,)
    lacking : int8 (M, n_genes): 1 where a model lacks the gene; -1 in the first place of a model that lacks none
    usable : bool (M, n): rows a model predicted and has not seen
    complete : bool (n,): rows that enter the sums per gene
    pivot_row : the block's first complete row if it is in this tile, else -1
    pivot : float64 (n_strips, D, GENES): that row's values
    gene_sum : float64 (n_strips, D, GENES); gene_cross : float64 (n_strips, pairs, 9 * GENES): updated
    row_sum : float64 (n, D); row_cross : float64 (n, pairs, 9): set; (n, 0, 9) leaves out the products per row
    """
    n, n_columns = tile.shape[1], tile.shape[0]
    triples = (n_columns + 2) // 3
    strip = np.zeros(triples * 3 * _COLUMN)
    for i in range(n):
        for c in range(n_columns):
            row_sum[i, c] = 0.0
        for q in range(row_cross.shape[1]):
            for j in range(9):
                row_cross[i, q, j] = 0.0
    for g in range(start, stop, GENES):
        end = min(g + GENES, stop)
        total, cross = gene_sum[g // GENES], gene_cross[g // GENES]
        for first in range(0, n, ROWS):
            n_rows = min(ROWS, n - first)
            _load(tile, pooled, lacking, usable, first, n_rows, g, end, strip)
            for r in range(n_rows):
                _row_totals(strip, n_columns, r, row_sum[first + r])
            q = 0
            for a in range(triples if row_cross.shape[1] else 0):
                for b in range(a, triples):
                    for r in range(n_rows):
                        _row_products(strip, a, b, r, row_cross[first + r, q])
                    q += 1
            _centre(strip, n_columns, n_rows, first, complete, pivot_row, pivot[g // GENES], total)
            q = 0
            for a in range(triples):
                for b in range(a, triples):
                    _gene_products(strip, a, b, cross[q])
                    q += 1
