"""Models and their files, as people name them: ``gears=out/fold_0.h5ad``, a list of files, a folder of folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pertstack._base.errors import InputError, MissingFileError, first_few
from pertstack._base.files import missing_file
from pertstack._base.reading.remote import local
from pertstack.predictions.importers.readers.formats import SUFFIXES, is_prediction_file

Paths = str | Path | Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]]
_PLAIN = {"adata", "all", "pred", "prediction", "predictions", "output"}
"""File names that say nothing of the model: the folder names it."""


def named_files(given: Paths) -> dict[str, list[Path]]:
    """Model -> its files. ``NAME=PATH`` names a model; else the file does, or its folder if all are called alike.

    Raises
    ------
    InputError
        No file, a folder without predictions, or two models of one name.
    MissingFileError
        Nothing lies at a path.
    """
    if isinstance(given, Mapping):
        pairs = [(str(n), [Path(p) for p in ([v] if isinstance(v, str | Path) else v)]) for n, v in given.items()]
    else:
        listed = [given] if isinstance(given, str | Path) else list(given)
        pairs = [_split(p) for p in listed]
    if not pairs:
        raise InputError("No prediction was named. Give one or more files of predictions, as NAME=FILE or FILE.")
    out: dict[str, list[Path]] = {}
    for name, paths in pairs:
        files = [f for path in paths for f in prediction_files(path)]
        if name in out:
            raise InputError(
                f"Two models are called {name!r}: {first_few([*out[name], *files], 4)}. Name them: "
                f"{name}_1={out[name][0]} {name}_2={files[0]}"
            )
        out[name] = files
    return out


def _split(value: str | Path) -> tuple[str, list[Path]]:
    text = str(value)
    name, equals, path = text.partition("=")
    if equals and name and "/" not in name and not Path(text).exists():
        return name, [local(path)]
    found = local(value)
    stem = found.name
    for suffix in (".gz", *SUFFIXES):
        stem = stem.removesuffix(suffix)
    for suffix in ("_predictions", "_prediction", "_pred"):
        stem = stem.removesuffix(suffix) or stem
    if stem.casefold() in _PLAIN and found.resolve().parent.name:
        stem = found.resolve().parent.name
    return stem, [found]


def prediction_files(path: Path) -> list[Path]:
    """The path itself, or the predictions in a folder (one file per fold)."""
    path = local(path)
    if not path.exists():
        raise missing_file(path)
    if not path.is_dir() or is_prediction_file(path):
        return [path]
    found = sorted(p for p in path.iterdir() if is_prediction_file(p))
    if not found:
        raise MissingFileError(
            f"{path} is a folder without files of predictions ({', '.join(SUFFIXES)}). Name the files themselves."
        )
    return found
