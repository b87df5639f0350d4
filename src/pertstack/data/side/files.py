"""Side information on disk: reading users' feature, target and edge files; keeping a study's own in ``side/``.

Only plain arrays and texts are written and read: no pickle.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pertstack._base.errors import CorruptionError, InputError, MissingFileError, first_few
from pertstack._base.files import write_atomic
from pertstack._base.reading.damage import require_modest_members
from pertstack._base.reading.dialects import is_number, text_of_bytes
from pertstack._base.reading.tables import as_names, counts_rows, is_text, plain_texts, read_table
from pertstack._base.reading.text_tables import UNNAMED, text_table
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.readers.columns.genes import without_version
from pertstack.data.side.side import FEATURE_KINDS, FeatureKind, GeneGraph, PerturbationFeatures, SideInformation

Pairs = np.ndarray[Any, np.dtype[np.int64]]

_NAME_COLUMNS = (
    "perturbation",
    "pert_id",
    "pert_iname",
    "cmap_name",
    "compound",
    "drug",
    "name",
    "index",
    "Unnamed: 0",
)
_BETWEEN = re.compile(r"[;|,/+]")
"""What stands between the target genes of one perturbation."""


def save_side(folder: str | Path, side: SideInformation) -> None:
    """Write ``features_<kind>.npz`` per kind and ``graph.npz`` into a folder, each whole or not at all."""
    folder = Path(folder)
    for kind, table in side.features.items():
        _save_npz(
            folder / f"features_{kind}.npz",
            {
                "perturbations": np.array(table.perturbations, dtype=str),
                "columns": np.array(table.columns, dtype=str),
                "matrix": table.matrix,
                "known": table.known,
            },
        )
    if side.graph is not None:
        _save_npz(
            folder / "graph.npz", {"gene_names": np.array(side.graph.gene_names, dtype=str), "edges": side.graph.edges}
        )


def load_side(folder: str | Path) -> SideInformation:
    """Read what ``save_side`` wrote; a folder without any gives empty side information."""
    folder = Path(folder)
    kinds: dict[FeatureKind, PerturbationFeatures] = {}
    for kind in FEATURE_KINDS:
        path = folder / f"features_{kind}.npz"
        if path.exists():
            z = _load_npz(path, ("perturbations", "columns", "matrix", "known"))
            names, columns = tuple(z["perturbations"].tolist()), tuple(z["columns"].tolist())
            kinds[kind] = PerturbationFeatures(kind, names, columns, matrix=z["matrix"], known=z["known"])
    graph = None
    if (folder / "graph.npz").exists():
        z = _load_npz(folder / "graph.npz", ("gene_names", "edges"))
        graph = GeneGraph(tuple(z["gene_names"].tolist()), z["edges"])
    return SideInformation(kinds, graph)


def _save_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_atomic(path, stream.getvalue())


def _load_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptionError(
            f"{path} cannot be read ({error}). It was written by `pertstack init`; run it again."
        ) from error


def read_features(path: Path) -> pd.DataFrame:
    """Numbers keyed by perturbation: index perturbation (str, unique), columns features, float32."""
    if path.suffix == ".npz":
        return _features_npz(path)
    if is_text(path):
        return _features_text(path)
    table = read_table(path)
    column = column_of(table.columns, _NAME_COLUMNS)
    if column is not None or isinstance(table.index, pd.RangeIndex):
        column = column if column is not None else table.columns[0]
        table = table.set_index(as_names(table[column])).drop(columns=column)
    table.index = table.index.astype(str)
    words = [str(c) for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if words:
        raise InputError(
            f"{path}: the columns {first_few(words)} are not numbers. Features are numbers in every column but the "
            f"first (the perturbation); encode words first."
        )
    return _unique(table, path)


def _features_text(path: Path) -> pd.DataFrame:
    """The perturbation is in a column known by its name, else in the first that does not count the rows."""
    table = text_table(path)
    columns = list(table.columns)
    if columns[0] == UNNAMED and len(columns) > 2:
        counted = [c for part in table.batches([UNNAMED]) for c in part.column(0).to_pylist()]
        columns = columns[1:] if counts_rows(counted) else columns
    column = column_of(columns, _NAME_COLUMNS) or columns[0]
    rest = [c for c in columns if c != column]
    _refuse_no_header(path, column, rest, table.decimal)
    parts = [plain_texts(part.to_pandas()) for part in table.batches([column, *rest], numbers=rest, kind=pa.float64())]
    if not parts or not rest:
        raise InputError(f"{path} has {len(parts) and len(parts[0])} rows and {len(rest)} columns of numbers.")
    return _unique(pd.concat(parts).set_index(column), path)


def _refuse_no_header(path: Path, first: str, rest: list[str], decimal: str) -> None:
    """Refuse a table whose first line is a perturbation and its features, and no names of columns."""
    if rest and all(is_number(c, decimal) for c in rest) and not all(c.isdigit() for c in rest):
        raise InputError(
            f"{path} has no line with the names of its columns: its first line is {first!r} and numbers "
            f'({first_few(rest, 2)}). Write one: python -c "import pandas; t = pandas.read_csv({str(path)!r}, '
            f"header=None, index_col=0, sep=None, engine='python').add_prefix('f'); "
            f"t.to_csv('named.csv', index_label='perturbation')\", then --features named.csv."
        )


def _features_npz(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise MissingFileError(f"{path} does not exist. Check the path.")
    require_modest_members(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file["perturbations"]
            matrix = file["matrix"]
            columns = file["columns"] if "columns" in file else [f"f{i:04d}" for i in range(matrix.shape[1])]
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read as features: {error}. An npz holds `perturbations` (texts) and `matrix` (n, "
            f"n_features); texts must be saved as np.array(names, dtype=str), not as Python objects."
        ) from error
    if matrix.ndim != 2 or len(names) != len(matrix):
        raise InputError(f"{path}: {len(names):,} names do not fit a matrix of shape {matrix.shape}.")
    keys = [text_of_bytes(n) if isinstance(n, bytes) else str(n) for n in names]
    return _unique(pd.DataFrame(matrix, index=keys, columns=[str(c) for c in columns]), path)


def _unique(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    repeated = table.index[table.index.duplicated()].unique()
    if len(repeated):
        raise InputError(
            f"{path}: {len(repeated):,} perturbations occur more than once: {first_few(repeated)}. Keep one row of "
            f"each."
        )
    return table.astype(np.float32)


def read_targets(path: Path) -> dict[str, tuple[str, ...]]:
    """Perturbation -> target genes from a CSV / parquet table or a JSON object."""
    if path.suffix == ".json":
        try:
            value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
        except FileNotFoundError as error:
            raise MissingFileError(f"{path} does not exist. Check the path.") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{path}: {error}") from error
            raise InputError(f"{path} is not valid JSON: {error}.") from error
        return targets_of(value, str(path))
    return targets_of(read_table(path), str(path))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which a name may stand once: the last one would hide the others."""
    twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
    if twice:
        raise InputError(f"{first_few(twice)} occurs more than once. Put all that is said of a name in one list.")
    return dict(pairs)


def targets_of(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Targets from a table (columns perturbation and gene) or a mapping perturbation -> genes; {} for None."""
    if value is None:
        return {}
    pairs: list[tuple[str, Any]]
    if isinstance(value, pd.DataFrame):
        name = column_of(value.columns, _NAME_COLUMNS)
        gene = column_of(value.columns, ("gene", "target", "targets", "gene_symbol", "symbol", "genes"))
        if name is None or gene is None:
            raise InputError(
                f"{where} has columns {first_few(value.columns)}, but needs 'perturbation' and 'gene'. Rename them."
            )
        pairs = list(zip(as_names(value[name]).astype(str), as_names(value[gene]), strict=True))
    elif isinstance(value, Mapping):
        pairs = [(str(k), v) for k, v in value.items()]
    else:
        raise InputError(
            f"{where} is neither a table nor a mapping of perturbations to genes, but {type(value).__name__}."
        )
    found: dict[str, dict[str, None]] = {}
    for name, genes in pairs:
        parts = _BETWEEN.split(genes.strip().strip("[]()")) if isinstance(genes, str) else _listed(genes)
        plain = (without_version(str(g).strip().strip("'\"")) for g in parts)
        found.setdefault(name, {}).update(dict.fromkeys(g for g in plain if g))
    return {name: tuple(genes) for name, genes in found.items()}


def _listed(value: Any) -> list[Any]:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return []
    return list(value) if isinstance(value, list | tuple | np.ndarray | pd.Series) else [value]
