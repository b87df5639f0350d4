"""Objects in memory become files, so that there is one reader of each form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError
from pertstack.predictions.importers.readers.named_files import Paths
from pertstack.predictions.store.files.names import encode_name


def written(value: Any, folder: Path, name: str) -> Path:
    """Where a path leads, or where an object is written (a copy: writing turns texts into categories).

    Parameters
    ----------
    value : path, AnnData or DataFrame.
    folder : a scratch folder.
    name : what to call it.

    Raises
    ------
    InputError
        Another kind of object, or one that cannot be written.
    """
    if isinstance(value, str | Path):
        return value  # type: ignore[return-value]
    path = folder / encode_name(name)
    try:
        if hasattr(value, "write_h5ad"):
            path = path.with_name(f"{path.name}.h5ad")
            value.copy().write_h5ad(path)
            return path
        if isinstance(value, pd.DataFrame):
            path = path.with_name(f"{path.name}.parquet")
            value.rename(columns=str).to_parquet(path)
            return path
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{name}: the {type(value).__name__} cannot be written ({error}). Mend it, or give a file."
        ) from error
    raise InputError(
        f"{name} is of type {type(value).__name__}, whose rows and genes have no names. Give a file, an AnnData, or a "
        f"DataFrame with sample ids as its index and genes as its columns."
    )


def on_disk(truth: Any, predictions: Any, scratch: Path) -> tuple[Path, Paths]:
    """Paths of what was given.

    Parameters
    ----------
    truth : path, AnnData or DataFrame.
    predictions : path or paths, AnnData, DataFrame, or a mapping of them (a model may have several) by model; one
        object without a name is "model".
    scratch : folder into which objects are written.

    Raises
    ------
    InputError
        Objects of another kind, or several without names.
    """
    if not isinstance(predictions, str | Path | Mapping | list | tuple):
        predictions = {"model": predictions}
    if isinstance(predictions, Mapping):
        paths = {}
        for i, (name, value) in enumerate(predictions.items()):
            several = value if isinstance(value, list | tuple) else [value]
            paths[str(name)] = [written(v, scratch, f"{i}_{j}_{name}") for j, v in enumerate(several)]
        predictions = paths
    elif not isinstance(predictions, str | Path) and not all(isinstance(p, str | Path) for p in predictions):
        raise InputError("Predictions in memory need names: {name: AnnData or DataFrame, ...}.")
    return Path(written(truth, scratch, "truth")), predictions
