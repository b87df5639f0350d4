"""Predictions in pickles of pandas tables or of plain dicts of arrays, read without running their code.

Such files are small enough to be held whole; the reader that refuses everything but arrays and tables is
``data.unpickle``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.unpickle import load_pickle
from pertstack.data.rows import Float32
from pertstack.predictions.importers.cards import CARD_KEYS, read_card
from pertstack.predictions.importers.readers.anndata_files import plain
from pertstack.predictions.importers.readers.dicts import from_dict, is_profiles
from pertstack.predictions.importers.readers.files import PredictionFile, check_shape, names_of
from pertstack.predictions.importers.readers.npz import META_KEYS


def open_pickle_predictions(path: Path) -> PredictionFile:
    """A DataFrame (ids as index, genes as columns), or a dict with predictions, sample_ids and gene_names."""
    content = load_pickle(path)
    if isinstance(content, pd.DataFrame):
        content = {"predictions": content.to_numpy(), "sample_ids": content.index, "gene_names": content.columns}
    if is_profiles(content) and not {"sample_ids", "gene_names"} <= set(content):
        return from_dict(content, path)
    if not isinstance(content, Mapping) or not {"predictions", "sample_ids", "gene_names"} <= set(content):
        held = first_few(content) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{path} holds {held}; a table with ids as index, a dict from perturbation to profile, or a dict with "
            f"predictions, sample_ids and gene_names is expected. Objects such as AnnData are not unpickled, because "
            f"that can run any program: write them with write_h5ad."
        )
    values = np.asarray(content["predictions"])
    if values.dtype.kind not in "fiu" or values.ndim != 2:
        raise InputError(
            f"{path}: predictions are {values.dtype} {values.shape}; numbers, samples × genes, are expected."
        )
    sample_ids = names_of(content["sample_ids"], "sample_ids", path)
    gene_names = names_of(content["gene_names"], "gene_names", path)
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
    )
