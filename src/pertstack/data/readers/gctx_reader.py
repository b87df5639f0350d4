"""GCTX and GCT (1.2 and 1.3) files of the Connectivity Map, read with h5py; metadata from a siginfo / instinfo table.

Level 3 (single wells): vehicle wells are the controls of the treated wells of their plate. Level 4 and 5 (already
differential): say ``delta``. Missing numbers (-666) are left for the validation to find.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.damage import require_modest
from pertstack._base.reading.dialects import BROKEN, damaged, encoding_of, open_bytes, text_of_bytes
from pertstack._base.reading.tables import frame, with_numbers
from pertstack._base.reading.text_tables import MISSING, TextTable
from pertstack.data.choices import ControlChoice
from pertstack.data.file import DataFile
from pertstack.data.readers.anndata.tables import is_locked, locked, open_foreign
from pertstack.data.readers.columns.aliases import ALIASES, AMOUNTS, alias_names, plain_name
from pertstack.data.readers.columns.beside import IDS, said_beside
from pertstack.data.readers.columns.columns import canonical_obs
from pertstack.data.readers.columns.genes import GENE, named_genes
from pertstack.data.readers.control_rows import Labels, Mask, control_names, control_rows, vehicles_by_name
from pertstack.data.readers.handed_out import hand_out
from pertstack.data.readers.matrices import ArrayRows, RepeatedRow, RowSource, StoredRows, SubsetRows
from pertstack.data.readers.vehicles import treated_rows, vehicle_rows

_PLATES = ("rna_plate", "det_plate", "plate", "plate_id")
_NAMES = alias_names(*(n for n in ALIASES if n not in AMOUNTS)) | set(map(plain_name, IDS))


def open_gctx(
    path: Path,
    *,
    metadata: Path | None = None,
    mapping: Mapping[str, str] | None = None,
    delta: bool = False,
    controls: ControlChoice = "plate_mean",
    seed: int = 0,
    control_label: Labels = None,
) -> DataFile:
    """Open a .gctx or .gct file.

    Parameters
    ----------
    path : the file.
    metadata, mapping, delta, controls, seed, control_label : as in ``open_data``.

    Raises
    ------
    InputError
        The file or its metadata cannot be used.
    """
    gctx = path.suffix.casefold() == ".gctx"
    values, ids, columns, var = _read_gctx(path) if gctx else _read_gct(path)
    table, said = columns.set_index(pd.Index(ids, name="sample_id")), list[Finding]()
    if metadata is not None:
        table, said = said_beside(metadata, table, path, mapping=mapping)
    if GENE in (mapping or {}):
        var, more = named_genes(var, (), mapping, where=path.name)
        said += more
    named = "plate" in (mapping or {}) or set(_PLATES) & set(table.columns)
    if not named and all(":" in str(i) for i in ids):
        table["plate"] = [str(i).split(":")[0] for i in ids]  # LINCS ids begin with the plate
    left = [*said, *filter(None, [_not_treated(path, table)])]
    if not delta:
        is_treated, vehicles = _roles(table, path, mapping, control_label)
        vehicles, told = vehicles_by_name(table, vehicles, mapping, label=control_label, where=path.name)
        who = control_names(table, mapping, vehicles, where=path.name)
        handed = hand_out(
            values,
            table,
            is_treated,
            controls=vehicles,
            mapping=mapping,
            choice=controls,
            seed=seed,
            what="vehicle well",
            where=path.name,
        )
        return DataFile(
            path=str(path),
            obs=handed.obs,
            var=var,
            treated=SubsetRows(values, handed.at),
            control=handed.control,
            control_reference=handed.reference,
            notes=[*told, *handed.notes, who, *left],
        )
    at = np.flatnonzero(treated_rows(table["pert_type"])) if "pert_type" in table else np.arange(len(ids))
    obs, found = canonical_obs(table.iloc[at], mapping, where=path.name)
    return DataFile(
        path=str(path),
        obs=obs,
        var=var,
        treated=SubsetRows(values, at.astype(np.int64)),
        delta=True,
        control=RepeatedRow(np.zeros(values.shape[1], dtype=np.float32), len(at)),
        control_reference="zero (differential values)",
        notes=[*found, *left],
    )


def _not_treated(path: Path, table: pd.DataFrame) -> Finding | None:
    """How many columns of the file are controls, if any is."""
    left = int((~treated_rows(table["pert_type"])).sum()) if "pert_type" in table else 0
    if not left:
        return None
    message = f"{left:,} of {len(table):,} columns of {path.name} are controls, not samples."
    return Finding("note", "not_treated", message, left, where=str(path))


def _roles(table: pd.DataFrame, path: Path, mapping: Mapping[str, str] | None, label: Labels) -> tuple[Mask, Mask]:
    """Which columns are treated samples and which are their vehicle controls: by pert_type, else by their names."""
    typed = "pert_type" in table
    if typed:
        treated, vehicles = treated_rows(table["pert_type"]), vehicle_rows(table["pert_type"])
        if vehicles.any() and treated.any():
            return treated, vehicles
    found = control_rows(table, mapping, label, where=path.name) if label or not typed else None
    if found is not None and found.rows.any():
        return ~found.rows & ~found.aside, found.rows
    if not typed:
        raise InputError(
            f"{path}: nothing says which columns are vehicle controls. Give the siginfo / instinfo table with "
            f"--metadata FILE (it has pert_type), name the perturbation that is the control with --control-label NAME, "
            f"or say --delta when the values are already differences (levels 4 and 5)."
        )
    kinds = table["pert_type"].value_counts().head(8).to_dict()
    raise InputError(
        f"{path} has {int(treated.sum()):,} treated and {int(vehicles.sum()):,} vehicle columns by pert_type "
        f"({kinds}). Both are needed for level 3: name the perturbation that is the control with --control-label NAME; "
        f"for level 4 or 5 say --delta."
    )


def _read_gctx(path: Path) -> tuple[RowSource, np.ndarray[Any, Any], pd.DataFrame, pd.DataFrame]:
    try:
        with open_foreign(path, "hdf5") as file:
            shape = file["0/DATA/0/matrix"].shape
            rows, columns = _meta(file["0/META/ROW"]), _meta(file["0/META/COL"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        if is_locked(error):
            raise locked(path) from error
        raise InputError(f"{path} cannot be read as GCTX (HDF5 with /0/DATA/0/matrix): {error}.") from error
    if shape != (len(columns), len(rows)):
        raise InputError(
            f"{path}: the matrix has shape {shape}, but {len(columns):,} columns and {len(rows):,} rows are named."
        )
    ids = np.array(columns.pop("id"), dtype=object)
    var = rows.set_index(pd.Index(np.array(rows.pop("id"), dtype=object), name="gene"))
    return StoredRows(path, "hdf5", "0/DATA/0/matrix"), ids, columns, var


def _meta(group: Any) -> pd.DataFrame:
    require_modest(group, Path(group.file.filename))
    return pd.DataFrame({name: _texts(group[name][()]) for name in ["id", *sorted(set(group) - {"id"})]})


def _texts(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind not in "SO":
        return values
    return np.array([text_of_bytes(v).strip("\0 ") if isinstance(v, bytes) else str(v) for v in values], dtype=object)


def _read_gct(path: Path) -> tuple[RowSource, np.ndarray[Any, Any], pd.DataFrame, pd.DataFrame]:
    """GCT 1.3: two header lines, a line of ids, column metadata lines, then genes as lines. GCT 1.2: no metadata."""
    encoding = encoding_of(path)
    try:
        with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=encoding) as stream:
            version, sizes = stream.readline().strip(), stream.readline().split()
            names = tuple(stream.readline().rstrip("\r\n").split("\t"))
    except BROKEN as error:
        raise damaged(path, error) from error
    wanted = {"#1.3": 4, "#1.2": 2}.get(version)
    if len(sizes) != wanted or not all(s.isdigit() for s in sizes):
        raise InputError(
            f"{path} is neither GCT 1.3 nor 1.2 (first lines: {version!r}, {sizes}). Convert it with cmapPy, or give "
            f"the .gctx."
        )
    n_genes, n_samples, n_row_meta, n_col_meta = [int(s) for s in sizes] + [1, 0][: 4 - len(sizes)]
    ids = np.array(names[1 + n_row_meta :], dtype=object)
    _refuse_repeats(path, "column ids", ids)
    names = tuple(str(i) for i in range(len(names)))  # by place: metadata of rows may be called like a sample
    raw_table = frame(TextTable(path, encoding, "\t", decimal=".", header=names, skip=3))
    if raw_table.shape != (n_genes + n_col_meta, 1 + n_row_meta + n_samples):
        raise InputError(
            f"{path}: its second line promises {sizes}, but the table is {raw_table.shape}. The file was cut or edited."
        )
    meta = raw_table.iloc[:n_col_meta, 1 + n_row_meta :].T.reset_index(drop=True)
    meta.columns = pd.Index(raw_table.iloc[:n_col_meta, 0].astype(str))
    body = raw_table.iloc[n_col_meta:]
    genes = body.iloc[:, 0].to_numpy(dtype=object)
    _refuse_repeats(path, "metadata rows", np.asarray(meta.columns, dtype=object))
    try:
        numbers = body.iloc[:, 1 + n_row_meta :].replace(list(MISSING), "nan").to_numpy(dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{path}: a value of the matrix is not a number ({error}).") from error
    var = body.iloc[:, 1 : 1 + n_row_meta].set_index(pd.Index(genes, name="gene"))
    return (
        ArrayRows(np.ascontiguousarray(numbers.T)),
        ids,
        with_numbers(meta, {c for c in meta.columns if plain_name(c) in _NAMES}),
        var,
    )


def _refuse_repeats(path: Path, what: str, names: np.ndarray[Any, Any]) -> None:
    index = pd.Index(names)
    if index.has_duplicates:
        twice = index[index.duplicated()].unique()
        raise InputError(
            f"{path}: {len(twice):,} {what} occur more than once: {first_few(twice)}. Which one is which cannot be "
            f"known. Make them unique where the file was made."
        )
