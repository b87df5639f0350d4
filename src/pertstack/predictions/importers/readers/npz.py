"""Predictions in .npz files: ``predictions`` with ``gene_names``, and ``sample_ids`` or what was done, streamed
straight out of the archive; or one array for each perturbation.

Files without ids (the MERGE style) are recovered in ``merge``. Python objects are read by the restricted unpickler.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError
from pertstack._base.reading.damage import MODEST, require_modest_members
from pertstack._base.reading.tried_first import tried_first
from pertstack._base.reading.unpickle import load_object_array
from pertstack.data.rows import Float32
from pertstack.predictions.importers.cards import CARD_KEYS, read_card
from pertstack.predictions.importers.readers.anndata_files import plain
from pertstack.predictions.importers.readers.dicts import GENES, from_dict
from pertstack.predictions.importers.readers.files import PredictionFile, check_shape, names_of
from pertstack.predictions.importers.readers.named_arrays import IDS, VALUES, NamedArrays

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)
NAMES, HEADER = 10**8, 10**6
"""Bytes of an array that is read whole, unless as much is packed, and of the header of any."""
META_KEYS = ("model_version", "training_params", "timestamp")


class Archive:
    """An .npz file: small arrays whole, large ones by rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        except _DAMAGE as error:
            raise InputError(f"{path} cannot be read as .npz: {error}. Write it with numpy.savez.") from error

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """One array, whole; texts that numpy saved as Python objects are read without running any code."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                shape, _, dtype = _npy_header(stream, self.path, name)
                if dtype.hasobject:
                    tried_first(self.path, f"{__name__}:read_objects")
                    return self._objects(load_object_array(stream, self.path), name, shape)  # type: ignore[arg-type]
            require_modest_members(self.path, [name], most=NAMES)
            with np.load(self.path, allow_pickle=False) as archive:
                return np.asarray(archive[name])
        except _DAMAGE as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged(name, error) from error

    def _objects(self, found: Any, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        kinds = (str, int, float, bool, type(None), np.generic)
        if (
            not isinstance(found, np.ndarray)
            or found.shape != shape
            or not all(isinstance(v, kinds) for v in found.flat)
        ):
            raise InputError(
                f"{self.path}: {name!r} holds other Python objects than texts and numbers. Save it as "
                f"np.asarray(list({name}), dtype=str)."
            )
        return found

    def _damaged(self, name: str, error: BaseException) -> InputError:
        return InputError(f"{self.path}: {name!r} cannot be read ({error}). It is damaged; copy or write it again.")

    def shape(self, name: str) -> tuple[int, ...]:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                return _header(stream, self.path, name)[0]
        except _DAMAGE as error:
            if isinstance(error, InputError):
                raise
            raise self._damaged(name, error) from error

    def are_profiles(self) -> bool:
        """Whether every array but a list of genes is one row of numbers: a profile for each perturbation."""
        found = []
        with zipfile.ZipFile(self.path) as archive:
            for name in self.names:
                with archive.open(f"{name}.npy") as stream:
                    shape, _, dtype = _npy_header(stream, self.path, name)
                    found.append(name in GENES or (len(shape) == 1 and dtype.kind in "fiu"))
        return any(n not in GENES for n in self.names) and all(found)

    def rows(self, name: str, n_rows: int) -> Iterator[Float32]:
        """Rows of a two-dimensional array as float32, read forward once."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
            shape, fortran, dtype = _header(stream, self.path, name)
            if fortran:
                yield from self._turned(stream, name, shape, dtype, n_rows)
                return
            row_bytes = shape[1] * dtype.itemsize
            for start in range(0, shape[0], n_rows):
                n = min(n_rows, shape[0] - start)
                raw = _read_exactly(stream, n * row_bytes, self.path)
                with np.errstate(over="ignore"):
                    yield np.frombuffer(raw, dtype).reshape(n, shape[1]).astype(np.float32)

    def _turned(
        self, stream: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], n_rows: int
    ) -> Iterator[Float32]:
        """Rows of an array that is stored column by column, as pandas hands its values out: read whole if it may."""
        n_bytes = shape[0] * shape[1] * dtype.itemsize
        if n_bytes > MODEST:
            raise InputError(
                f"{self.path}: {name!r} is stored column by column and has {n_bytes:,} bytes, so its rows cannot be "
                f"streamed. Save it with np.ascontiguousarray({name})."
            )
        require_modest_members(self.path, [name])
        whole = np.frombuffer(_read_exactly(stream, n_bytes, self.path), dtype).reshape(shape, order="F")
        for start in range(0, shape[0], n_rows):
            with np.errstate(over="ignore"):
                yield np.ascontiguousarray(whole[start : start + n_rows], dtype=np.float32)


def read_objects(path: Path) -> None:
    """Unpickle every array of Python objects in an archive: for a child process."""
    for name in Archive(path).names:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            if _npy_header(stream, path, name)[2].hasobject:
                load_object_array(stream, path)  # type: ignore[arg-type]


class _Short:
    """A stream of which a header is read: its length stands in front of it and may say four gigabytes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, n_bytes: int) -> bytes:
        if n_bytes > HEADER:
            raise ValueError(f"its header is said to have {n_bytes:,} bytes")
        return bytes(self._stream.read(n_bytes))


def _npy_header(stream: Any, path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        stream = _Short(stream)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: {name!r} is not a numpy array: {error}.") from error
    return shape, fortran, dtype


def _header(stream: Any, path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    shape, fortran, dtype = _npy_header(stream, path, name)
    if dtype.hasobject or dtype.kind not in "fiu" or len(shape) != 2:
        raise InputError(f"{path}: {name!r} is {dtype} {shape}; numbers, samples × genes, are expected.")
    return shape, fortran, dtype


def _read_exactly(stream: Any, n_bytes: int, path: Path) -> bytes:
    pieces, left = [], n_bytes
    while left:
        try:
            piece = stream.read(min(left, 1 << 26))
        except _DAMAGE as error:
            raise InputError(f"{path} is damaged: {error}. Copy or write it again.") from error
        if not piece:
            raise InputError(f"{path} ends early: it was not written completely. Copy or write it again.")
        pieces.append(piece)
        left -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def open_npz_predictions(path: Path) -> PredictionFile:
    """Names and a row reader of an .npz file.

    Raises
    ------
    InputError
        Values or names are not there, or an array holds other objects than texts.
    """
    archive = Archive(path)
    if not {*VALUES, *IDS}.intersection(archive.names) and archive.are_profiles():
        return from_dict({n: archive.array(n) for n in archive.names}, path)
    named = NamedArrays.among(archive.names, path)
    shape = archive.shape(named.values)
    sample_ids, obs = named.rows(archive.array, shape[0], path)
    gene_names = names_of(archive.array(named.genes), named.genes, path)
    check_shape(path, shape, sample_ids, gene_names=gene_names)
    folds = archive.array("fold_assignments") if "fold_assignments" in archive.names else None
    if folds is not None and folds.shape != (len(sample_ids),):
        raise InputError(f"{path}: fold_assignments has shape {folds.shape} for {len(sample_ids):,} samples.")
    meta = {key: plain(archive.array(key)) for key in META_KEYS if key in archive.names}
    in_file = next((key for key in CARD_KEYS if key in archive.names), None)
    card = None if in_file is None else read_card(archive.array(in_file), f"{path}: {in_file!r}")
    return PredictionFile(
        path,
        sample_ids,
        gene_names,
        rows=lambda n: archive.rows(named.values, n),
        folds=folds,
        meta=meta,
        card=card,
        obs=obs,
    )
