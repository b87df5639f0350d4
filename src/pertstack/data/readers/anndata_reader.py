"""AnnData files (.h5ad, .zarr): metadata read at once, matrices row by row.

Treated profiles are in X (or a named layer), the control of each sample in a layer of the same shape, or controls are
rows among the samples (``data/readers/control_rows.py``). Reading never loads a matrix whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack._base.reading.damage import damage_named
from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.entry import CellLook, look_at_cells, made_of_cells
from pertstack.data.cells.recognise import look_at
from pertstack.data.choices import ControlChoice
from pertstack.data.file import DataFile
from pertstack.data.readers.anndata_tables import Kind, open_anndata_file, read_frame, read_whole
from pertstack.data.readers.columns.columns import canonical_obs, source_column, with_named_index
from pertstack.data.readers.columns.genes import named_genes
from pertstack.data.readers.columns.tuple_labels import part_labels, says_dose
from pertstack.data.readers.control_rows import Labels, control_names, control_rows
from pertstack.data.readers.handed_out import hand_out
from pertstack.data.readers.matrices import RepeatedRow, RowSource, StoredRows, SubsetRows, open_root
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
    kind, root = open_anndata_file(path)
    obs, var = read_frame(root, "obs", path), read_frame(root, "var", path)
    if not len(obs):
        raise InputError(f"{path} has no rows: there is nothing to learn from. Was it written before it was filled?")
    obs = with_named_index(obs)
    refuse_turned(obs, var, path)
    obs, parted = part_labels(obs, source_column(obs, mapping, "perturbation"), path.name)
    doses = ("dose",) if says_dose(parted) and "dose" in obs else ()
    layers = sorted(root["layers"].keys()) if "layers" in root else []
    treated: RowSource
    if treated_optional and ("X" not in root or control_layer == "X"):
        treated = RepeatedRow(np.full(len(var), np.nan, dtype=np.float32), len(obs))
    else:
        treated = _matrix(path, kind, root, layer=treated_layer, layers=layers, option="--treated-layer")
        if isinstance(treated, StoredRows) and treated.key == _RAW_KEY:
            var = read_frame(root["raw"], "var", path)
    shape = treated.shape
    if (len(obs), len(var)) != shape:
        raise InputError(
            f"{path}: the values have shape {shape}, but obs describes {len(obs):,} samples and var {len(var):,} "
            f"genes. The file is damaged or was cut; write it again with anndata."
        )
    if control_label and (delta or control_layer in layers):
        given = first_few([control_label] if isinstance(control_label, str) else control_label)
        what = "--delta says there is no control" if delta else f"there is a layer {control_layer!r} with every control"
        raise InputError(f"{path}: --control-label {given} names control rows, but {what}. Give one of the two.")
    rows, cells, found_controls = None, cells or CellChoice(), None
    _refuse_predicted(obs, mapping, path)
    if not delta and ("X" in root or treated_layer) and CONTROL not in layers and control_layer == CONTROL:
        found_controls = control_rows(obs, mapping, control_label, where=path.name)
    source_dtype = str(treated.dtype) if isinstance(treated, StoredRows) else "float32"
    told: list[Finding] = []
    if found_controls is not None:
        rows, told = found_controls.rows, found_controls.notes
        if found_controls.aside.any():
            keep = np.flatnonzero(~found_controls.aside)
            obs, rows = obs.iloc[keep], rows[keep]
            treated = SubsetRows(treated, keep.astype(np.int64))
        parted.append(control_names(obs, mapping, rows, where=path.name))
    genes, named = named_genes(var, _perturbations(obs, mapping), mapping, where=path.name)
    look = (
        None
        if delta or isinstance(treated, RepeatedRow)
        else look_at_cells(treated, obs, rows, mapping=mapping, choice=cells, more=doses)
    )
    if look is not None and rows is not None and look.of_no_use(cells):
        _refuse_scaled(path, look, kind=kind, root=root, layers=layers)
    if look is not None and look.summed and control_layer not in layers:
        made = made_of_cells(
            treated, obs, rows, mapping=mapping, found=look, choice=cells, controls=controls, where=path.name
        )
        return DataFile(
            path=str(path),
            obs=made.obs,
            var=genes,
            treated=made.treated,
            control=made.control,
            control_reference=made.reference,
            source_dtype=source_dtype,
            uns_reader=_UnsReader(path, kind),
            notes=[*told, *made.notes, *parted, *named],
            made=made.made,
            counts_meant=made.counts,
            cells=made.cells,
            halves=made.treated.halves,
        )
    uns_reader = _UnsReader(path, kind)
    notes = [*parted, *named, *_by_columns(path, root, layers), *([] if look is None else look.notes(path.name, cells))]
    if rows is not None:
        handed = hand_out(
            treated, obs, ~rows, controls=rows, mapping=mapping, choice=controls, seed=seed, where=path.name
        )
        return DataFile(
            path=str(path),
            obs=handed.obs,
            var=genes,
            treated=SubsetRows(treated, handed.at),
            control=handed.control,
            control_reference=handed.reference,
            source_dtype=source_dtype,
            uns_reader=uns_reader,
            notes=[*told, *handed.notes, *notes],
        )
    control: RowSource
    if delta:
        control = RepeatedRow(np.zeros(shape[1], dtype=np.float32), shape[0])
        _refuse_delta_with_control(path, layers, control_layer)
    else:
        control = _control(
            path, kind, root, layer=control_layer, layers=layers, rows=no_control_rows(obs, mapping, where=path.name)
        )
    effect = StoredRows(path, kind, "layers/effect") if "effect" in layers else None
    halves = None
    if not delta and {"half_a", "half_b"} <= set(layers):
        halves = StoredRows(path, kind, "layers/half_a"), StoredRows(path, kind, "layers/half_b")
    if not delta and control_layer in obs.columns and "control_id" not in obs.columns:
        mapping = {"control_id": control_layer} | dict(
            mapping or {}
        )  # a column named like the layer says who the control is
    table, found = canonical_obs(obs, mapping, where=str(path.name))
    return DataFile(
        path=str(path),
        obs=table,
        var=genes,
        treated=treated,
        control=control,
        effect=effect,
        halves=halves,
        delta=delta,
        control_reference="zero (differential values)" if delta else f"layer {control_layer!r}",
        source_dtype=source_dtype,
        uns_reader=uns_reader,
        notes=[*found, *notes],
    )


def _refuse_scaled(path: Path, look: CellLook, *, kind: Kind, root: Any, layers: list[str]) -> None:
    """Cells whose values cannot be summed, in a file that has others that can: which are meant has to be said."""
    slots = {name: f"layers/{name}" for name in layers} | ({RAW: _RAW_KEY} if _RAW_KEY in root else {})
    found = {name: look_at(StoredRows(path, kind, key)).kind for name, key in slots.items()}
    usable = [n for n, k in found.items() if k in ("counts", "log1p_counts", "log")]
    usable.sort(key=lambda n: found[n] == "log")
    if usable:
        raise InputError(
            f"{path}: {look.rows:,.0f} rows say the same perturbation, cell line and batch (in the median), so they "
            f"are cells, and their values are neither counts nor logarithms (scaled?). {usable[0]!r} of the file has "
            f"{'logarithms' if found[usable[0]] == 'log' else 'counts'}: --treated-layer {usable[0]} sums it to "
            f"samples. If every row is a sample, say --cells-as-samples."
        )


USED_OF_UNS = ("targets", "graph")
"""What is read of ``uns``; whatever else lies there is never opened."""
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


def _by_columns(path: Path, root: Any, layers: list[str]) -> list[Finding]:
    """A warning for matrices stored by columns (CSC): every chunk of rows then costs a pass over the whole matrix."""
    keys = [k for k in ("X", *(f"layers/{name}" for name in layers)) if k in root]
    slow = [k for k in keys if root[k].attrs.get("encoding-type") == "csc_matrix"]
    if not slow:
        return []
    message = (
        f"{first_few(slow)} of {path.name} are stored by columns (CSC), so reading rows is slow and needs much "
        f"memory. Convert them once: "
        f"data.X = data.X.tocsr()."
    )
    return [Finding("warning", "stored_by_columns", message, count=len(slow), examples=tuple(slow), where=str(path))]


class _UnsReader:
    """Reads what is used of ``uns`` when asked; can be handed to another process."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind

    def __call__(self) -> dict[str, Any]:
        with damage_named(self.path):
            root = open_root(self.path, self.kind)
            uns = root.get("uns", {})
            return {key: read_whole(uns[key], self.path) for key in USED_OF_UNS if key in uns}


def _matrix(path: Path, kind: Kind, root: Any, layer: str | None, layers: list[str], option: str) -> StoredRows:
    if layer is None:
        if "X" not in root:
            raise InputError(
                f"{path} has no X. Treated profiles are in X, or in a layer named with {option} "
                f"(layers here: {first_few(layers) if layers else 'none'})."
            )
        return StoredRows(path, kind, "X")
    if layer == RAW and RAW not in layers and _RAW_KEY in root:
        return StoredRows(path, kind, _RAW_KEY)
    if layer not in layers:
        raise _no_layer(path, layer, [*layers, *([RAW] if _RAW_KEY in root else [])])
    return StoredRows(path, kind, f"layers/{layer}")


def _no_layer(path: Path, layer: str, layers: list[str]) -> InputError:
    said = (
        str(unknown_name("layer", layer, layers)) if layers else f"Unknown layer {layer!r}: there are no layers at all."
    )
    return InputError(f"{path}: {said}")


def _control(path: Path, kind: Kind, root: Any, layer: str, layers: list[str], rows: str) -> RowSource:
    if layer == "X":
        return _matrix(path, kind, root, layer=None, layers=layers, option="--control-layer")
    if layer in layers:
        return StoredRows(path, kind, f"layers/{layer}")
    if layer != CONTROL:
        raise _no_layer(path, layer, layers)
    named = f" (the layers are {first_few(layers)})" if layers else ""
    raise InputError(
        f"{path} says no control, and every treated sample needs one, because models start from it and scores compare "
        f"with it. {rows} Or name the layer that holds the control of every sample with --control-layer{named}; or, "
        f"when the values already are differences (z-scores, log fold changes), say --delta."
    )


def _refuse_delta_with_control(path: Path, layers: list[str], control_layer: str) -> None:
    if control_layer in layers:
        raise InputError(
            f"{path} was opened with --delta (values are differences), but it has a layer {control_layer!r}. Drop "
            f"--delta to use the control, or give --control-layer '' when X really holds differences."
        )
