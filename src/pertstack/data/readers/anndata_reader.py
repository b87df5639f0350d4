"""AnnData files (.h5ad, .zarr): metadata read at once, matrices row by row.

Treated profiles are in X (or a named layer), the control of each sample in a layer of the same shape, or controls are
rows among the samples (``data/readers/control_rows.py``). Reading never loads a matrix whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.entry import CellLook, look_at_cells, made_of_cells
from pertstack.data.cells.recognise import look_at
from pertstack.data.choices import ControlChoice
from pertstack.data.file import DataFile
from pertstack.data.readers.anndata_tables import Kind, UnsReader, open_anndata_file, read_frame
from pertstack.data.readers.columns.columns import canonical_obs, source_column, with_named_index
from pertstack.data.readers.columns.genes import named_genes
from pertstack.data.readers.columns.tuple_labels import part_labels, says_dose
from pertstack.data.readers.control_rows import Labels, control_names, control_rows
from pertstack.data.readers.handed_out import hand_out
from pertstack.data.readers.matrices import RepeatedRow, RowSource, StoredRows, SubsetRows
from pertstack.data.readers.refused import no_control_rows, refuse_turned

CONTROL = "control"
"""The layer of controls where the user names none."""
RAW = "raw"
"""The layer by which ``--treated-layer`` means ``data.raw``, unless a layer has that name."""
_RAW_KEY = "raw/X"


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
) -> DataFile:
    """Open an .h5ad file or .zarr folder.

    Parameters
    ----------
    path : the file or folder.
    mapping, control_layer, treated_layer, delta, treated_optional, control_label, controls, seed, cells : as in
        ``open_data``.

    Raises
    ------
    InputError
        A table or layer is missing or damaged, or controls are named twice.
    """
    file = _File.open(path)
    obs, var = _tables(file)
    obs, parted = part_labels(obs, source_column(obs, mapping, "perturbation"), path.name)
    doses = ("dose",) if says_dose(parted) and "dose" in obs else ()
    if treated_optional and ("X" not in file.root or control_layer == "X"):
        treated: RowSource = RepeatedRow(np.full(len(var), np.nan, dtype=np.float32), len(obs))
    else:
        treated = file.matrix(treated_layer, option="--treated-layer")
        if treated.key == _RAW_KEY:
            var = read_frame(file.root["raw"], "var", path)
    _refuse_other_shape(path, treated, obs=obs, var=var)
    _refuse_controls_twice(file, control_label, control_layer=control_layer, delta=delta)
    _refuse_predicted(obs, mapping, path)
    source_dtype = str(treated.dtype) if isinstance(treated, StoredRows) else "float32"
    rows, told = None, list[Finding]()
    if not delta and ("X" in file.root or treated_layer) and CONTROL not in file.layers and control_layer == CONTROL:
        found = control_rows(obs, mapping, control_label, where=path.name)
        if found is not None:
            told, keep = found.notes, ~found.aside
            obs, rows = obs[keep], found.rows[keep]
            treated = SubsetRows(treated, np.flatnonzero(keep)) if found.aside.any() else treated
            parted.append(control_names(obs, mapping, rows, where=path.name))
    genes, named = named_genes(var, _perturbations(obs, mapping), mapping, where=path.name)
    made = partial(
        DataFile, path=str(path), var=genes, source_dtype=source_dtype, uns_reader=UnsReader(path, file.kind)
    )
    cells = cells or CellChoice()
    look = None
    if not delta and not isinstance(treated, RepeatedRow):
        look = look_at_cells(treated, obs, rows, mapping=mapping, choice=cells, more=doses)
    if look is not None and rows is not None and look.of_no_use(cells):
        _refuse_scaled(file, look)
    if look is not None and look.summed and control_layer not in file.layers:
        summed = made_of_cells(
            treated, obs, rows, mapping=mapping, found=look, choice=cells, controls=controls, where=path.name
        )
        return made(
            obs=summed.obs,
            treated=summed.treated,
            control=summed.control,
            control_reference=summed.reference,
            notes=[*told, *summed.notes, *parted, *named],
            made=summed.made,
            counts_meant=summed.counts,
            cells=summed.cells,
            halves=summed.treated.halves,
        )
    notes = [*parted, *named, *_by_columns(file), *([] if look is None else look.notes(path.name, cells))]
    if rows is not None:
        handed = hand_out(
            treated, obs, ~rows, controls=rows, mapping=mapping, choice=controls, seed=seed, where=path.name
        )
        return made(
            obs=handed.obs,
            treated=SubsetRows(treated, handed.at),
            control=handed.control,
            control_reference=handed.reference,
            notes=[*told, *handed.notes, *notes],
        )
    if delta:
        table, names_taken = canonical_obs(obs, mapping, where=path.name)
        return made(
            obs=table,
            treated=treated,
            control=_no_control(file, treated, control_layer),
            effect=file.layer("effect"),
            delta=True,
            control_reference="zero (differential values)",
            notes=[*names_taken, *notes],
        )
    control = _control(file, control_layer, rows=no_control_rows(obs, mapping, where=path.name))
    half_a, half_b = file.layer("half_a"), file.layer("half_b")
    if control_layer in obs.columns and "control_id" not in obs.columns:  # a column named like the layer says who it is
        mapping = {"control_id": control_layer} | dict(mapping or {})
    table, names_taken = canonical_obs(obs, mapping, where=path.name)
    return made(
        obs=table,
        treated=treated,
        control=control,
        effect=file.layer("effect"),
        halves=None if half_a is None or half_b is None else (half_a, half_b),
        control_reference=f"layer {control_layer!r}",
        notes=[*names_taken, *notes],
    )


@dataclass(frozen=True)
class _File:
    """An open file: where it lies, how it is stored, and the layers it has."""

    path: Path
    kind: Kind
    root: Any
    layers: list[str]

    @classmethod
    def open(cls, path: Path) -> _File:
        kind, root = open_anndata_file(path)
        return cls(path, kind, root, sorted(root["layers"].keys()) if "layers" in root else [])

    def layer(self, name: str) -> StoredRows | None:
        """The layer of this name, if there is one."""
        return StoredRows(self.path, self.kind, f"layers/{name}") if name in self.layers else None

    def matrix(self, layer: str | None, *, option: str) -> StoredRows:
        """X, or the layer that a user named by ``option``; ``raw`` is a layer's name unless a layer has it."""
        if layer is None:
            if "X" not in self.root:
                raise InputError(
                    f"{self.path} has no X. Treated profiles are in X, or in a layer named with {option} "
                    f"(layers here: {first_few(self.layers) if self.layers else 'none'})."
                )
            return StoredRows(self.path, self.kind, "X")
        if layer == RAW and RAW not in self.layers and _RAW_KEY in self.root:
            return StoredRows(self.path, self.kind, _RAW_KEY)
        found = self.layer(layer)
        if found is None:
            raise self.no_layer(layer, [*self.layers, *([RAW] if _RAW_KEY in self.root else [])])
        return found

    def no_layer(self, name: str, layers: list[str]) -> InputError:
        """The error for a layer that is not here."""
        said = f"Unknown layer {name!r}: there are no layers at all."
        return InputError(f"{self.path}: {unknown_name('layer', name, layers) if layers else said}")


def _tables(file: _File) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``obs`` with its named index, and ``var``."""
    obs, var = read_frame(file.root, "obs", file.path), read_frame(file.root, "var", file.path)
    if not len(obs):
        raise InputError(
            f"{file.path} has no rows: there is nothing to learn from. Was it written before it was filled?"
        )
    obs = with_named_index(obs)
    refuse_turned(obs, var, file.path)
    return obs, var


def _refuse_other_shape(path: Path, values: RowSource, *, obs: pd.DataFrame, var: pd.DataFrame) -> None:
    if (len(obs), len(var)) != values.shape:
        raise InputError(
            f"{path}: the values have shape {values.shape}, but obs describes {len(obs):,} samples and var "
            f"{len(var):,} genes. The file is damaged or was cut; write it again with anndata."
        )


def _refuse_controls_twice(file: _File, label: Labels, *, control_layer: str, delta: bool) -> None:
    if label and (delta or control_layer in file.layers):
        given = first_few([label] if isinstance(label, str) else label)
        what = "--delta says there is no control" if delta else f"there is a layer {control_layer!r} with every control"
        raise InputError(f"{file.path}: --control-label {given} names control rows, but {what}. Give one of the two.")


def _refuse_scaled(file: _File, look: CellLook) -> None:
    """Cells whose values cannot be summed: which are meant, if the file has others that can, or that every row is a
    sample, has to be said."""
    slots = {name: f"layers/{name}" for name in file.layers} | ({RAW: _RAW_KEY} if _RAW_KEY in file.root else {})
    found = {name: look_at(StoredRows(file.path, file.kind, key)).kind for name, key in slots.items()}
    usable = [n for n, k in found.items() if k in ("counts", "log1p_counts", "log")]
    usable.sort(key=lambda n: found[n] == "log")
    mend = "Make the file again with the counts or logarithms of before, or name the layer that has them"
    mend += " (--treated-layer LAYER)."
    if usable:
        kind = "logarithms" if found[usable[0]] == "log" else "counts"
        mend = f"{usable[0]!r} of the file has {kind}: --treated-layer {usable[0]} sums it to samples."
    raise InputError(
        f"{file.path}: {look.rows:,.0f} rows say the same perturbation, cell line and batch (in the median), so they "
        f"are cells, and their values are neither counts nor logarithms (scaled?). {mend} If every row is a sample, "
        f"say --cells-as-samples."
    )


_PREDICTED = {"predicted", "prediction", "predictions", "pred", "generated", "imputed"}


def _refuse_predicted(obs: pd.DataFrame, mapping: Mapping[str, str] | None, path: Path) -> None:
    """Some benchmarks keep control, measured and predicted cells in one file: the last are no measurement."""
    names = {str(v) for v in _perturbations(obs, mapping) if str(v).strip().casefold() in _PREDICTED}
    if names:
        column = source_column(obs, mapping, "perturbation")
        n = int(obs[column].astype(str).isin(names).sum())
        raise InputError(
            f"{path}: {n:,} rows are predictions by their name ({first_few(sorted(names))} in {column!r}), and data "
            f"are measured. Leave them out here; `pertstack add` takes predictions. If it is the name of a "
            f"perturbation, rename it."
        )


def _perturbations(obs: pd.DataFrame, mapping: Mapping[str, str] | None) -> list[object]:
    """The names of perturbations in a table, as they are there."""
    column = source_column(obs, mapping, "perturbation")
    return [] if column is None else list(obs[column].unique())


def _by_columns(file: _File) -> list[Finding]:
    """A warning for matrices stored by columns (CSC): every chunk of rows then costs a pass over the whole matrix."""
    keys = [k for k in ("X", *(f"layers/{name}" for name in file.layers)) if k in file.root]
    slow = [k for k in keys if file.root[k].attrs.get("encoding-type") == "csc_matrix"]
    if not slow:
        return []
    message = (
        f"{first_few(slow)} of {file.path.name} are stored by columns (CSC), so reading rows is slow and needs much "
        f"memory. Convert them once: data.X = data.X.tocsr()."
    )
    return [
        Finding("warning", "stored_by_columns", message, count=len(slow), examples=tuple(slow), where=str(file.path))
    ]


def _control(file: _File, layer: str, *, rows: str) -> RowSource:
    if layer == "X":
        return file.matrix(None, option="--control-layer")
    found = file.layer(layer)
    if found is not None:
        return found
    if layer != CONTROL:
        raise file.no_layer(layer, file.layers)
    named = f" (the layers are {first_few(file.layers)})" if file.layers else ""
    raise InputError(
        f"{file.path} says no control, and every treated sample needs one, because models start from it and scores "
        f"compare with it. {rows} Or name the layer that holds the control of every sample with "
        f"--control-layer{named}; or, when values already are differences (z-scores, log fold changes), say --delta."
    )


def _no_control(file: _File, treated: RowSource, control_layer: str) -> RowSource:
    """The control of values that are differences: zero."""
    if control_layer in file.layers:
        raise InputError(
            f"{file.path} was opened with --delta (values are differences), but it has a layer {control_layer!r}. Drop "
            f"--delta to use the control, or give --control-layer '' when X really holds differences."
        )
    samples, genes = treated.shape
    return RepeatedRow(np.zeros(genes, dtype=np.float32), samples)
