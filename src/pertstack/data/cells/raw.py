"""The cells behind some samples of a study, read again from the file it was made of, for models that learn from cells.

Only the cells of the samples asked for are taken, and the control cells of their cell lines. They are summed on the way
and held against the samples, so cells of another file, or read in another way, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, IntegrityError, first_few
from pertstack._base.reading.tables import as_texts
from pertstack.data.cells.entries import Int64, Rows
from pertstack.data.cells.groups import Groups, Mask
from pertstack.data.cells.profiles import Profiles, profile
from pertstack.data.cells.pseudobulk import CellSums, Served
from pertstack.data.cells.reading import blocks, sparse_of
from pertstack.data.cells.summing import counted
from pertstack.data.cells.sums import SUM, GroupSums
from pertstack.data.file import DataFile
from pertstack.data.rows import FitRows

CONTROL = "control"
"""The perturbation of control cells."""
CLOSE = 1e-4
"""By how much a profile of the cells may differ from the sample that was made of them."""


@dataclass(frozen=True)
class RawCells:
    """How the file of cells of a study is opened: ``open_data(path, **options)``."""

    path: str
    options: Mapping[str, Any]

    def of(self, rows: FitRows) -> Any:
        """Cells of the fit rows and the control cells of their lines, as AnnData.

        X has the values of the file (counts or logarithms, sparse); obs ``sample_id`` (empty for controls),
        ``perturbation`` (``control`` for controls), ``cell_line``, ``plate`` where known, ``is_control``; uns
        ``values`` says what the values are, ``normalise`` how samples were made of them.

        Raises
        ------
        InputError
            The file is not there, holds no cells, or is stored by columns.
        IntegrityError
            Its cells are not those the samples were made of.
        """
        from pertstack.data.readers.open import open_data

        if not Path(self.path).exists():
            raise InputError(
                f"The study was made of {self.path}, and a model that learns from cells reads them there; it is gone. "
                f"Put the file back (a relative path starts where the command is run)."
            )
        file = open_data(self.path, **self.options)
        if not isinstance(file.treated, Profiles) or not isinstance(file.treated.source, CellSums):
            raise InputError(f"{self.path} holds profiles, no cells, so a model that learns from cells cannot use it.")
        return _taken(file, file.treated.source, rows)


def _taken(file: DataFile, source: CellSums, rows: FitRows) -> Any:
    import anndata

    assert file.cells is not None
    groups = source.groups
    number = pd.Series(np.arange(rows.n_samples), index=rows.obs.index)
    sample = number.reindex(file.cells.to_numpy(dtype=object)).fillna(-1).to_numpy().astype(np.int64)
    lines = _lines_of_controls(file, groups)
    wanted = set(map(str, rows.cell_line))
    line = np.array([lines.get(int(g), "") for g in range(groups.n_groups)], dtype=object)[groups.of_cell]
    control = (sample < 0) & np.isin(line.astype(str), sorted(wanted)) & (groups.of_cell >= groups.n_samples)
    x = _values(source, (sample >= 0) | control)
    used = np.flatnonzero((sample >= 0) | control)
    _refuse_other_cells(file, source, x, at=sample[used], half=groups.half[used], rows=rows)
    table = _table(rows, sample[used], line[used], control[used])
    table.index = pd.Index([f"c{i}" for i in range(len(table))], dtype=object)
    var = pd.DataFrame(index=pd.Index([str(g) for g in file.gene_names], dtype=object))
    found = anndata.AnnData(x, obs=table, var=var, uns={"values": source.kind, "normalise": source.normalise})
    return found[:, [str(g) for g in rows.gene_names]].copy()


def _lines_of_controls(file: DataFile, groups: Groups) -> dict[int, str]:
    """Cell line by group of control cells, from the samples that they serve."""
    assert isinstance(file.control, Served)
    found: dict[int, str] = {}
    for pool, name in zip(file.control.of_sample, file.obs["cell_line"].astype(str), strict=True):
        found |= {int(g): name for g in file.control.pools[pool]}
    return found


def _table(rows: FitRows, sample: Int64, line: np.ndarray[Any, Any], control: Mask) -> pd.DataFrame:
    of = np.where(control, 0, sample)
    out = pd.DataFrame({"sample_id": np.where(control, "", rows.sample_ids[of].astype(str)).astype(object)})
    out["perturbation"] = np.where(control, CONTROL, rows.perturbation[of].astype(str)).astype(object)
    out["cell_line"] = np.where(control, line.astype(str), rows.cell_line[of].astype(str)).astype(object)
    if "plate" in rows.obs:
        out["plate"] = np.where(control, "", as_texts(rows.obs["plate"]).to_numpy(dtype=object)[of]).astype(object)
    out["is_control"] = control
    return out


def _values(source: CellSums, keep: Mask) -> Any:
    """The values of some cells, sparse by rows, as the file has them."""
    from scipy.sparse import csr_matrix, vstack

    stored = sparse_of(source.matrix)
    if stored is not None and stored.format == "csc":
        raise InputError(
            f"{source.where}: cells are stored by columns, and single cells are wanted. Convert the file once: "
            f"data.X = data.X.tocsr(); data.write_h5ad(NEW)."
        )
    parts: list[Any] = []
    for block in blocks(source.matrix):
        rows = block.rows
        shape = (block.stop - block.start, source.n_genes)
        part = csr_matrix((rows.data, rows.indices, rows.indptr), shape=shape)
        parts.append(part[keep[block.start : block.stop]])
    return vstack(parts, format="csr", dtype=np.float32)


def _refuse_other_cells(file: DataFile, source: CellSums, x: Any, *, at: Int64, half: Mask, rows: FitRows) -> None:
    """That the cells of the fit rows sum to the fit rows."""
    space = "log1p" if source.normalise == "mean_log1p" else "counts"
    sums = GroupSums.empty(rows.n_samples, source.n_genes, space)  # type: ignore[arg-type]
    cells = Rows(x.indptr.astype(np.int64), x.indices, x.data)
    sums.add(counted(cells, source.kind), at, half, log=source.kind in ("counts", "log1p_counts"))
    column = {str(g): i for i, g in enumerate(file.gene_names)}
    order = np.array([column.get(str(g), -1) for g in rows.gene_names])
    lacking = [str(g) for g in rows.gene_names[order < 0]]
    empty = rows.sample_ids[sums.n_cells == 0].tolist()
    if lacking or empty:
        what = f"genes {first_few(lacking)}" if lacking else f"cells of {len(empty):,} samples ({first_few(empty)})"
        raise IntegrityError(f"{file.path} lacks {what}: it is not the file that the study was made of.")
    made = profile(sums.values[..., SUM], sums.n_cells, sums.depth[:, 0], normalise=source.normalise)[:, order]
    away = np.abs(made - rows.treated).max(axis=1)
    if (away > CLOSE * np.maximum(1.0, np.abs(rows.treated).max())).any():
        odd = rows.sample_ids[away > CLOSE].tolist()
        raise IntegrityError(
            f"The cells of {file.path} do not sum to {len(odd):,} samples of the study ({first_few(odd)}): the file "
            f"was changed after the study was made. Use the file it was made of, or make the study again."
        )
