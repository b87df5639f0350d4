"""The rows that probes look at: a sample of whole groups, so that the cost does not grow with the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.reading.tables import as_texts
from pertstack.predictions.source import BlockSource
from pertstack.predictions.sources.some_rows import read_at
from pertstack.verdict.probes.batches import control_batches

ROWS, GENES = 3000, 1000
"""Most rows and genes that are looked at: about 12 MB a layer, whatever the size of the study."""
CONDITION = ("perturbation", "cell_line", "log10_dose", "dose", "time_h")


@dataclass(frozen=True)
class Sampled:
    """Out-of-fold rows that are looked at, of whole groups. Profiles (n, n_genes) float32 in the treated scale."""

    samples: pd.DataFrame  # index = sample ids; metadata, group, fold
    genes: Array  # positions of the genes looked at
    treated: Array
    control: Array
    _known: dict[tuple[bytes, bytes], Array] = field(init=False, repr=False, compare=False, default_factory=dict)

    def known(self, rows: Array, genes: Array, make: Callable[[], Array]) -> Array:
        """What is made of the truth of some rows and genes: once for all models in a row that predict the same.

        Parameters
        ----------
        rows, genes : masks of those that a model predicted.
        make : makes it.
        """
        key = rows.tobytes(), genes.tobytes()
        if key not in self._known:
            self._known.clear()
            self._known[key] = make()
        return self._known[key]

    @cached_property
    def conditions(self) -> Array:
        """(n,) names; rows of one condition are replicates. A column ``condition`` says so itself."""
        columns = ["condition"] if "condition" in self.samples else [c for c in CONDITION if c in self.samples]
        joined: Array = as_texts(self.samples[columns]).agg("|".join, axis=1).to_numpy(dtype=str)
        return joined

    @property
    def plates_known(self) -> bool:
        return "plate" in self.samples and bool(self.samples["plate"].notna().all())

    @cached_property
    def batches(self) -> Array:
        """(n,) plates of a cell line if they are known, else rows with the same control."""
        if not self.plates_known:
            return control_batches(self.control)
        named: Array = (self.samples["plate"].astype(str) + "|" + self.samples["cell_line"].astype(str)).to_numpy(str)
        return named


def sample_rows(source: BlockSource, rng: np.random.Generator) -> Sampled:
    """Whole groups, drawn until ``ROWS`` rows are together (at least four groups a fold, however large they are)."""
    blocks = source.blocks()
    tables = [source.obs(b).assign(fold=b.fold) for b in blocks]
    size = pd.concat(tables)["group"].astype(str).value_counts().sort_index()
    order = rng.permutation(len(size))
    running = np.cumsum(size.to_numpy()[order])
    least = 4 * len({b.fold for b in blocks})
    kept = set(size.index[order[: max(least, int((running <= ROWS).sum()))]])
    genes = np.sort(rng.permutation(len(source.gene_names))[:GENES])
    parts = [(t["group"].astype(str).isin(kept)).to_numpy() for t in tables]
    layers = [read_rows(source, blocks, parts, layer=layer, genes=genes) for layer in ("treated", "control")]
    return Sampled(pd.concat([t[p] for t, p in zip(tables, parts, strict=True)]), genes, *layers)


def read_rows(source: BlockSource, blocks: Sequence[Any], parts: Sequence[Array], *, layer: str, genes: Array) -> Array:
    """The chosen rows, (n, n_genes chosen), float32; no other row is read, and few at a time.

    Parameters
    ----------
    source : to read from.
    blocks : in the order of the answer.
    parts : per block a mask of its rows.
    layer : a model, "control" or "treated".
    genes : positions of genes.
    """
    found = [np.zeros((0, len(genes)), dtype=np.float32)]
    for block, part in zip(blocks, parts, strict=True):
        rows = np.flatnonzero(part)
        found += [read_at(source, block, layer, rows=rows[a : a + 256])[:, genes] for a in range(0, len(rows), 256)]
    return np.concatenate(found)
