"""What the one pass should find, by plain numpy over whole blocks in float64: the slow road the fast one is tested
against.
"""

from __future__ import annotations

import numpy as np

from references.metric_loops import top_of


def columns(source, references, block):
    """(n, D, n_genes): deltas, y, offset in float64."""
    layer = {name: source.layers[(block, name)].astype(float) for name in (*source.models, "treated", "control")}
    pooled = references.pooled(block.cell_line).astype(np.float32).astype(float)
    deltas = [layer[m] - layer["control"] for m in source.models]
    return np.stack([*deltas, layer["treated"] - layer["control"], layer["control"] - pooled], axis=1)


def gene_moments(v, rows):
    """count, mean (G, D), scatter (G, D, D) over the chosen rows, gene by gene."""
    v = v[rows]
    mean = v.mean(axis=0)  # (D, G)
    scatter = np.stack([(v[:, :, g] - mean[:, g]).T @ (v[:, :, g] - mean[:, g]) for g in range(v.shape[2])])
    return len(v), mean.T, scatter


def sample_moments(v):
    """mean (n, D), scatter (n, D, D) over genes, row by row."""
    mean = v.mean(axis=2)
    return mean, np.stack([(row - m[:, None]) @ (row - m[:, None]).T for row, m in zip(v, mean, strict=True)])


def top_genes(treated, reference, k):
    return np.array([top_of(t, k) for t in treated.astype(float) - np.asarray(reference, dtype=float)])
