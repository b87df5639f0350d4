"""Top-gene slices of some rows: the genes of largest measured change with truth, offset and every model's delta on
them.
"""

from __future__ import annotations

import numpy as np

from pertstack.reduce._numba import kernel
from pertstack.reduce.metrics.kernels import top_of_row


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
                delta[i, m, :] = np.nan
                continue
            p = tile[m, i]
            for j in range(k):
                g = chosen[j]
                delta[i, m, j] = np.float64(p[g]) - np.float64(control[i, g])
                if lacking[m, 0] >= 0 and lacking[m, g] > 0:
                    delta[i, m, j] = np.nan
