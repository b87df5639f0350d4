"""AnnData files (.h5ad, .zarr): metadata read at once, matrices row by row.

Treated profiles are in X (or a named layer), the control of each sample in a layer of the same shape, or controls are
rows among the samples (``data/readers/control_rows.py``). Reading never loads a matrix whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.entry import CellLook, look_at_cells, made_of_cells
from pertstack.data.cells.groups import Mask
from pertstack.data.choices import ControlChoice
from pertstack.data.file import DataFile
from pertstack.data.readers.anndata.layers import CONTROL, RAW_KEY, Layers, by_columns, control_of, no_control
from pertstack.data.readers.anndata.refused import (
    perturbations_of,
    refuse_controls_twice,
    refuse_other_shape,
    refuse_predicted,
    refuse_scaled,
)
from pertstack.data.readers.anndata.tables import UnsReader, read_frame
from pertstack.data.readers.columns.beside import said_beside
from pertstack.data.readers.columns.columns import canonical_obs, source_column, with_named_index
from pertstack.data.readers.columns.genes import named_genes
from pertstack.data.readers.columns.tuple_labels import part_labels, says_dose
from pertstack.data.readers.control_rows import Labels, control_names, control_rows
from pertstack.data.readers.handed_out import hand_out
from pertstack.data.readers.matrices import RepeatedRow, RowSource, StoredRows, SubsetRows
from pertstack.data.readers.refused import no_control_rows, refuse_turned


def open_anndata(
    path: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    control_layer: str = "control",
    treated_layer: str | None = None,
    delta: bool = False,
    treated_optional: bool = False,
    control_label: Labels = None,
    controls: ControlChoice = "plate_mean",
    seed: int = 0,
    cells: CellChoice | None = None,
    metadata: Path | None = None,
) -> DataFile:
    """Open an .h5ad file or .zarr folder.

    Parameters
    ----------
    path : the file or folder.
    mapping, control_layer, treated_layer, delta, treated_optional, control_label : as in ``open_data``.
    controls, seed, cells, metadata : as in ``open_data``.

    Raises
    ------
    InputError
        A table or layer is missing or damaged, or controls are named twice.
    """
    asked = _Asked(
        mapping,
        control_layer,
        treated_layer,
        delta=delta,
        treated_optional=treated_optional,
        control_label=control_label,
        controls=controls,
        seed=seed,
        cells=cells or CellChoice(),
        metadata=metadata,
    )
    rows = _rows(Layers.open(path), asked)
    look = _look(rows, asked)
    if look is not None and look.summed and control_layer not in rows.file.layers:
        return _made_of_cells(rows, look, asked)
    notes = [*rows.named, *by_columns(rows.file), *([] if look is None else look.notes(path.name, asked.cells))]
    if rows.controls is not None:
        return _handed_out(rows, rows.controls, asked, notes)
    return _differences(rows, asked, notes) if delta else _beside_controls(rows, asked, notes)


@dataclass(frozen=True)
class _Asked:
    """What the user said of the file, as ``open_data`` explains it."""

    mapping: Mapping[str, str] | None
    control_layer: str
    treated_layer: str | None
    delta: bool
    treated_optional: bool
    control_label: Labels
    controls: ControlChoice
    seed: int
    cells: CellChoice
    metadata: Path | None


@dataclass
class _Rows:
    """The rows of a file, before it is told how they become samples."""

    file: Layers
    obs: pd.DataFrame
    genes: pd.DataFrame
    treated: RowSource
    controls: Mask | None = None  # (n,) which of them are controls; None if no row is known as one
    doses: tuple[str, ...] = ()  # columns of doses taken out of the labels
    told: list[Finding] = field(default_factory=list)  # of the controls
    named: list[Finding] = field(default_factory=list)  # of names

    @property
    def where(self) -> str:
        """The file, for messages."""
        return self.file.path.name

    def data(self, **facts: Any) -> DataFile:
        """The data file that these rows make."""
        path, stored = self.file.path, self.treated
        while isinstance(stored, SubsetRows):
            stored = stored.source
        dtype = str(stored.dtype) if isinstance(stored, StoredRows) else "float32"
        uns = UnsReader(path, self.file.kind)
        return DataFile(path=str(path), var=self.genes, source_dtype=dtype, uns_reader=uns, **facts)


def _rows(file: Layers, asked: _Asked) -> _Rows:
    """Tables, treated values and control rows."""
    path, mapping = file.path, asked.mapping
    obs, var, said = _tables(file, asked)
    obs, parted = part_labels(obs, source_column(obs, mapping, "perturbation"), path.name)
    doses = ("dose",) if says_dose(parted) and "dose" in obs else ()
    if asked.treated_optional and ("X" not in file.root or asked.control_layer == "X"):
        treated: RowSource = RepeatedRow(np.full(len(var), np.nan, dtype=np.float32), len(obs))
    else:
        treated = file.matrix(asked.treated_layer, option="--treated-layer")
        if treated.key == RAW_KEY:
            var = read_frame(file.root["raw"], "var", path)
    refuse_other_shape(path, treated, obs=obs, var=var)
    refuse_controls_twice(file, asked.control_label, control_layer=asked.control_layer, delta=asked.delta)
    refuse_predicted(obs, mapping, path)
    rows = _Rows(file, obs, var, treated, doses=doses, named=[*said, *parted])
    layered = CONTROL in file.layers or asked.control_layer != CONTROL
    if not (asked.delta or layered) and ("X" in file.root or asked.treated_layer):
        _find_controls(rows, asked)
    rows.genes, named = named_genes(var, perturbations_of(rows.obs, mapping), mapping, where=path.name)
    rows.named += named
    return rows


def _find_controls(rows: _Rows, asked: _Asked) -> None:
    """Mark the rows that are controls; those of another kind are left out."""
    found = control_rows(rows.obs, asked.mapping, asked.control_label, where=rows.where)
    if found is None:
        return
    keep = ~found.aside
    rows.told, rows.obs, rows.controls = found.notes, rows.obs[keep], found.rows[keep]
    if found.aside.any():
        rows.treated = SubsetRows(rows.treated, np.flatnonzero(keep))
    rows.named.append(control_names(rows.obs, asked.mapping, rows.controls, where=rows.where))


def _look(rows: _Rows, asked: _Asked) -> CellLook | None:
    """What the rows look like; cells that cannot be summed are refused."""
    if asked.delta or isinstance(rows.treated, RepeatedRow):
        return None
    look = look_at_cells(
        rows.treated, rows.obs, rows.controls, mapping=asked.mapping, choice=asked.cells, more=rows.doses
    )
    if look is not None and rows.controls is not None and look.of_no_use(asked.cells):
        refuse_scaled(rows.file, look)
    return look


def _made_of_cells(rows: _Rows, look: CellLook, asked: _Asked) -> DataFile:
    """Rows are cells, and samples are made of them."""
    summed = made_of_cells(
        rows.treated,
        rows.obs,
        rows.controls,
        mapping=asked.mapping,
        found=look,
        choice=asked.cells,
        controls=asked.controls,
        where=rows.where,
    )
    return rows.data(
        obs=summed.obs,
        treated=summed.treated,
        control=summed.control,
        control_reference=summed.reference,
        notes=[*rows.told, *summed.notes, *rows.named],
        made=summed.made,
        counts_meant=summed.counts,
        cells=summed.cells,
        halves=summed.treated.halves,
    )


def _handed_out(rows: _Rows, controls: Mask, asked: _Asked, notes: list[Finding]) -> DataFile:
    """Rows are samples and controls, of which each sample is given one."""
    handed = hand_out(
        rows.treated,
        rows.obs,
        ~controls,
        controls=controls,
        mapping=asked.mapping,
        choice=asked.controls,
        seed=asked.seed,
        where=rows.where,
    )
    return rows.data(
        obs=handed.obs,
        treated=SubsetRows(rows.treated, handed.at),
        control=handed.control,
        control_reference=handed.reference,
        notes=[*rows.told, *handed.notes, *notes],
    )


def _differences(rows: _Rows, asked: _Asked, notes: list[Finding]) -> DataFile:
    """Values are differences: the control is zero."""
    table, names_taken = canonical_obs(rows.obs, asked.mapping, where=rows.where)
    return rows.data(
        obs=table,
        treated=rows.treated,
        control=no_control(rows.file, rows.treated, asked.control_layer),
        effect=rows.file.layer("effect"),
        delta=True,
        control_reference="zero (differential values)",
        notes=[*names_taken, *notes],
    )


def _beside_controls(rows: _Rows, asked: _Asked, notes: list[Finding]) -> DataFile:
    """A layer holds the control of every sample."""
    file, layer, mapping = rows.file, asked.control_layer, asked.mapping
    control = control_of(file, layer, rows=no_control_rows(rows.obs, mapping, where=rows.where))
    half_a, half_b = file.layer("half_a"), file.layer("half_b")
    if layer in rows.obs.columns and "control_id" not in rows.obs.columns:  # named like the layer, it says who it is
        mapping = {"control_id": layer} | dict(mapping or {})
    table, names_taken = canonical_obs(rows.obs, mapping, where=rows.where)
    return rows.data(
        obs=table,
        treated=rows.treated,
        control=control,
        effect=file.layer("effect"),
        halves=None if half_a is None or half_b is None else (half_a, half_b),
        control_reference=f"layer {layer!r}",
        notes=[*names_taken, *notes],
    )


def _tables(file: Layers, asked: _Asked) -> tuple[pd.DataFrame, pd.DataFrame, list[Finding]]:
    """``obs`` with its named index and what a table beside it says, ``var``, and findings."""
    obs, var = read_frame(file.root, "obs", file.path), read_frame(file.root, "var", file.path)
    if not len(obs):
        raise InputError(
            f"{file.path} has no rows: there is nothing to learn from. Was it written before it was filled?"
        )
    said: list[Finding] = []
    if asked.metadata is not None:
        numbered = list(obs.index) == [str(i) for i in range(len(obs))]
        obs, said = said_beside(asked.metadata, obs, file.path, mapping=asked.mapping, numbered=numbered)
    obs = with_named_index(obs)
    refuse_turned(obs, var, file.path)
    return obs, var, said
