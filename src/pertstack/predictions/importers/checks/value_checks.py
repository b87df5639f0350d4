"""Are the values of predictions on the scale of the truth, on the right rows, and not the truth itself?

For predictions in memory; ``add`` asks the same of rows in a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.findings import Finding
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.importers.checks.meaning import check_meaning
from pertstack.predictions.importers.checks.sampled import SAMPLED_GENES, SAMPLED_ROWS, Place, Sampled
from pertstack.predictions.importers.checks.scale import Scale, refuse_the_truth
from pertstack.predictions.importers.checks.shift import check_shift


@dataclass(frozen=True)
class InMemory:
    """Truth and control in memory, in the shape that the checks of a store ask for: one block per cell line."""

    layers: dict[str, Float32]
    samples: pd.DataFrame
    gene_names: Sequence[str]
    rows: dict[Block, np.ndarray[Any, np.dtype[np.intp]]]

    @classmethod
    def of(cls, treated: Float32, control: Float32, samples: pd.DataFrame, *, gene_names: Sequence[str]) -> InMemory:
        """Arrays as a store of one block per cell line.

        Parameters
        ----------
        treated, control : (n, n_genes).
        samples : (n rows), with cell_line.
        gene_names : (n_genes,).
        """
        lines = samples["cell_line"].astype(str).to_numpy()
        rows = {Block(str(line), 0): np.flatnonzero(lines == line) for line in np.unique(lines)}
        return cls({"treated": treated, "control": control}, samples, gene_names, rows)

    @property
    def places(self) -> dict[str, Place]:
        """Where every sample is."""
        names = [str(s) for s in self.samples.index]
        return {names[at]: Place(block, i) for block, rows in self.rows.items() for i, at in enumerate(rows)}

    @property
    def facts(self) -> Any:
        return SimpleNamespace(n_genes=self.layers["treated"].shape[1])

    def status(self, block: Block, layer: str) -> str:
        return "committed" if layer in self.layers else "missing"

    def obs(self, block: Block) -> pd.DataFrame:
        return self.samples.iloc[self.rows[block]]

    def n_samples(self, block: Block) -> int:
        return len(self.rows[block])

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        values = np.asarray(self.layers[layer][self.rows[block][start:stop]])
        if out is None:
            return values
        out[...] = values
        return out


def check_values(
    model: str,
    values: Float32,
    treated: Float32,
    *,
    control: Float32,
    samples: pd.DataFrame,
    rows: Sequence[int],
    scale: Scale,
    gene_names: Sequence[str],
    ids_in_file: bool,
    genes_by_list: bool = False,
) -> list[Finding]:
    """Findings on the predicted rows of a model; an error says that they must not be scored like this.

    Parameters
    ----------
    model : name.
    values : (n_samples, n_genes), as given.
    treated, control : (n_samples, n_genes), measured.
    samples : (n_samples rows), with cell_line.
    rows : positions of the predicted samples, in the order of the file.
    scale : of the values, "treated" or "delta".
    gene_names : (n_genes,).
    ids_in_file : False if rows were matched by what was done: then nothing could be shifted against ids, so that is
        not asked.
    genes_by_list : columns got names by position.

    Raises
    ------
    IntegrityError
        The values are the truth itself.
    """
    if not len(rows):
        return []
    at = np.asarray(rows)[np.linspace(0, len(rows) - 1, min(SAMPLED_ROWS, len(rows))).round().astype(int)]
    n_genes = values.shape[1]
    genes = np.linspace(0, n_genes - 1, min(SAMPLED_GENES, n_genes)).round().astype(np.intp)
    p, y, c = (np.asarray(a[at][:, genes]) for a in (values, treated, control))
    refuse_the_truth(p, y, c, scale=scale, name=model, slots="")
    lines = samples["cell_line"].astype(str).to_numpy()[at].tolist()
    found = check_meaning(p, y, c, scale=scale, name=model, lines=lines, by_position=genes_by_list)
    if ids_in_file:
        as_treated = p if scale == "treated" else p + c
        names = [str(s) for s in samples.index]
        order = {int(r): i for i, r in enumerate(rows)}
        sampled = Sampled(tuple(names[i] for i in at), tuple(order[int(i)] for i in at), genes, as_treated)
        store: Any = InMemory.of(treated, control, samples, gene_names=gene_names)
        found += check_shift(
            store, sampled, [names[i] for i in rows], places=store.places, name=model, file_genes=gene_names
        )
    return found
