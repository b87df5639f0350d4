"""The AnnData skeleton of a block: obs and var, written once with anndata itself and never changed.

Layers and embeddings are added later by our own writer, so live blocks are never consolidated (a consolidated block
would hide them from every reader).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.digests import digest_names
from pertstack._base.errors import CorruptionError, InputError, first_few
from pertstack._base.files import read_json
from pertstack.design.blocks import Block

_OBS_KINDS = {
    "dataframe",
    "categorical",
    "array",
    "string-array",
    "nullable-integer",
    "nullable-boolean",
    "nullable-string-array",
}
BLOCK_ATTRIBUTE = "pertstack_block"


def write_skeleton(staged: Path, block: Block, obs: pd.DataFrame, gene_names: Sequence[str]) -> Path:
    """Write ``<block>.zarr`` below a private folder; returns its path."""
    import anndata  # slow to import
    import zarr
    from anndata.io import write_elem

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of zarr and anndata on coming defaults; we fix the format ourselves
        parent = zarr.open_group(str(staged), mode="w", zarr_format=3)
        var = pd.DataFrame(index=pd.Index(list(gene_names), dtype=object))
        write_elem(parent, f"{block.id}.zarr", anndata.AnnData(obs=plain_obs(obs), var=var))
    path = staged / f"{block.id}.zarr"
    meta = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    meta["attributes"][BLOCK_ATTRIBUTE] = {
        "block": block.id,
        "cell_line": block.cell_line,
        "fold": block.fold,
        "segment": block.segment,
        "n": len(obs),
        "samples_sha256": digest_names(obs.index),
        "genes_sha256": digest_names(gene_names),
    }
    (path / "zarr.json").write_text(json.dumps(meta, indent=2), encoding="utf-8")
    return path


def plain_obs(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns as AnnData can keep them: words become categories, everything else stays."""
    columns: dict[str, Any] = {}
    for name, column in obs.items():
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
            columns[str(name)] = (
                column.to_numpy() if not pd.api.types.is_extension_array_dtype(column) else column.array
            )
        else:
            words = column.astype(object)
            columns[str(name)] = pd.Categorical(words.where(words.isna(), words.map(str)))
    return pd.DataFrame(columns, index=pd.Index([str(i) for i in obs.index], dtype=object))


def read_obs(path: Path) -> pd.DataFrame:
    """obs of a block; categories come back as plain words.

    Raises
    ------
    CorruptionError
        A part of it is of a kind that AnnData does not know.
    """
    import zarr  # slow to import
    from anndata.io import read_elem

    for part in sorted((path / "obs").glob("**/zarr.json")):
        kind = read_json(part).get("attributes", {}).get("encoding-type")
        if kind not in _OBS_KINDS:
            raise CorruptionError(f"{part} says it is {kind!r}, which is nothing of a sample table: it was changed.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        obs = read_elem(zarr.open_group(str(path), mode="r", use_consolidated=False)["obs"])
    for name in obs.columns:
        if isinstance(obs[name].dtype, pd.CategoricalDtype):
            obs[name] = obs[name].astype(object)
    obs.index = pd.Index([str(i) for i in obs.index], dtype=object)
    return pd.DataFrame(obs)


def read_block_facts(path: Path) -> dict[str, Any]:
    """What a block says of itself: id, n, digests of its samples and genes."""
    meta = read_json(path / "zarr.json")
    try:
        return dict(meta["attributes"][BLOCK_ATTRIBUTE])
    except (KeyError, TypeError) as error:
        raise CorruptionError(f"{path / 'zarr.json'} is not a block written by pertstack; move it out.") from error


def check_obs(block: Block, obs: pd.DataFrame) -> list[str]:
    """Sample ids of a new block; refuses duplicates."""
    ids = [str(i) for i in obs.index]
    index = pd.Index(ids, dtype=object)
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        raise InputError(
            f"Block {block.id}: {len(twice):,} sample ids occur more than once: {first_few(twice)}. Predictions are "
            f"matched by id, so ids must be unique over the whole study. Make them unique in the data."
        )
    return ids
