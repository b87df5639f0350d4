"""Parts of a reduction on disk: one folder per block, complete or absent, recognised by the digest of what went in.

Arrays are plain npy files that are mapped, not read, so results may be larger than memory. Each is checked against
its digest when opened.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any, cast

import numpy as np

from pertstack._base.digests import OWN, digest_array, own_digest_fits, with_own_digest
from pertstack._base.errors import CorruptionError
from pertstack._base.files import fsync_directory, read_json, storage_error, write_json
from pertstack.design.metric_names import Reference
from pertstack.reduce.sums.block_sums import BlockPart
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.reduce.sums.sample_moments import SampleMoments
from pertstack.reduce.sums.slices import TopSlices

FORMAT = 1


def save_part(folder: Path, part: BlockPart, facts: Mapping[str, Any]) -> None:
    """Write a part aside, then move the folder to its place; what is there already stays.

    Parameters
    ----------
    folder : of the part, named by the digest of what went in.
    part : moments and slices of one block.
    facts : plain JSON, kept beside it.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    if (folder / "part.json").exists():
        return
    arrays = _arrays(part)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:16]}.", suffix=".part"))
        try:
            for name, values in arrays.items():
                np.save(aside / f"{name}.npy", values)
            digests = {name: digest_array(values) for name, values in arrays.items()}
            meta = {"format": FORMAT, "n_genes": part.sample.n_genes, "slices": list(part.slices), "arrays": digests}
            write_json(aside / "part.json", with_own_digest({**meta, "name": folder.name, "facts": dict(facts)}))
            _move(aside, folder)
            fsync_directory(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise storage_error(error, folder) from error


def _move(aside: Path, folder: Path) -> None:
    """Put a finished part in its place. Whoever comes first stays; a folder without part.json was damaged and goes."""
    try:
        os.rename(aside, folder)  # noqa: PTH104
    except OSError:
        if (folder / "part.json").exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)  # noqa: PTH104


def load_part(folder: Path) -> BlockPart | None:
    """The part in a folder, its arrays mapped; None if there is none.

    Raises
    ------
    CorruptionError
        An array is missing or is not what was written.
    """
    if not (folder / "part.json").exists():
        return None
    meta = read_json(folder / "part.json")
    if OWN in meta and (not own_digest_fits(meta) or meta["name"] != folder.name):
        raise CorruptionError(
            f"{folder / 'part.json'} was edited, damaged, or moved here from {meta.get('name')}. Delete {folder}; the "
            "next pass makes it anew."
        )
    arrays = {}
    for name, digest in meta["arrays"].items():
        path = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, TokenError) as error:  # the last: NumPy reads headers of Python 2 word by word
            raise CorruptionError(
                f"{path} cannot be read ({error}). Delete {folder}; it is made anew by the next pass."
            ) from error
        if digest_array(arrays[name]) != digest or _goes_on(path, arrays[name]):
            raise CorruptionError(
                f"{path} is not what was written: its digest differs, or bytes follow it. Delete {folder}; the next "
                "pass makes it anew."
            )
    gene = GeneMoments(*(arrays[f"gene_{f}"] for f in ("count", "mean", "scatter", "available")))
    sample = SampleMoments(meta["n_genes"], arrays["sample_mean"], arrays["sample_triangle"])
    slices = {
        cast(Reference, r): TopSlices(*(arrays[f"slices_{r}_{f}"] for f in ("genes", "y", "offset", "delta")))
        for r in meta["slices"]
    }
    return BlockPart(arrays["usable"], gene, sample, slices)


def _goes_on(path: Path, mapped: Any) -> bool:
    """Whether a file is longer than the array that it begins with; an empty array is not mapped."""
    return isinstance(mapped, np.memmap) and 0 < mapped.nbytes != path.stat().st_size - mapped.offset


def _arrays(part: BlockPart) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {"usable": part.usable}
    arrays |= {f"gene_{f}": getattr(part.gene, f) for f in ("count", "mean", "scatter", "available")}
    arrays |= {"sample_mean": part.sample.mean, "sample_triangle": part.sample.triangle}
    for r, slices in part.slices.items():
        arrays |= {f"slices_{r}_{f}": getattr(slices, f) for f in ("genes", "y", "offset", "delta")}
    return arrays
