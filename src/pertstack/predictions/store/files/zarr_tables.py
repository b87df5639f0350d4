"""Sample tables as AnnData lays them out in Zarr 3, written and read without either: one small file per part.

A study has dozens of blocks of some hundred tiny arrays, and a general writer spends milliseconds on each. What is
written here any AnnData reads; what is read here is only what was written so, and everything else is left to AnnData.
Encodings: https://anndata.readthedocs.io/en/stable/fileformat-prose.html (dataframe 0.2.0, categorical 0.2.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import CorruptionError
from pertstack._base.reading.damage import MODEST

Values = np.ndarray[Any, Any]
_NULLABLE = {"nullable-integer": pd.arrays.IntegerArray, "nullable-boolean": pd.arrays.BooleanArray}
_PLAIN = {"bool", *(f"{kind}{8 * size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)), "float32", "float64"}


def write_group(path: Path, kind: str, version: str, **attributes: Any) -> None:
    """An empty group, (folder with) ``zarr.json``.

    Parameters
    ----------
    path : folder to make.
    kind, version : AnnData's encoding.
    **attributes : plain JSON.
    """
    path.mkdir(parents=True)
    attributes |= {"encoding-type": kind, "encoding-version": version}
    _write_json(path, {"attributes": attributes, "zarr_format": 3, "node_type": "group"})


def can_write(table: pd.DataFrame) -> bool:
    """Whether every column is a category of words, a plain number or truth value, or one that may be missing."""
    return all(_kind(column) is not None for _, column in table.items())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A data frame with words for an index, columns as ``can_write`` wants them."""
    order = [str(name) for name in table.columns]
    write_group(path, "dataframe", "0.2.0", **{"column-order": order, "_index": "_index"})
    _write_words(path / "_index", np.asarray(table.index, dtype=object))
    for name, column in table.items():
        target, kind = path / str(name), _kind(column)
        if kind == "categorical":
            write_group(target, kind, "0.2.0", ordered=bool(column.cat.ordered))
            _write_words(target / "categories", np.asarray(column.cat.categories, dtype=object))
            _write_numbers(target / "codes", column.cat.codes.to_numpy())
        elif kind in _NULLABLE:
            write_group(target, kind, "0.1.0", **{"na-value": "NA"})
            missing = column.isna().to_numpy()
            _write_numbers(target / "values", column.array._data)
            _write_numbers(target / "mask", missing)
        else:
            _write_numbers(target, column.to_numpy())


def read_table(path: Path) -> pd.DataFrame | None:
    """The data frame that ``write_table`` wrote; None if something is not as it would have written it.

    Raises
    ------
    CorruptionError
        A part of it declares another number of values than it holds.
    """
    try:
        facts = _read_json(path)["attributes"]
        if facts["encoding-type"] != "dataframe":
            return None
        index = _read_array(path / facts["_index"])
        columns = {name: _read_column(path / name) for name in facts["column-order"]}
    except CorruptionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None  # whoever reads it with AnnData learns what is wrong
    if any(len(values) != len(index) for values in columns.values()):
        return None
    return pd.DataFrame(columns, index=pd.Index(index, dtype=object), columns=facts["column-order"])


def _kind(column: pd.Series[Any]) -> str | None:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "categorical" if all(isinstance(c, str) for c in column.cat.categories) else None
    if isinstance(column.array, pd.arrays.BooleanArray):
        return "nullable-boolean"
    if isinstance(column.array, pd.arrays.IntegerArray):
        return "nullable-integer"
    return "array" if isinstance(column.dtype, np.dtype) and column.dtype.name in _PLAIN else None


def _write_numbers(path: Path, values: Values) -> None:
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}] if values.itemsize > 1 else [{"name": "bytes"}]
    fill: Any = False if values.dtype == bool else 0 if values.dtype.kind in "iu" else 0.0
    _write_array(
        path,
        values.dtype.name,
        len(values),
        codecs=codecs,
        fill=fill,
        encoding=("array", "0.2.0"),
        data=little.tobytes(),
    )


def _write_words(path: Path, words: Values) -> None:
    from numcodecs import VLenUTF8

    data = bytes(VLenUTF8().encode(words)) if len(words) else b""
    codecs = [{"name": "vlen-utf8", "configuration": {}}]
    _write_array(path, "string", len(words), codecs=codecs, fill="", encoding=("string-array", "0.2.0"), data=data)


def _write_array(
    path: Path, dtype: str, n: int, codecs: list[dict[str, Any]], fill: Any, encoding: tuple[str, str], data: bytes
) -> None:
    """One chunk, packed."""
    from numcodecs import Zstd

    (path / "c").mkdir(parents=True)
    zstd = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
    meta = {
        "shape": [n],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(n, 1)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [*codecs, zstd],
        "attributes": dict(zip(("encoding-type", "encoding-version"), encoding, strict=True)),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    _write_json(path, meta)
    if n:
        (path / "c" / "0").write_bytes(bytes(Zstd(level=0).encode(data)))


def _read_column(path: Path) -> Any:
    meta = _read_json(path)
    if meta["node_type"] == "array":
        return _read_array(path, meta)
    kind = meta["attributes"]["encoding-type"]
    if kind == "categorical":
        codes, categories = _read_array(path / "codes"), _read_array(path / "categories")
        return pd.Categorical.from_codes(codes, pd.Index(categories), ordered=bool(meta["attributes"]["ordered"]))
    return _NULLABLE[kind](_read_array(path / "values"), _read_array(path / "mask"))


def _read_array(path: Path, meta: dict[str, Any] | None = None) -> Values:
    """Values of an array of one chunk; one that is not there holds the fill value throughout. ``meta``: its
    ``zarr.json``, if that was read."""
    from numcodecs import VLenUTF8, Zstd

    meta = _read_json(path) if meta is None else meta
    if meta["attributes"]["encoding-type"] not in ("array", "string-array"):
        raise ValueError(f"{path} is no array as AnnData has them")
    (n,), chunk = meta["shape"], meta["chunk_grid"]["configuration"]["chunk_shape"]
    first, *packing = (codec["name"] for codec in meta["codecs"])
    words = meta["data_type"] == "string"
    if chunk != [max(n, 1)] or packing != ["zstd"] or first != ("vlen-utf8" if words else "bytes"):
        raise ValueError(f"{path} is laid out otherwise")
    dtype = object if words else np.dtype(meta["data_type"]).newbyteorder("<")
    file = path / "c" / "0"
    if not n or not file.exists():
        _believe(path, n <= MODEST, f"declares {n:,} values and holds none")
        return np.full(n, meta["fill_value"], dtype=dtype)
    data = Zstd().decode(file.read_bytes())
    told = int.from_bytes(data[:4], "little") if words else n
    _believe(path, told == n, f"holds {told:,} texts, not {n:,}")
    values = VLenUTF8().decode(data) if words else np.frombuffer(data, dtype=dtype).astype(meta["data_type"])
    if len(values) != n:
        raise ValueError(f"{path} holds {len(values)} values, not {n}")
    return np.asarray(values)


def _believe(path: Path, fits: bool, why: str) -> None:
    """A number of values that does not fit is not passed on to AnnData: room would be made for them first."""
    if not fits:
        raise CorruptionError(f"{path} {why}: it was damaged or changed. Restore it from a copy.")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    (path / "zarr.json").write_text(json.dumps(value), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    return found
