"""The founding study's data: two pandas pickles whose rows belong together by position, read by the restricted
unpickler.

The treated table has metadata columns and genes, the control table ("diseased") the same genes, row by row. That they
are aligned cannot be checked by ids, because the control table has none; what can be checked (same length, same index,
same metadata) is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack._base.reading.unpickle import load_pickle
from pertstack.data.file import DataFile
from pertstack.data.readers.columns.columns import canonical_obs
from pertstack.data.readers.matrices import ArrayRows

METADATA = (
    "sig_id",
    "idx",
    "pert_id",
    "pert_type",
    "cell_id",
    "pert_idose",
    "pert_itime",
    "cell_type",
    "dose",
    "smiles",
)


def open_merge(treated: str | Path, control: str | Path, *, mapping: Mapping[str, str] | None = None) -> DataFile:
    """Open a pair of row-aligned pickles (held in memory: a pickle cannot be read in parts).

    Parameters
    ----------
    treated, control : paths of the two tables, a row per sample, in the same order.
    mapping : canonical column -> source column.

    Raises
    ------
    InputError
        Not pandas tables, or genes that differ.
    MisalignedError
        The two tables do not have the same rows as far as can be seen.
    """
    first, second = _table(treated), _table(control)
    genes = [str(c) for c in first.columns if str(c) not in METADATA]
    lacking = [g for g in genes if g not in second.columns]
    if lacking:
        raise InputError(
            f"{control} lacks {len(lacking):,} of {len(genes):,} genes of {treated}: {first_few(lacking)}."
        )
    _check_rows(first, second, treated, control)
    obs_source = first[[c for c in first.columns if str(c) in METADATA]].copy()
    notes = [
        Finding(
            "warning",
            "aligned_by_position",
            f"{control} has no sample ids; its rows were taken to follow those of {treated}. Length, index and shared "
            f"metadata agree, which is "
            f"all that can be checked.",
            len(first),
            where=str(control),
        )
    ]
    notes += _drop_unusable_dose(obs_source, str(treated))
    if "sig_id" in obs_source and not obs_source["sig_id"].duplicated().any():
        obs_source = obs_source.set_index(obs_source["sig_id"].astype(str))
    else:
        obs_source.index = pd.Index([f"row_{i:06d}" for i in range(len(first))])
    obs, found = canonical_obs(obs_source, mapping, where=Path(treated).name)
    var = pd.DataFrame(index=pd.Index(np.array(genes, dtype=object), name="gene"))
    return DataFile(
        path=str(treated),
        obs=obs,
        var=var,
        treated=ArrayRows(_values(first, genes, treated)),
        control=ArrayRows(_values(second, genes, control)),
        control_reference=f"row-aligned table {Path(control).name}",
        notes=[*found, *notes],
    )


def _table(path: str | Path) -> pd.DataFrame:
    value = load_pickle(path)
    if not isinstance(value, pd.DataFrame):
        raise InputError(f"{path} holds {type(value).__name__}, not a pandas table.")
    return value


def _check_rows(first: pd.DataFrame, second: pd.DataFrame, treated: str | Path, control: str | Path) -> None:
    if len(first) != len(second):
        raise MisalignedError(
            f"{treated} has {len(first):,} rows and {control} {len(second):,}. Row-aligned tables of different length "
            f"cannot be matched; cutting the longer one would pair every sample with a stranger's control."
        )
    if not first.index.equals(second.index):
        at = int(np.flatnonzero(first.index != second.index)[0])
        raise MisalignedError(
            f"{treated} and {control} have different row labels, first at row {at}: {first.index[at]!r} and "
            f"{second.index[at]!r}. They are "
            f"not row-aligned."
        )
    for column in ("sig_id", "cell_id", "pert_id"):
        if column in first and column in second:
            differ = np.flatnonzero(as_texts(first[column]).to_numpy() != as_texts(second[column]).to_numpy())
            if len(differ):
                raise MisalignedError(
                    f"{treated} and {control} disagree on {column} in {len(differ):,} rows, first at row {differ[0]}: "
                    f"{first[column].iloc[differ[0]]!r} and {second[column].iloc[differ[0]]!r}. They are not "
                    f"row-aligned."
                )


def _drop_unusable_dose(obs: pd.DataFrame, where: str) -> list[Finding]:
    """Leave out, and say so, a dose column without a single number (the founding study wrote 'x' everywhere)."""
    found = []
    for column in ("dose", "pert_idose"):
        if column in obs and not as_texts(obs[column]).str.contains(r"\d").any():
            values = as_texts(obs.pop(column)).unique()
            message = f"Column {column} holds no number ({first_few(values)}); doses are unknown."
            found.append(Finding("warning", "dose_unusable", message, len(obs), where=where))
    return found


def _values(table: pd.DataFrame, genes: list[str], path: str | Path) -> np.ndarray[Any, Any]:
    try:
        return np.ascontiguousarray(table[genes].to_numpy(dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: the gene columns hold something else than numbers ({error}).") from error
