"""Tables of gene interactions, read as pairs of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.dialects import is_number
from pertstack._base.reading.tables import as_texts, numbers, read_table
from pertstack._base.reading.text_tables import MISSING
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.side.files import Pairs
from pertstack.data.side.gene_names import (
    Names,
    StudyGenes,
    is_string,
    names_beside,
    names_of_table,
    read_string,
    translate,
)

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


def read_edges(
    path: Path, genes: StudyGenes, min_score: float | None, *, names: Path | None = None
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
        if sum(g is not None for g in genes.found(header)) >= 2:  # no header line: the first edge was read as names
            table = pd.concat([pd.DataFrame([header], columns=table.columns), table], ignore_index=True)
    found = edges_of_table(table, genes, min_score, where=str(path), names=known)
    assert found is not None
    return found


def edges_of_table(
    value: Any,
    genes: StudyGenes,
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
    names : id -> gene names; None if edges hold gene names.

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
    first, second = _gene_columns(table, genes, names or {})
    if min_score is not None:
        table = table[_scores(table, min_score, where) >= min_score]
    if names is not None:
        table = translate(table, (first, second), names)
    at = pd.Index(genes.names)
    pairs = np.column_stack([at.get_indexer(pd.Index(genes.taken(as_texts(table[c])))) for c in (first, second)])
    inside = (pairs >= 0).all(axis=1)
    if len(table) and not inside.any():
        raise InputError(
            f"{where}: no edge joins two genes of the study. Its columns {first!r} and {second!r} hold "
            f"{first_few(table[first][:3])}; the study's genes look like {first_few(genes.names[:3])}. Translate "
            f"protein or Ensembl ids to the study's gene names first, or provide a table of both (STRING's "
            f"protein.info; --graph-names)."
        )
    kept = np.sort(pairs[inside], axis=1)
    return np.unique(kept[kept[:, 0] != kept[:, 1]], axis=0).reshape(-1, 2), int((~inside).sum())


def _scores(table: pd.DataFrame, least: float, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The score of every edge, NaN if there is none."""
    name = column_of(table.columns, _SCORE_COLUMNS)
    if name is None:
        raise InputError(f"{where} has no score column (one of {', '.join(_SCORE_COLUMNS)}) to compare with {least:g}.")
    found = numbers(table[name])
    if found is None:
        found = numbers(table[name], ",")
    if found is None:
        words = [t for t in as_texts(table[name]) if t not in MISSING and not is_number(t)]
        raise InputError(
            f"{where}: {len(words):,} of {len(table):,} scores in column {name!r} are no numbers: {first_few(words)}. "
            f"Write numbers with a decimal point, and leave the cell empty if there is none."
        )
    high = float(np.nanmax(found, initial=-np.inf))
    if len(table) and not (found >= least).any():
        raise InputError(
            f"{where}: none of {len(table):,} edges has {name} >= {least:g} (the highest is {high:g}). STRING's scores "
            f"run from 0 to 1000."
        )
    if 0 < least < 1 and high > 1 and (found[~np.isnan(found)] >= 1).all():
        raise InputError(
            f"{where}: every edge has {name} >= {least:g}, because its scores run up to {high:g}. STRING's run from 0 "
            f"to 1000, so a confidence of {least:g} is --graph-min-score {1000 * least:g}."
        )
    return found


def _gene_columns(table: pd.DataFrame, genes: StudyGenes, names: Names) -> tuple[Any, Any]:
    """The two columns that hold genes: known pairs of names first if they match, else those that share most names."""
    share = {}
    for column in table.columns:
        texts = list(as_texts(table[column]))
        known = [g is not None or t in names for g, t in zip(genes.found(texts), texts, strict=True)]
        share[column] = float(np.mean(known)) if known else 0.0
    for first, second in _PAIR_COLUMNS:
        if first in share and second in share and share[first] > 0 and share[second] > 0:
            return first, second
    ranked = sorted(table.columns, key=lambda c: -share[c])
    chosen = [c for c in table.columns if c in ranked[:2]]
    return chosen[0], chosen[1]
