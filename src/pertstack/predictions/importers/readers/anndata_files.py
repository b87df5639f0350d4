"""Predictions in AnnData files, .h5ad or .zarr: the layer or obsm named, else ``layers['prediction']``, else X."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack.data.readers.anndata.tables import open_anndata_file, open_foreign, read_frame, read_whole
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.readers.matrices import StoredRows
from pertstack.data.rows import Float32
from pertstack.predictions.importers.cards import CARD_KEYS, read_card
from pertstack.predictions.importers.readers.files import PredictionFile, check_shape, names_of
from pertstack.predictions.importers.readers.gene_lists import SECOND
from pertstack.predictions.importers.readers.vcc import unpacked

PREFERRED, RAW = "prediction", "raw"
META_KEYS = ("model_version", "training_params", "timestamp", "scale", "fitted_on")


def open_packed_predictions(path: Path, layer: str | None = None) -> PredictionFile:
    """A ``.vcc`` or ``.h5ad.zst``: unpacked to a scratch file that lives as long as its reader."""
    scratch = unpacked(path)
    file = open_anndata_predictions(Path(scratch.name), layer)

    def rows(n_rows: int, kept: Any = scratch) -> Iterator[Float32]:
        return file.rows(n_rows)

    return replace(file, path=path, rows=rows)


def open_anndata_predictions(path: Path, layer: str | None = None) -> PredictionFile:
    """Names and a row reader of one AnnData file.

    Raises
    ------
    InputError
        Not AnnData, no values, or the layer is not there.
    """
    kind, root = open_anndata_file(path)
    keys = set(root.keys())
    layers = sorted(root["layers"].keys()) if "layers" in keys else []
    raw = layer == RAW and RAW in keys and "X" in root[RAW]
    genes_in = root[RAW] if raw else root
    sample_ids, gene_names = _index(root, "obs", path), _index(genes_in, "var", path)
    slots = {"X": "X"} if "X" in keys else {}
    slots |= {f"obsm:{name}": f"obsm/{name}" for name in _wide(root, keys, len(gene_names))}
    slots |= {name: f"layers/{name}" for name in layers}
    if RAW in keys and "X" in root[RAW]:
        slots.setdefault(RAW, f"{RAW}/X")
    if layer is None and PREFERRED in layers:
        layer = PREFERRED
    if layer is None and "X" not in keys:
        raise InputError(
            f"{path} has neither X nor layers['prediction']. It has {first_few(sorted(slots))}: name one of them with "
            f"--layer."
        )
    layer = "X" if layer is None else layer
    if layer not in slots:
        layer = f"obsm:{layer}" if f"obsm:{layer}" in slots else layer
    if layer not in slots:
        raise unknown_name(f"layer in {path}:", layer, slots)
    stored = StoredRows(path, kind, slots[layer])
    check_shape(path, stored.shape, sample_ids, gene_names=gene_names)

    def rows(n_rows: int) -> Iterator[Float32]:
        for start in range(0, len(sample_ids), n_rows):
            yield stored.rows(start, min(start + n_rows, len(sample_ids)))

    folds, obs = _folds(root["obs"], path), _obs(root, path)
    return PredictionFile(
        path,
        sample_ids,
        gene_names,
        rows=rows,
        folds=folds,
        meta=_meta(root, keys, path),
        card=_card(root, keys, path),
        obs=obs,
        second_names=_second_names(genes_in["var"], len(gene_names), path),
        slot=layer,
        other_slots=tuple(s for s in slots if s != layer),
    )


def _wide(root: Any, keys: set[str], n_genes: int) -> list[str]:
    """Matrices in obsm with a column per gene: some tools write predictions there."""
    found = []
    for name in root["obsm"].keys() if "obsm" in keys else ():
        item = root["obsm"][name]
        shape = getattr(item, "shape", None) or tuple(item.attrs.get("shape", ()))
        if len(shape) == 2 and shape[1] == n_genes:
            found.append(str(name))
    return sorted(found)


def _second_names(var: Any, n: int, path: Path) -> dict[str, list[str]]:
    """Columns of ``var`` that name the genes otherwise."""
    if getattr(getattr(var, "dtype", None), "names", None):  # records of an anndata before 0.7
        return {}
    columns = dict.fromkeys(column_of(var, [n]) for n in SECOND)
    found = {c: read_whole(var[c], path) for c in columns if c is not None}
    return {c: [str(v) for v in values] for c, values in found.items() if len(values) == n}


def anndata_columns(path: Path) -> list[str] | None:
    """Names of the columns of ``obs``, or None if the path is no AnnData file."""
    if not path.exists():
        return None
    try:
        root = open_foreign(path, "zarr" if path.is_dir() else "hdf5")
        return sorted(root["obs"].keys())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _index(root: Any, part: str, path: Path) -> list[str]:
    group = root[part]
    if "_index" not in group.attrs:  # written by an anndata before 0.7
        return names_of(read_frame(root, part, path).index, f"{part} names", path)
    try:
        return names_of(read_whole(group[group.attrs["_index"]], path), f"{part} names", path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: the names in {part} cannot be read ({error}). Write the file again with a current anndata."
        ) from error


def _obs(root: Any, path: Path) -> pd.DataFrame | None:
    """The table of rows; None if it holds nothing but their names."""
    table = read_frame(root, "obs", path)
    return table if len(table.columns) else None


def _folds(obs: Any, path: Path) -> Any:
    if getattr(getattr(obs, "dtype", None), "names", None):  # records of an anndata before 0.7
        return obs["fold_assignments"] if "fold_assignments" in obs.dtype.names else None
    return None if "fold_assignments" not in obs else read_whole(obs["fold_assignments"], path)


def _meta(root: Any, keys: set[str], path: Path) -> dict[str, Any]:
    if "uns" not in keys:
        return {}
    uns = root["uns"]
    return {key: plain(read_whole(uns[key], path)) for key in META_KEYS if key in uns}


def _card(root: Any, keys: set[str], path: Path) -> dict[str, Any] | None:
    uns = root["uns"] if "uns" in keys else {}
    found = next((key for key in CARD_KEYS if key in uns), None)
    return None if found is None else read_card(read_whole(uns[found], path), f"{path}: uns[{found!r}]")


def plain(value: Any) -> Any:
    """A value as plain JSON if it is one, else as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
