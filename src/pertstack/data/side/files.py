"""Side information on disk: reading users' feature, target and edge files; keeping a study's own in ``side/``.

Only plain arrays and texts are written and read: no pickle.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pertstack._base.errors import CorruptionError, InputError, MissingFileError, first_few
from pertstack._base.files import write_atomic
from pertstack._base.reading.tables import as_names, counts_rows, is_text, read_table
from pertstack._base.reading.text_tables import UNNAMED, text_table
from pertstack.data.side.gene_names import Names, is_string, names_beside, names_of_table, read_string, translate
from pertstack.data.side.side import FEATURE_KINDS, FeatureKind, GeneGraph, PerturbationFeatures, SideInformation

Pairs = np.ndarray[Any, np.dtype[np.int64]]

_PAIR_COLUMNS = (
    ("gene_a", "gene_b"),
    ("symbol_a", "symbol_b"),
    ("preferredName_A", "preferredName_B"),
    ("Official Symbol Interactor A", "Official Symbol Interactor B"),
    ("gene1", "gene2"),
    ("source", "target"),
    ("protein1", "protein2"),
    ("node1", "node2"),
    ("from", "to"),
)
_SCORE_COLUMNS = ("combined_score", "score", "weight", "confidence")
_NAME_COLUMNS = ("perturbation", "pert_id", "compound", "drug", "name", "index", "Unnamed: 0")


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
    column = next((c for c in _NAME_COLUMNS if c in table.columns), None)
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
    column = next((c for c in _NAME_COLUMNS if c in columns), columns[0])
    rest = [c for c in columns if c != column]
    parts = [part.to_pandas() for part in table.batches([column, *rest], numbers=rest, kind=pa.float64())]
    if not parts or not rest:
        raise InputError(f"{path} has {len(parts) and len(parts[0])} rows and {len(rest)} columns of numbers.")
    return _unique(pd.concat(parts).set_index(column), path)


def _features_npz(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise MissingFileError(f"{path} does not exist. Check the path.")
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
    return _unique(pd.DataFrame(matrix, index=[str(n) for n in names], columns=[str(c) for c in columns]), path)


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
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MissingFileError(f"{path} does not exist. Check the path.") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path} is not valid JSON: {error}.") from error
        return targets_of(value, str(path))
    return targets_of(read_table(path), str(path))


def targets_of(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Targets from a table (columns perturbation and gene) or a mapping perturbation -> genes; {} for None."""
    if value is None:
        return {}
    pairs: list[tuple[str, Any]]
    if isinstance(value, pd.DataFrame):
        name = next((c for c in _NAME_COLUMNS if c in value.columns), None)
        gene = next(
            (c for c in ("gene", "target", "targets", "gene_symbol", "symbol", "genes") if c in value.columns), None
        )
        if name is None or gene is None:
            raise InputError(
                f"{where} has columns {first_few(value.columns)}, but needs 'perturbation' and 'gene'. Rename them."
            )
        pairs = list(zip(as_names(value[name]).astype(str), value[gene], strict=True))
    elif isinstance(value, Mapping):
        pairs = [(str(k), v) for k, v in value.items()]
    else:
        raise InputError(
            f"{where} is neither a table nor a mapping of perturbations to genes, but {type(value).__name__}."
        )
    found: dict[str, dict[str, None]] = {}
    for name, genes in pairs:
        parts = genes.replace("|", ";").split(";") if isinstance(genes, str) else _listed(genes)
        found.setdefault(name, {}).update(dict.fromkeys(str(g).strip() for g in parts if str(g).strip()))
    return {name: tuple(genes) for name, genes in found.items()}


def _listed(value: Any) -> list[Any]:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return []
    return list(value) if isinstance(value, list | tuple | np.ndarray | pd.Series) else [value]


def read_edges(
    path: Path, genes: tuple[str, ...], min_score: float | None, *, names: Path | None = None
) -> tuple[Pairs, int]:
    """Edges (positions in ``genes``, each pair once, no loops) of a file, (n_edges, 2), and how many edges lead to
    other genes.

    Parameters
    ----------
    path : any table with two columns of names, or STRING's ``protein.links``.
    genes : of the study.
    min_score : least score of an edge that counts (STRING: 0 to 1000); None for all.
    names : table of protein ids and gene names; None takes the ``protein.info`` file beside STRING's ``protein.links``,
        if there is one.

    Raises
    ------
    InputError
        No two columns, no score to compare, or no edge between genes of the study.
    """
    table = read_table(path)
    names = names or names_beside(path)
    known = None
    if names is not None:
        known = names_of_table(read_string(names) if is_string(names) else read_table(names), genes, str(names))
    if len(table.columns) >= 2 and not any(set(p) <= set(table.columns) for p in _PAIR_COLUMNS):
        header = [str(c) for c in table.columns]
        if sum(h in set(genes) for h in header) >= 2:  # no header line: the first edge was read as names
            table = pd.concat([pd.DataFrame([header], columns=table.columns), table], ignore_index=True)
    found = edges_of_table(table, genes, min_score, where=str(path), names=known)
    assert found is not None
    return found


def edges_of_table(
    value: Any,
    genes: tuple[str, ...],
    min_score: float | None,
    *,
    where: str = "uns['graph']",
    names: Names | None = None,
) -> tuple[Pairs, int] | None:
    """As ``read_edges``, for a table or an array of pairs; None for None.

    Parameters
    ----------
    value : table, or array (n_edges, 2) of names.
    genes : of the study.
    min_score : least score of an edge that counts; None for all.
    where : what the edges are from, for messages.
    names : id -> gene names; None where edges hold gene names.

    Raises
    ------
    InputError
        As in ``read_edges``.
    """
    if value is None:
        return None
    table = value if isinstance(value, pd.DataFrame) else pd.DataFrame(np.asarray(value))
    if table.shape[1] < 2:
        raise InputError(f"{where} has {table.shape[1]} column; an edge list needs two columns of gene names.")
    first, second = _gene_columns(table, set(genes) | set(names or ()))
    if min_score is not None:
        score = next((c for c in _SCORE_COLUMNS if c in table.columns), None)
        if score is None:
            raise InputError(
                f"{where} has no score column (one of {', '.join(_SCORE_COLUMNS)}) to compare with {min_score:g}."
            )
        kept_rows = pd.to_numeric(table[score], errors="coerce") >= min_score
        if len(table) and not kept_rows.any():
            raise InputError(
                f"{where}: none of {len(table):,} edges has {score} >= {min_score:g} (the highest is "
                f"{pd.to_numeric(table[score], errors='coerce').max():g}). STRING's scores run from 0 to 1000."
            )
        table = table[kept_rows]
    if names is not None:
        table = translate(table, (first, second), names)
    at = pd.Index(genes)
    pairs = np.column_stack([at.get_indexer(pd.Index(table[c].astype(str))) for c in (first, second)]).astype(np.int64)
    inside = (pairs >= 0).all(axis=1)
    if len(table) and not inside.any():
        raise InputError(
            f"{where}: no edge joins two genes of the study. Its columns {first!r} and {second!r} hold "
            f"{first_few(table[first][:3])}; the "
            f"study's genes look like {first_few(genes[:3])}. Translate protein or Ensembl ids to the study's gene "
            f"names first, or provide a table of both (STRING's protein.info; --graph-names)."
        )
    kept = np.sort(pairs[inside], axis=1)
    return np.unique(kept[kept[:, 0] != kept[:, 1]], axis=0).reshape(-1, 2), int((~inside).sum())


def _gene_columns(table: pd.DataFrame, genes: set[str]) -> tuple[Any, Any]:
    """The two columns that hold genes: known pairs of names first if they match, else those that share most names."""
    share = {c: float(table[c].astype(str).isin(genes).mean()) for c in table.columns}
    for first, second in _PAIR_COLUMNS:
        if first in share and second in share and share[first] > 0 and share[second] > 0:
            return first, second
    ranked = sorted(table.columns, key=lambda c: -share[c])
    chosen = [c for c in table.columns if c in ranked[:2]]
    return chosen[0], chosen[1]
