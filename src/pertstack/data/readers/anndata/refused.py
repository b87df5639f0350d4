"""AnnData files that would be read as what they are not: refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack.data.cells.entry import CellLook
from pertstack.data.cells.recognise import look_at
from pertstack.data.readers.anndata.layers import Layers
from pertstack.data.readers.columns.columns import source_column
from pertstack.data.readers.control_rows import Labels
from pertstack.data.readers.matrices import RowSource


def refuse_other_shape(path: Path, values: RowSource, *, obs: pd.DataFrame, var: pd.DataFrame) -> None:
    """Refuse values that are not those of the tables beside them.

    Parameters
    ----------
    path : the file, for messages.
    values : (n, n_genes).
    obs, var : tables of samples and genes.

    Raises
    ------
    InputError
        Another number of samples or genes.
    """
    if (len(obs), len(var)) != values.shape:
        raise InputError(
            f"{path}: the values have shape {values.shape}, but obs describes {len(obs):,} samples and var "
            f"{len(var):,} genes. The file is damaged or was cut; write it again with anndata."
        )


def refuse_controls_twice(file: Layers, label: Labels, *, control_layer: str, delta: bool) -> None:
    """Refuse control rows that are named beside a layer of controls, or beside differences.

    Parameters
    ----------
    file : with its layers.
    label : names of control rows; None or empty if none are named.
    control_layer, delta : as the user said.

    Raises
    ------
    InputError
        Controls are named twice.
    """
    if label and (delta or control_layer in file.layers):
        given = first_few([label] if isinstance(label, str) else label)
        what = "--delta says there is no control" if delta else f"there is a layer {control_layer!r} with every control"
        raise InputError(f"{file.path}: --control-label {given} names control rows, but {what}. Give one of the two.")


def refuse_scaled(file: Layers, look: CellLook) -> None:
    """Cells whose values cannot be summed: which are meant, if the file has others that can, or that every row is a
    sample, has to be said."""
    found = {name: look_at(rows).kind for name, rows in file.slots().items()}
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


def refuse_predicted(obs: pd.DataFrame, mapping: Mapping[str, str] | None, path: Path) -> None:
    """Some benchmarks keep control, measured and predicted cells in one file: the last are no measurement.

    Parameters
    ----------
    obs : table as the file has it.
    mapping : canonical column -> column of ``obs``.
    path : the file, for messages.

    Raises
    ------
    InputError
        Rows are predictions by their name.
    """
    names = {str(v) for v in perturbations_of(obs, mapping) if str(v).strip().casefold() in _PREDICTED}
    if names:
        column = source_column(obs, mapping, "perturbation")
        n = int(obs[column].astype(str).isin(names).sum())
        raise InputError(
            f"{path}: {n:,} rows are predictions by their name ({first_few(sorted(names))} in {column!r}), and data "
            f"are measured. Leave them out here; `pertstack add` takes predictions. If it is the name of a "
            f"perturbation, rename it."
        )


def perturbations_of(obs: pd.DataFrame, mapping: Mapping[str, str] | None) -> list[object]:
    """The names of perturbations in a table, as they are there."""
    column = source_column(obs, mapping, "perturbation")
    return [] if column is None else list(obs[column].unique())
