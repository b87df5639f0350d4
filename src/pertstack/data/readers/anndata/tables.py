"""Opening an AnnData file and its tables obs and var, whatever version wrote it; what is in the way is named.

Shared by the readers of data and of predictions.
"""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, StackingError, first_few
from pertstack._base.reading.damage import damage_named, require_modest
from pertstack._base.reading.dialects import text_of_bytes
from pertstack._base.reading.tables import plain_texts
from pertstack._base.reading.tried_first import tried_first
from pertstack.data.readers.matrices import open_root

Kind = Literal["hdf5", "zarr"]
WALK = "pertstack._base.reading.walk_hdf5:walk"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
USED_OF_UNS = ("targets", "graph")
"""What is read of ``uns``; whatever else lies there is never opened."""
_HINT = "Is it a complete AnnData file? Try `python -c \"import anndata; print(anndata.read_h5ad('FILE'))\"`."


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder is a zarr group, of format 2 or 3, whatever it is called."""
    return path.is_dir() and ((path / ".zgroup").exists() or (path / "zarr.json").exists())


def refuse_packed(path: Path) -> None:
    """AnnData files must lie unpacked, because rows are read where they are; says how to unpack.

    Raises
    ------
    InputError
        ``.h5ad.gz``, ``.zarr.zip`` or another packed AnnData file.
    """
    name = path.name.casefold()
    if name.endswith((".h5ad.gz", ".h5.gz", ".gctx.gz")):
        raise InputError(
            f"{path} is packed, but rows of HDF5 files are read where they lie: unpack it with `gunzip --keep {path}` "
            f"and provide {path.with_suffix('')}."
        )
    if name.endswith(".zip") and path.is_file():
        target = path.with_suffix("")
        inner = _top_folder(path)
        raise InputError(
            f"{path} is packed, but rows of zarr folders are read where they lie: unpack it with `python -m zipfile "
            f"-e {path} {target}` and provide {target / inner if inner else target}."
        )


def _top_folder(path: Path) -> str:
    """The one folder that holds everything in a zip archive, or none."""
    try:
        with zipfile.ZipFile(path) as archive:
            tops = {n.split("/", 1)[0] for n in archive.namelist()}
            return tops.pop() if len(tops) == 1 and "/" in "".join(archive.namelist()[:1]) else ""
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a zip archive: {error}. Copy it again.") from error


def open_anndata_file(path: Path) -> tuple[Kind, Any]:
    """How an AnnData file is stored, and its root group.

    Raises
    ------
    InputError
        Packed, locked by another program, damaged, or without obs and var.
    """
    refuse_packed(path)
    kind: Kind = "zarr" if path.is_dir() else "hdf5"
    if kind == "hdf5":
        tried_first(path, WALK)
    try:
        root = open_root(path, kind)
        names = set(root.keys())
        flat = [n for n in ("layers", "obsm", "uns") if n in names and not hasattr(root[n], "keys")]
    except StackingError:
        raise
    except _UNREADABLE as error:
        if is_locked(error):
            raise locked(path) from error
        what = "an HDF5 (.h5ad) file" if kind == "hdf5" else "a zarr group"
        raise InputError(f"{path} cannot be read as AnnData: it is not {what} ({error}). {_HINT}") from error
    if flat:  # to look for a name in an array is to go through all that it declares
        raise InputError(
            f"{path}: {first_few(flat)} holds an array where AnnData has a group. The file is damaged, or was not "
            f"written by AnnData; write it again where it was made."
        )
    missing = {"obs", "var"} - names
    if missing:
        raise InputError(
            f"{path} is no AnnData file: it lacks {first_few(sorted(missing))} and has {first_few(sorted(names))}."
        )
    return kind, root


def open_foreign(path: Path, kind: Kind) -> Any:
    """The root group of a file that somebody else wrote: HDF5 is walked through in a child process first."""
    if kind == "hdf5":
        tried_first(path, WALK)
    return open_root(path, kind)


def is_locked(error: BaseException) -> bool:
    """Whether HDF5 did not open a file because another program holds a lock on it."""
    return isinstance(error, OSError) and (error.errno in (errno.EAGAIN, errno.EACCES) and "lock" in str(error))


def locked(path: Path) -> InputError:
    """The refusal of a file that another program holds."""
    return InputError(
        f"{path} is locked by another program, which may be writing to it (a notebook that opened it, for example). "
        f"Close it there. If nothing writes to the file, or the file system has no locks, set the variable "
        f"HDF5_USE_FILE_LOCKING=FALSE before the command: `HDF5_USE_FILE_LOCKING=FALSE pertstack ...`."
    )


def read_frame(root: Any, name: str, path: Path) -> pd.DataFrame:
    """The table obs or var.

    Parameters
    ----------
    root : the opened file or folder.
    name : "obs" or "var".
    path : of the file, for messages.

    Raises
    ------
    InputError
        It cannot be read, or is no table.
    """
    try:
        element = root[name]
        if getattr(getattr(element, "dtype", None), "names", None):
            require_modest(element, path)
            return _of_records(element[()], root.get("uns", {}))
        table = _table(element, path)
    except StackingError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            f"{path}: the table {name!r} cannot be read: {error}. Write the file again with a current anndata: "
            f"anndata.read_h5ad(FILE).write_h5ad(NEW)."
        ) from error
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{path}: {name!r} is no table but {type(table).__name__}.")
    return table


def _table(element: Any, path: Path) -> Any:
    """What ``anndata.io.read_elem`` reads, a column at a time if the format allows it: repeated texts then fill the
    memory for one column only."""
    require_modest(element, path)
    facts = getattr(element, "attrs", {})
    if (facts.get("encoding-type"), facts.get("encoding-version")) != ("dataframe", "0.2.0"):
        return _with_shared_texts(read_whole(element, path))
    names, index = [str(n) for n in facts["column-order"]], str(facts["_index"])
    columns = {n: _with_shared_texts(pd.DataFrame({n: read_whole(element[n], path)}))[n].array for n in names}
    rows = pd.Index(read_whole(element[index], path), name=None if index == "_index" else index)
    return pd.DataFrame(columns, index=rows, columns=names or None)


def _with_shared_texts(table: Any) -> Any:
    """The same texts, equal ones as one object: a name in a million rows is kept once."""
    if not isinstance(table, pd.DataFrame):
        return table
    table = plain_texts(table)
    for column in table:
        if table[column].dtype == object:
            table[column] = _shared(table[column].to_numpy())
    return table


def _shared(values: Any) -> Any:
    first: dict[str, str] = {}
    return np.array([first.setdefault(v, v) if isinstance(v, str) else v for v in values] or values, dtype=object)


def read_whole(element: Any, path: Path) -> Any:
    """What ``anndata.io.read_elem`` reads, if it does not declare more than the file can hold."""
    from anndata.io import read_elem

    require_modest(element, path)
    return read_elem(element)


def _of_records(records: np.ndarray[Any, Any], uns: Any) -> pd.DataFrame:
    """obs or var as anndata before 0.7 wrote them: records, with the categories of a column in ``uns``."""
    columns: dict[str, Any] = {}
    for column in records.dtype.names:
        values = records[column]
        if f"{column}_categories" in uns:
            words = [_plain(w) for w in np.atleast_1d(uns[f"{column}_categories"][()])]
            codes = values.astype(np.int64)
            if codes.max(initial=-1) >= len(words):
                raise ValueError(f"column {column!r} has codes beyond its {len(words)} categories")
            values = np.array([words[c] if c >= 0 else None for c in codes], dtype=object)
        elif values.dtype.kind in "SO":
            values = np.array([_plain(v) for v in values], dtype=object)
        columns[str(column)] = values
    index = next((c for c in ("index", "_index") if c in columns), next(iter(columns)))
    names = columns.pop(index)
    return pd.DataFrame(columns, index=pd.Index([str(n) for n in names], dtype=object))


def _plain(value: Any) -> Any:
    return text_of_bytes(value) if isinstance(value, bytes) else value


__all__ = [
    "Kind",
    "is_locked",
    "is_zarr_folder",
    "locked",
    "open_anndata_file",
    "read_frame",
    "read_whole",
    "refuse_packed",
]


class UnsReader:
    """Reads what is used of ``uns`` when asked; can be handed to another process."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path, self.kind = path, kind

    def __call__(self) -> dict[str, Any]:
        with damage_named(self.path):
            root = open_root(self.path, self.kind)
            uns = root.get("uns", {})
            return {key: read_whole(uns[key], self.path) for key in USED_OF_UNS if key in uns}
