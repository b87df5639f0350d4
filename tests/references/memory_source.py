"""A small block source in memory for tests: a world of control, drug effect and models that know part of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_array
from pertstack.design.blocks import Block


@dataclass
class MemorySource:
    """Everything is given, per block; ``reads`` counts the rows read of each layer."""

    gene_names: np.ndarray
    models: tuple[str, ...]
    layers: dict  # (Block, layer) -> (n, n_genes) float32
    tables: dict  # Block -> DataFrame
    unsound: dict = field(default_factory=dict)  # (Block, model) -> bool (n,), True where not sound
    lacking: dict = field(default_factory=dict)  # (Block, model) -> bool (n_genes,), True where missing
    order: list | None = None
    reads: dict = field(default_factory=dict)

    def blocks(self):
        return list(self.order if self.order is not None else sorted(self.tables))

    def obs(self, block):
        return self.tables[block]

    def read(self, block, layer, start, stop, out=None):
        self.reads[(block, layer)] = self.reads.get((block, layer), 0) + stop - start
        rows = self.layers[(block, layer)][start:stop]
        if out is not None:
            out[...] = rows
            return out
        return rows

    def sound(self, block, model):
        return ~self.unsound.get((block, model), np.zeros(len(self.tables[block]), dtype=bool))

    def genes_of(self, block, model):
        return ~self.lacking.get((block, model), np.zeros(len(self.gene_names), dtype=bool))

    def layer_digest(self, block, layer):
        extra = [self.sound(block, layer), self.genes_of(block, layer)] if layer in self.models else []
        return digest_array(self.layers[(block, layer)]) + "".join(digest_array(e) for e in extra)


def world(
    n=20, n_genes=50, n_models=3, lines=("A375", "MCF7"), folds=(0, 1), test=False, seed=0, level=7.0, n_drugs=6
) -> MemorySource:
    """n rows per block; treated = control + effect of the drug + noise; model m sees the effect through its own
    noise.
    """
    rng = np.random.default_rng(seed)
    names = tuple(f"m{m}" for m in range(n_models))
    layers, tables = {}, {}
    effects = rng.normal(size=(n_drugs, n_genes)) * rng.gamma(1.0, 1.0, size=n_genes)
    for line in lines:
        base = rng.normal(level, 2, n_genes)
        for fold in [*folds, *([None] if test else [])]:
            block = Block(line, fold)
            drug = rng.integers(0, n_drugs, n)
            control = base + rng.normal(0, 0.5, (n, n_genes))
            truth = effects[drug]
            layers[(block, "control")] = control.astype(np.float32)
            layers[(block, "treated")] = (control + truth + rng.normal(0, 0.5, (n, n_genes))).astype(np.float32)
            for m, name in enumerate(names):
                seen = control + (1 - 0.2 * m) * truth + rng.normal(0, 0.4 + 0.3 * m, (n, n_genes)) + 0.1 * m
                layers[(block, name)] = seen.astype(np.float32)
            ids = [f"{line}-{fold}-{i}" for i in range(n)]
            drugs = [f"drug{d}" for d in drug]
            tables[block] = pd.DataFrame({"perturbation": drugs, "cell_line": line, "group": drugs}, index=ids)
    return MemorySource(np.array([f"g{g}" for g in range(n_genes)], dtype=object), names, layers, tables)
