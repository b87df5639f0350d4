"""The AnnData skeleton of a block: obs and var, written once and never changed.

Layers and embeddings are added later by our own writer, so live blocks are never consolidated (a consolidated block
would hide them from every reader).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_names
from pertstack._base.errors import CorruptionError, InputError, first_few
from pertstack._base.files import read_json
from pertstack.design.blocks import Block
from pertstack.predictions.store.files.rounding import Rounding
from pertstack.predictions.store.files.zarr_tables import can_write, read_table, write_group, write_table

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
ROUNDING = "rounding_sha256"  # of the offsets and steps in var, if layers are kept in 16 bits


def write_skeleton(
    staged: Path, block: Block, obs: pd.DataFrame, *, gene_names: Sequence[str], rounding: Rounding | None = None
) -> Path:
    """Write ``<block>.zarr``, with obs, var and no values; its path.

    Parameters
    ----------
    staged : a private folder.
    block : of the store.
    obs : samples in plan order, index = sample ids.
    gene_names : of the store.
    rounding : of the block's layers, kept in ``var``; None for float32.
    """
    path, table = staged / f"{block.id}.zarr", plain_obs(obs)
    facts = {
        "block": block.id,
        "cell_line": block.cell_line,
        "fold": block.fold,
        "segment": block.segment,
        "n": len(obs),
        "samples_sha256": digest_names(obs.index),
        "genes_sha256": digest_names(gene_names),
    }
    if rounding is not None:
        facts[ROUNDING] = rounding.digest
    write_group(path, "anndata", "0.1.0", **{BLOCK_ATTRIBUTE: facts})
    for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
        write_group(path / name, "dict", "0.1.0")
    kept = {} if rounding is None else {"offset": rounding.offset, "step": rounding.step}
    write_table(path / "var", pd.DataFrame(kept, index=pd.Index(list(gene_names), dtype=object)))
    if can_write(table):
        write_table(path / "obs", table)
    else:
        _write_with_anndata(path, table)
    return path


def _write_with_anndata(path: Path, table: pd.DataFrame) -> None:
    """obs with a column of an unusual kind, such as dates."""
    import zarr  # slow to import
    from anndata.io import write_elem

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of zarr and anndata on coming defaults; we fix the format ourselves
        write_elem(zarr.open_group(str(path), mode="r+", use_consolidated=False), "obs", table)


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
    obs = read_table(path / "obs")
    if obs is None:
        for part in sorted((path / "obs").glob("**/zarr.json")):
            kind = read_json(part).get("attributes", {}).get("encoding-type")
            if kind not in _OBS_KINDS:
                raise CorruptionError(
                    f"{part} says it is {kind!r}, which is nothing of a sample table: it was changed."
                )
        import zarr  # slow to import
        from anndata.io import read_elem

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            obs = pd.DataFrame(read_elem(zarr.open_group(str(path), mode="r", use_consolidated=False)["obs"]))
    for name in obs.columns:
        if isinstance(obs[name].dtype, pd.CategoricalDtype):
            obs[name] = obs[name].astype(object)
    obs.index = pd.Index([str(i) for i in obs.index], dtype=object)
    return obs


def read_rounding(path: Path, facts: dict[str, Any]) -> Rounding | None:
    """Offset and step of every gene of a block; None if its layers are kept in float32.

    Raises
    ------
    CorruptionError
        They are not those that the block was made with.
    """
    if ROUNDING not in facts:
        return None
    var = read_table(path / "var")
    if var is not None and {"offset", "step"} <= set(var.columns):
        found = Rounding(var["offset"].to_numpy(np.float32), var["step"].to_numpy(np.float32))
        if found.digest == facts[ROUNDING]:
            return found
    raise CorruptionError(
        f"{path / 'var'} does not hold the offsets and steps by which the codes of block {facts['block']} become "
        f"values: it was changed since. Restore it from a copy."
    )


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
