"""Opening files of predictions made elsewhere, whatever their format; several at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack._base.files import missing_file
from pertstack._base.reading.damage import damage_named
from pertstack._base.reading.dialects import PACKED
from pertstack._base.reading.remote import local
from pertstack.data.readers.anndata.tables import is_zarr_folder, refuse_packed
from pertstack.data.readers.cell_lists import as_anndata, cell_lists
from pertstack.data.rows import Float32
from pertstack.predictions.importers.readers.anndata_files import open_anndata_predictions, open_packed_predictions
from pertstack.predictions.importers.readers.dicts import open_json_predictions
from pertstack.predictions.importers.readers.files import NamedChunk, PredictionFile
from pertstack.predictions.importers.readers.named_files import prediction_files
from pertstack.predictions.importers.readers.npz import open_npz_predictions
from pertstack.predictions.importers.readers.pickles import open_pickle_predictions
from pertstack.predictions.importers.readers.tables import (
    open_arrow_predictions,
    open_csv_predictions,
    open_parquet_predictions,
)
from pertstack.predictions.store.align import names_index

FORMATS = ".h5ad, .zarr, .npz, .parquet, .csv, .tsv (also .gz), .arrow, .feather, .pkl, .json, .vcc, .h5ad.zst"


def as_paths(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """One path or several; each must exist. A folder stands for the predictions in it."""
    named = [local(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    listed = [file for path in named for file in (prediction_files(path) if path.is_dir() else [path])]
    if not listed:
        raise InputError("No file was named. Give one or more files of predictions.")
    for path in listed:
        if not path.exists():
            raise missing_file(path)
    return listed


def open_file(path: str | Path, *, layer: str | None = None, told: Collection[str] = ()) -> PredictionFile:
    """One file, by its suffix.

    Parameters
    ----------
    path : of the file.
    layer : AnnData: where the predictions are; None to find them.
    told : columns of tables that say what was done, by the user's word.

    Raises
    ------
    MissingFileError, InputError
        It is not there, its format is not known, or it is damaged (even if that shows only when rows are read).
    """
    path = as_paths(path)[0]
    with damage_named(path):
        file = _open(path, layer, told)

    def rows(n_rows: int) -> Iterator[Float32]:
        with damage_named(path):
            yield from file.rows(n_rows)

    return replace(file, rows=rows)


def _open(path: Path, layer: str | None, told: Collection[str]) -> PredictionFile:
    refuse_packed(path)
    name = path.name.casefold()
    name = name.removesuffix(next((p for p in PACKED if name.endswith(p)), ""))
    if name.endswith((".h5ad", ".h5", ".zarr")) or is_zarr_folder(path):
        return open_anndata_predictions(path, layer)
    if name.endswith((".vcc", ".h5ad.zst")):
        return open_packed_predictions(path, layer)
    if name.endswith(".json"):
        return open_json_predictions(path)
    if name.endswith(".npz"):
        return open_npz_predictions(path)
    if name.endswith((".parquet", ".pq")):
        if (columns := cell_lists(path)) is not None:
            return replace(open_anndata_predictions(as_anndata(path, columns), layer), path=path)
        return open_parquet_predictions(path, told)
    if name.endswith((".csv", ".tsv", ".tab", ".txt")):
        return open_csv_predictions(path, told)
    if name.endswith((".arrow", ".feather", ".ipc")):
        return open_arrow_predictions(path, told)
    if name.endswith((".pkl", ".pickle")):
        return open_pickle_predictions(path, told)
    raise InputError(
        f"{path}: the format of {path.suffix or 'this file'!r} is not known. Predictions may be {FORMATS}."
    )


def open_files(paths: str | Path | Iterable[str | Path], *, layer: str | None = None) -> list[PredictionFile]:
    """Several files of one model, such as one per fold or cell line; no sample may be in two of them."""
    files = [open_file(path, layer=layer) for path in as_paths(paths)]
    refuse_repeats(files)
    return files


def refuse_repeats(files: Sequence[PredictionFile]) -> None:
    """One prediction per sample."""
    index = names_index(i for f in files for i in f.sample_ids)
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        where = [str(f.path) for f in files if set(twice[:10]).intersection(f.sample_ids)]
        raise MisalignedError(
            f"{len(twice):,} samples are in more than one file: {first_few(twice)} (in {first_few(where)}). Which "
            f"prediction counts cannot be known. Pass each sample once."
        )


def open_predictions(
    paths: str | Path | Iterable[str | Path], *, layer: str | None = None, n_rows: int | None = None
) -> Iterator[NamedChunk]:
    """Named chunks of all files, a few rows at a time.

    Parameters
    ----------
    paths : one or several, of any known format.
    layer : AnnData: where the predictions are; None to find them.
    n_rows : of a chunk; None for as many as ``CHUNK_BYTES`` hold.
    """
    for file in open_files(paths, layer=layer):
        yield from file.chunks(n_rows)
