"""Predictions in AnnData files, .h5ad or .zarr: ``layers['prediction']`` where there is one, else X."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack.data.readers.matrices import StoredRows, open_root
from pertstack.data.rows import Float32
from pertstack.predictions.importers.cards import CARD_KEYS, read_card
from pertstack.predictions.importers.files import PredictionFile, check_shape, names_of

PREFERRED = "prediction"
META_KEYS = ("model_version", "training_params", "timestamp", "scale", "fitted_on")


def open_anndata_predictions(path: Path, layer: str | None = None) -> PredictionFile:
    """Names and a row reader of one AnnData file.

    Raises
    ------
    InputError
        Not AnnData, no values, or the layer is not there.
    """
    kind: Literal["hdf5", "zarr"] = "zarr" if path.is_dir() else "hdf5"
    try:
        root = open_root(path, kind)
        keys = set(root.keys())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as AnnData: {error}. Write it again with anndata.") from error
    if not {"obs", "var"} <= keys:
        raise InputError(
            f"{path} is no AnnData file: it has {first_few(sorted(keys))}, but obs and var are needed for names."
        )
    layers = sorted(root["layers"].keys()) if "layers" in keys else []
    if layer is None and PREFERRED in layers:
        layer = PREFERRED
    if layer is not None and layer not in layers:
        raise unknown_name(f"layer in {path}:", layer, [*layers, "X"])
    if layer is None and "X" not in keys:
        raise InputError(
            f"{path} has neither X nor layers['prediction']. Layers here: {first_few(layers)}; name one of them."
        )
    sample_ids, gene_names = (_index(root[part], part, path) for part in ("obs", "var"))
    stored = StoredRows(path, kind, "X" if layer is None else f"layers/{layer}")
    check_shape(path, stored.shape, sample_ids, gene_names)

    def rows(n_rows: int) -> Iterator[Float32]:
        for start in range(0, len(sample_ids), n_rows):
            yield stored.rows(start, min(start + n_rows, len(sample_ids)))

    folds = _folds(root["obs"])
    return PredictionFile(path, sample_ids, gene_names, rows, folds, _meta(root, keys), _card(root, keys, path))


def _index(group: Any, part: str, path: Path) -> list[str]:
    from anndata.io import read_elem

    return names_of(read_elem(group[group.attrs["_index"]]), f"{part} names", path)


def _folds(obs: Any) -> Any:
    from anndata.io import read_elem

    return None if "fold_assignments" not in obs else read_elem(obs["fold_assignments"])


def _meta(root: Any, keys: set[str]) -> dict[str, Any]:
    from anndata.io import read_elem

    if "uns" not in keys:
        return {}
    uns = root["uns"]
    return {key: plain(read_elem(uns[key])) for key in META_KEYS if key in uns}


def _card(root: Any, keys: set[str], path: Path) -> dict[str, Any] | None:
    from anndata.io import read_elem

    uns = root["uns"] if "uns" in keys else {}
    found = next((key for key in CARD_KEYS if key in uns), None)
    return None if found is None else read_card(read_elem(uns[found]), f"{path}: uns[{found!r}]")


def plain(value: Any) -> Any:
    """A value as plain JSON where it is one, else as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
