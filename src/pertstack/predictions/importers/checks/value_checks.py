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
from pertstack.predictions.importers.checks.sampled import SAMPLED_GENES, SAMPLED_ROWS, Place, Sampled
from pertstack.predictions.importers.checks.scale import Scale, check_scale, refuse_the_truth
from pertstack.predictions.importers.checks.shift import check_shift

SAME_GENES = 0.5
"""Correlation over genes of predicted and measured means below which columns are in another order."""
FEWEST_GENES = 20
"""Genes below which nothing is said of their names."""


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
    ids_in_file : False where rows were matched by what was done: then nothing could be shifted against ids, so that is
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
    found = check_scale(p, y, c, scale=scale, name=model)
    as_treated = p if scale == "treated" else p + c
    if genes_by_list and scale == "treated":
        found += check_gene_order(as_treated, y, model)
    elif not ids_in_file and scale == "treated" and c.any():
        found += check_gene_names(as_treated, y, model)
    if ids_in_file:
        names = [str(s) for s in samples.index]
        order = {int(r): i for i, r in enumerate(rows)}
        sampled = Sampled(tuple(names[i] for i in at), tuple(order[int(i)] for i in at), genes, as_treated)
        store: Any = InMemory.of(treated, control, samples, gene_names=gene_names)
        found += check_shift(
            store, sampled, [names[i] for i in rows], places=store.places, name=model, file_genes=gene_names
        )
    return found


def check_gene_order(values: Float32, treated: Float32, model: str) -> list[Finding]:
    """An error if the means of genes do not follow those of the genes whose names they were given by position.

    Parameters
    ----------
    values, treated : (n, n_genes), treated scale; genes with NaN are left out.
    model : for the message.
    """
    if not len(values):
        return []
    p, y = values.mean(axis=0, dtype=np.float64), treated.mean(axis=0, dtype=np.float64)
    p, y = p[np.isfinite(p)], y[np.isfinite(p)]  # genes that are not predicted are NaN
    if p.size < 2 or p.std() <= 0 or y.std() <= 0:
        return []
    r = float(np.corrcoef(p, y)[0, 1])
    if r >= SAME_GENES:
        return []
    text = (
        f"{model}: its columns have no names, and taken by position their means do not follow the "
        f"measured ones (correlation over genes {r:.2f}; above 0.9 is usual). They are in another order, or the list "
        f"of genes is. Name the columns where they were made, or give their order with --genes FILE."
    )
    return [Finding("error", "gene_order", text, where=model, numbers={"r": r})]


def check_gene_names(values: Float32, treated: Float32, model: str) -> list[Finding]:
    """A warning if the means of genes are those measured, under the names of other genes.

    No error: a model that knows no levels of genes, and draws them as they are distributed, looks the same.

    Parameters
    ----------
    values, treated : (n, n_genes), treated scale; genes with NaN are left out.
    model : for the message.
    """
    p, y = values.mean(axis=0, dtype=np.float64), treated.mean(axis=0, dtype=np.float64)
    there = np.isfinite(p)
    p, y = p[there], y[there]
    if p.size < FEWEST_GENES or not 0.8 < p.std() / max(y.std(), 1e-12) < 1.25:
        return []
    r, matched = float(np.corrcoef(p, y)[0, 1]), float(np.corrcoef(np.sort(p), np.sort(y))[0, 1])
    if r >= SAME_GENES or matched < 0.95 or abs(p.mean() - y.mean()) > 0.5 * y.std():
        return []
    text = (
        f"{model}: means of genes do not follow the measured ones (correlation over genes {r:.2f}; above 0.9 is "
        f"usual), and do once both are sorted ({matched:.2f}): genes may be under the names of others. Compare the "
        f"names of the columns with the order in which the model wrote them."
    )
    return [Finding("warning", "gene_names", text, where=model, numbers={"r": r, "sorted_r": matched})]
