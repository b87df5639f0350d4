"""Are the rows of a file cells, and what are their values? A few hundred rows and the metadata tell.

Cells are many rows of one perturbation in one cell line and batch, most of them with genes at zero. Replicate wells are
few, and have none. What becomes of cells is said by ``pseudobulk.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack.data.cells.choice import Kind
from pertstack.data.readers.matrices import RowSource, StoredRows, SubsetRows

LOOKED_AT, RUNS = 512, 16
"""Rows looked at, in this many runs spread over the file."""
VALUES = 4 * 10**7
"""Values looked at, at most, if rows are long."""
COLUMNS = 64
"""Columns looked at if a file is stored by columns."""
MANY = 10
"""Rows of one condition that replicate wells do not reach."""
SOME = 3
"""Rows of one condition that are cells when their values are those of cells."""
HIGHEST_LOG = 30.0
FEW = 0.01
"""Share of whole numbers below zero up to which the others are counts that some are wrong among."""
SAME_TOTAL = 1e-3
"""Share by which totals of cells differ at most, if each was divided by its own."""
STEEP = np.log(4.0)
ALREADY = ("n_cells", "psbulk_n_cells", "psbulk_cells", "pseudobulk_n_cells", "n_obs_aggregated")
"""Columns by which a file says that its rows are sums or means over cells."""


@dataclass(frozen=True)
class Look:
    """What some rows of a file show."""

    kind: Kind
    zeros: float  # share of values that are zero
    n_rows: int

    def are_cells(self, rows_per_condition: float) -> bool:
        """Whether rows of which so many belong to one condition are cells."""
        if self.kind == "other":
            return False
        if self.kind in ("counts", "log1p_counts", "log2_counts", "mixed"):
            return rows_per_condition >= SOME
        if self.kind == "fractions":  # or logarithms of few genes that differ between cell lines; those are never zero
            return rows_per_condition >= SOME and self.zeros >= 0.01
        if rows_per_condition >= MANY:
            return self.zeros >= 0.01
        return rows_per_condition >= SOME and self.zeros >= 0.5


def look_at(matrix: RowSource) -> Look:
    """Kind of values and share of zeros, from runs of rows spread over the file."""
    values = _by_columns(matrix)
    if values is not None:
        return Look(kind_of(values), float(np.mean(values == 0)) if values.size else 0.0, len(values))
    n = matrix.shape[0]
    run = max(1, min(LOOKED_AT, VALUES // max(1, matrix.shape[1])) // RUNS)
    starts = np.unique(np.linspace(0, max(0, n - run), min(RUNS, -(-n // run))).astype(np.int64))
    parts = [matrix.rows(int(s), min(n, int(s) + run)) for s in starts]
    values = np.concatenate(parts) if parts else np.empty((0, matrix.shape[1]), dtype=np.float32)
    return Look(kind_of(values), float(np.mean(values == 0)) if values.size else 0.0, len(values))


def _by_columns(matrix: RowSource) -> np.ndarray[Any, Any] | None:
    """Some values of cells that are stored by columns: a row of such a file cannot be read without all of it."""
    base = matrix.source if isinstance(matrix, SubsetRows) else matrix
    stored = base.sparse() if isinstance(base, StoredRows) else None
    if stored is None or stored.format != "csc":
        return None
    n, n_genes = base.shape
    parts, wanted = [], max(1, min(COLUMNS, VALUES // max(1, n)))
    rows = np.unique(np.linspace(0, max(0, n - 1), COLUMNS * LOOKED_AT // 16).astype(np.int64))
    for gene in np.unique(np.linspace(0, max(0, n_genes - 1), wanted).astype(np.int64)):
        parts.append(stored[:, int(gene) : int(gene) + 1].toarray()[rows])
    return np.concatenate(parts, axis=1) if parts else None


def kind_of(values: np.ndarray[Any, Any]) -> Kind:
    """What the values of some cells are."""
    good = values[np.isfinite(values)].astype(np.float64)
    whole = (np.rint(values) == values).all(axis=1)
    if not good.size or good.max() <= 0:
        return "other"
    if below := np.count_nonzero(good < 0):
        return "counts" if whole.all() and below <= FEW * np.count_nonzero(good) else "other"
    counting = whole & (values.max(axis=1) > 0)
    some = (values > 0).any(axis=1)
    if counting[some].all():
        return "counts"
    totals = good.reshape(values.shape)[some].sum(axis=1) if good.size == values.size else np.empty(0)
    logs = good.max() <= HIGHEST_LOG
    steep = not logs or _too_steep(values[some])
    if len(totals) > 2 and np.ptp(totals) <= SAME_TOTAL * totals.mean() and steep:
        return "linear"
    if logs and _logs_of_whole(good * np.log(2)):
        return "log2_counts"
    if counting.any() and (values[counting].max() > 2 or counting[some].mean() > 0.2):
        return "mixed"
    if logs and _logs_of_whole(good):
        return "log1p_counts"
    return "fractions" if steep else "log"


def _too_steep(values: np.ndarray[Any, Any]) -> bool:
    """Whether powers of two differ between cells far more than the values do, as no expression does: no logarithms."""
    of_values = _spread(values.sum(axis=1, dtype=np.float64))
    return bool(_spread((np.exp2(values.astype(np.float64)) - 1).sum(axis=1)) > 3 * of_values + STEEP)


def _spread(totals: np.ndarray[Any, Any]) -> float:
    """Logarithm of how many times a large total is a small one."""
    low, high = np.quantile(totals, [0.05, 0.95])
    return float(np.log(max(high, 1e-9) / max(low, 1e-9)))


def _logs_of_whole(values: np.ndarray[Any, Any]) -> bool:
    """Whether expm1 gives whole numbers, as exactly as float32 can."""
    counts = np.expm1(values)
    return bool((np.abs(counts - np.rint(counts)) <= 1e-3 + 2e-6 * counts).all())


MENDS: dict[Kind, tuple[str, str, str]] = {
    "linear": ("counts divided by the depth of the cell, without a logarithm", "take it", "numpy.log1p({x})"),
    "fractions": ("neither whole counts nor logarithms (ambient RNA taken away?)", "round them", "numpy.rint({x})"),
    "log2_counts": ("logarithms of counts to the base of two", "take natural ones", "{x} * numpy.log(2)"),
}
"""What values are, and what makes of them what can be summed."""


def how_to_mend(kind: Kind, matrix: RowSource) -> str:
    """What the values are, in words, and the command after which they can be summed."""
    base = matrix.source if isinstance(matrix, SubsetRows) else matrix
    path, key = Path(getattr(base, "path", "cells.h5ad")), getattr(base, "key", "X")
    slot = "a.X" if key == "X" else f"a.layers[{key.removeprefix('layers/')!r}]"
    what, word, code = MENDS[kind]
    form, out = "zarr" if path.suffix == ".zarr" else "h5ad", f"{path.stem}_mended{path.suffix}"
    return (
        f"the values of the cells are {what}. If the file has counts elsewhere, sum those (--treated-layer LAYER); "
        f'else {word}: python -c "import anndata, numpy; a = anndata.read_{form}({str(path)!r}); {slot} = '
        f'{code.format(x=slot)}; a.write_{form}({out!r})", then --data {out}.'
    )
