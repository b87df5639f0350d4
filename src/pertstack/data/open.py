"""One door for every format: ``open_data`` looks at the path and hands over to the reader that knows it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from pertstack._base.errors import InputError, MissingFileError
from pertstack.data.file import DataFile


def open_data(
    path: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    control_layer: str = "control",
    treated_layer: str | None = None,
    delta: bool = False,
) -> DataFile:
    """Open a data file for reading in chunks.

    Parameters
    ----------
    path
        ``.h5ad`` file or ``.zarr`` folder.
    mapping
        Canonical column -> source column (``{"cell_line": "cell_id"}``), ``const:VALUE`` or ``none``.
    control_layer
        Layer with the control profile of every sample.
    treated_layer
        Layer with the treated profiles; None is X.
    delta
        The values already are differences to control: the control is zero.

    Raises
    ------
    MissingFileError
        Nothing lies at ``path``; near names in the same folder are shown.
    InputError
        The file cannot be read, lacks a layer or column, or holds units nobody knows.
    """
    path = Path(path)
    if not path.exists():
        raise missing_file(path)
    if path.suffix in {".h5ad", ".zarr"} or path.is_dir():
        from pertstack.data.anndata_reader import open_anndata

        return open_anndata(
            path, mapping=mapping, control_layer=control_layer, treated_layer=treated_layer, delta=delta
        )
    raise InputError(f"{path}: files of kind {path.suffix or 'without suffix'!r} are not known. Known: .h5ad, .zarr.")


def missing_file(path: Path) -> MissingFileError:
    """The error for a path that does not exist, with near names from the same folder."""
    folder = path.parent
    if not folder.is_dir():
        return MissingFileError(f"{path} does not exist: there is no folder {folder} either. Check the path.")
    near = get_close_matches(path.name, [p.name for p in folder.iterdir()], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(str(folder / n)) for n in near)}?" if near else " Check the path."
    return MissingFileError(f"{path} does not exist.{hint}")
