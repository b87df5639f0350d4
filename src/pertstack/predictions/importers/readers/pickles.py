"""Predictions in pickles of pandas tables or of plain dicts of arrays, read without running their code.

Such files are small enough to be held whole; the reader that refuses everything but arrays and tables is
``_base/reading/unpickle.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionDtype
from pandas.api.types import is_numeric_dtype

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.unpickle import load_pickle
from pertstack.data.rows import Float32
from pertstack.predictions.importers.cards import CARD_KEYS, read_card
from pertstack.predictions.importers.readers.anndata_files import plain
from pertstack.predictions.importers.readers.dicts import from_dict, is_profiles
from pertstack.predictions.importers.readers.files import PredictionFile, check_shape, names_of
from pertstack.predictions.importers.readers.named_arrays import IDS, VALUES, NamedArrays
from pertstack.predictions.importers.readers.npz import META_KEYS
from pertstack.predictions.importers.readers.tables import is_key, parted


def open_pickle_predictions(path: Path, told: Collection[str] = ()) -> PredictionFile:
    """A DataFrame (ids as index or what was done in columns, and a column for each gene), or a dict with predictions,
    gene_names, and sample_ids or what was done.
    """
    content = load_pickle(path)
    if isinstance(content, pd.DataFrame):
        content = _of_table(content, told)
    arrays = isinstance(content, Mapping) and (
        any(n in content for n in IDS) or any(np.ndim(content[n]) == 2 for n in VALUES if n in content)
    )
    if is_profiles(content) and not arrays:
        return from_dict(content, path)
    if not arrays:
        held = first_few(content) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{path} holds {held}; a table with ids as index, a dict from perturbation to profile, or a dict with "
            f"predictions, sample_ids and gene_names is expected. Objects such as AnnData are not unpickled, because "
            f"that can run any program: write them with write_h5ad."
        )
    named = NamedArrays.among(content, path, told)
    values = _array(content[named.values])
    if values.dtype.kind not in "fiu" or values.ndim != 2:
        raise InputError(
            f"{path}: predictions are {values.dtype} {values.shape}; numbers, samples × genes, are expected."
        )
    sample_ids, obs = named.rows(lambda name: content[name], len(values), path)
    gene_names = names_of(content[named.genes], named.genes, path)
    check_shape(path, values.shape, sample_ids, gene_names=gene_names)

    def rows(n_rows: int) -> Iterator[Float32]:
        for start in range(0, len(values), n_rows):
            with np.errstate(over="ignore"):
                yield values[start : start + n_rows].astype(np.float32)

    folds = content.get("fold_assignments")
    meta = {key: plain(content[key]) for key in META_KEYS if key in content}
    in_file = next((key for key in CARD_KEYS if key in content), None)
    card = None if in_file is None else read_card(content[in_file], f"{path}: {in_file!r}")
    return PredictionFile(
        path,
        sample_ids,
        gene_names,
        rows=rows,
        folds=None if folds is None else np.asarray(folds),
        meta=meta,
        card=card,
        obs=obs,
    )


def _of_table(table: pd.DataFrame, told: Collection[str]) -> dict[str, Any]:
    """A table as arrays: columns and levels of the index that say what was done are no genes."""
    if isinstance(table.index, pd.MultiIndex):
        table = table.reset_index()
    numeric = [str(c) for c in table.columns if is_numeric_dtype(table[c])]
    said, genes = parted(list(map(str, table.columns)), numeric, None, told=told)
    if not any(is_key(c, told) for c in said):
        return {"predictions": _array(table), "sample_ids": table.index, "gene_names": table.columns}
    found = table.set_axis(list(map(str, table.columns)), axis=1)
    arrays = {
        "predictions": _array(found[genes]),
        "gene_names": genes,
        **{c: found[c] for c in said if is_key(c, told)},
    }
    return arrays if isinstance(table.index, pd.RangeIndex) else {**arrays, "sample_ids": table.index}


def _array(values: Any) -> Any:
    """An array of a table or of what holds numbers; pandas' numbers with gaps (Float64, Int64) are NaN there."""
    if not isinstance(values, pd.DataFrame) or not any(map(_has_gaps, values.dtypes)):
        return np.asarray(values)
    columns = [values.iloc[:, i] for i in range(values.shape[1])]
    return np.column_stack([c.to_numpy(np.float64, na_value=np.nan) if is_numeric_dtype(c) else c for c in columns])


def _has_gaps(kind: Any) -> bool:
    return isinstance(kind, ExtensionDtype) and is_numeric_dtype(kind)
