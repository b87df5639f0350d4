"""Which paths are files of predictions, by their names."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (
    ".h5ad",
    ".h5",
    ".zarr",
    ".npz",
    ".parquet",
    ".pq",
    ".csv",
    ".tsv",
    ".txt",
    ".arrow",
    ".feather",
    ".ipc",
    ".pkl",
    ".pickle",
    ".json",
    ".vcc",
    ".h5ad.zst",
)


def is_prediction_file(path: Path) -> bool:
    """By its suffix, or a zarr folder by what it holds.

    >>> is_prediction_file(Path("fold_0.h5ad")), is_prediction_file(Path("run.log"))
    (True, False)
    """
    name = path.name.casefold().removesuffix(".gz")
    if path.is_dir():
        return name.endswith(".zarr") or (path / "zarr.json").exists() or (path / ".zgroup").exists()
    if name.endswith(".json"):
        return "pred" in name  # folders of predictions also hold gene lists, splits, settings
    return name.endswith(SUFFIXES)
