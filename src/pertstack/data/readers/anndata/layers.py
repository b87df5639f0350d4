"""The matrices of an AnnData file: X, ``raw`` and layers, by the names that people use for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.readers.anndata.tables import Kind, open_anndata_file
from pertstack.data.readers.matrices import RepeatedRow, RowSource, StoredRows

CONTROL = "control"
"""The layer of controls if the user names none."""
RAW = "raw"
"""The layer by which ``--treated-layer`` means ``data.raw``, unless a layer has that name."""
RAW_KEY = "raw/X"


@dataclass(frozen=True)
class Layers:
    """An open file: where it lies, how it is stored, and the layers it has."""

    path: Path
    kind: Kind
    root: Any
    layers: list[str]

    @classmethod
    def open(cls, path: Path) -> Layers:
        kind, root = open_anndata_file(path)
        return cls(path, kind, root, sorted(root["layers"].keys()) if "layers" in root else [])

    def layer(self, name: str) -> StoredRows | None:
        """The layer of this name, if there is one."""
        return StoredRows(self.path, self.kind, f"layers/{name}") if name in self.layers else None

    def matrix(self, layer: str | None, *, option: str) -> StoredRows:
        """X, or the layer that a user named by ``option``; ``raw`` is a layer's name unless a layer has it."""
        if layer is None:
            if "X" not in self.root:
                raise InputError(
                    f"{self.path} has no X. Treated profiles are in X, or in a layer named with {option} "
                    f"(layers here: {first_few(self.layers) if self.layers else 'none'})."
                )
            return StoredRows(self.path, self.kind, "X")
        if layer == RAW and RAW not in self.layers and RAW_KEY in self.root:
            return StoredRows(self.path, self.kind, RAW_KEY)
        found = self.layer(layer)
        if found is None:
            raise self.no_layer(layer, [*self.layers, *([RAW] if RAW_KEY in self.root else [])])
        return found

    def no_layer(self, name: str, layers: list[str]) -> InputError:
        """The error for a layer that is not here."""
        said = f"Unknown layer {name!r}: there are no layers at all."
        return InputError(f"{self.path}: {unknown_name('layer', name, layers) if layers else said}")

    def slots(self) -> dict[str, StoredRows]:
        """Every matrix beside X, by the name that ``--treated-layer`` takes."""
        keys = {name: f"layers/{name}" for name in self.layers} | ({RAW: RAW_KEY} if RAW_KEY in self.root else {})
        return {name: StoredRows(self.path, self.kind, key) for name, key in keys.items()}


def by_columns(file: Layers) -> list[Finding]:
    """A warning for matrices stored by columns (CSC): every chunk of rows then costs a pass over the whole matrix."""
    keys = [k for k in ("X", *(f"layers/{name}" for name in file.layers)) if k in file.root]
    slow = [k for k in keys if file.root[k].attrs.get("encoding-type") == "csc_matrix"]
    if not slow:
        return []
    message = (
        f"{first_few(slow)} of {file.path.name} are stored by columns (CSC), so reading rows is slow and needs much "
        f"memory. Convert them once: data.X = data.X.tocsr()."
    )
    return [
        Finding("warning", "stored_by_columns", message, count=len(slow), examples=tuple(slow), where=str(file.path))
    ]


def control_of(file: Layers, layer: str, *, rows: str) -> RowSource:
    """The control of every sample, in the layer that holds it.

    Parameters
    ----------
    file : where it is.
    layer : as the user named it; "X" for X.
    rows : why no row is known as a control, and what to write, for the message.

    Raises
    ------
    InputError
        There is no such layer.
    """
    if layer == "X":
        return file.matrix(None, option="--control-layer")
    found = file.layer(layer)
    if found is not None:
        return found
    if layer != CONTROL:
        raise file.no_layer(layer, file.layers)
    named = f" (the layers are {first_few(file.layers)})" if file.layers else ""
    raise InputError(
        f"{file.path} says no control, and every treated sample needs one, because models start from it and scores "
        f"compare with it. {rows} Or name the layer that holds the control of every sample with "
        f"--control-layer{named}; or, when values are already differences (z-scores, log fold changes), say --delta."
    )


def no_control(file: Layers, treated: RowSource, control_layer: str) -> RowSource:
    """The control of values that are differences: zero.

    Parameters
    ----------
    file : must not have the layer of controls.
    treated : the differences, (n, n_genes).
    control_layer : as the user named it.

    Raises
    ------
    InputError
        The file has controls.
    """
    if control_layer in file.layers:
        raise InputError(
            f"{file.path} was opened with --delta (values are differences), but it has a layer {control_layer!r}. Drop "
            f"--delta to use the control, or give --control-layer '' when X really holds differences."
        )
    samples, genes = treated.shape
    return RepeatedRow(np.zeros(genes, dtype=np.float32), samples)
