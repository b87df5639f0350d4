"""Names of the columns of predictions: a list given or lying beside the file, second names in the file itself.

Columns are matched by name only. A list gives names to columns that have none; whether it is in the right order is
seen from the values (``value_checks.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack._base.files import missing_file, require_plain
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import read_table
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.readers.columns.genes import IDS, SYMBOLS, without_version
from pertstack.predictions.importers.readers.files import PredictionFile, Rows
from pertstack.predictions.store.align import names_index

SECOND = (*SYMBOLS, *IDS)
"""Columns of ``var`` that hold another name of each gene."""
SIBLINGS = (
    "gene_names.json",
    "genes.json",
    "gene_names.txt",
    "genes.txt",
    "gene_names.csv",
    "genes.csv",
    "gene_names.tsv",
    "adata_real.h5ad",
)
"""Files beside predictions that name their columns."""


def read_gene_list(path: Path) -> list[str]:
    """Names of genes in order: one a line, the first (or a ``gene_name``) column of a table, a JSON list, or an h5ad.

    Raises
    ------
    MissingFileError, InputError
        It is not there, or holds no list of names.
    """
    require_plain(path, InputError)
    if not path.exists():
        raise missing_file(path)
    name = path.name.casefold()
    try:
        if name.endswith((".h5ad", ".zarr")):
            from pertstack.data.readers.anndata.tables import open_foreign, read_frame

            var = read_frame(open_foreign(path, "zarr" if path.is_dir() else "hdf5"), "var", path)
            column = column_of(var.columns, SECOND)
            names = list(var.index if column is None or not positional(list(map(str, var.index))) else var[column])
        elif name.endswith(".json"):
            names = json.loads(path.read_text(encoding="utf-8"))
        elif name.endswith((".csv", ".tsv")):
            table = read_table(path, blanks=False)
            column = column_of(table.columns, SECOND)
            names = table[column].tolist() if column else [table.columns[0], *table.iloc[:, 0]]
            if column is None and names[0].casefold() in ("gene", "genes", "name", "0", "", "unnamed: 0"):
                names = names[1:]
        else:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as a list of gene names: {error}.") from error
    if not isinstance(names, list) or not names or not all(isinstance(n, str | int) for n in names):
        raise InputError(f"{path} is no list of gene names. Write one name a line, in the order of the columns.")
    return [str(n) for n in names]


def genes_beside(path: Path, n_genes: int) -> tuple[list[str], Path] | None:
    """The list of names beside a file that has as many, and where it lies; None if there is none."""
    for name in SIBLINGS:
        beside = path.parent / name
        if beside.exists() and beside.resolve() != path.resolve():
            names = read_gene_list(beside)
            if len(names) == n_genes and not positional(names):
                return names, beside
    return None


def positional(names: Sequence[str]) -> bool:
    """Whether names are the numbers that anndata and pandas give to columns without a name."""
    return list(names) == [str(i) for i in range(len(names))]


def with_genes(
    file: PredictionFile, own: Sequence[str], genes: Path | None, *, other: Mapping[str, str] | None = None
) -> tuple[PredictionFile, list[Finding]]:
    """The file with the gene names of the truth, if its own can be told to mean them.

    Parameters
    ----------
    file : names, and values still to be read.
    own : names of the truth.
    genes : a list of names for columns without one.
    other : second name -> name of the truth.

    Raises
    ------
    InputError
        Columns without a name and no list, or a list of another length.
    MisalignedError
        Two columns of the file are one gene of the truth.
    """
    known = set(own)
    if genes is not None or (positional(file.gene_names) and not positional(own)):
        return _by_list(file, own, genes, other)
    names, how = file.gene_names, ""
    best = len(known.intersection(names))
    for word, listed in _readings(file, other):
        n = len(known.intersection(listed))
        if n > best and n > len(known.intersection(names)):
            names, how, best = listed, word, n
    if not how:
        return file, []
    _refuse_collisions(file.path, names, known)
    text = f"{file.path}: columns are matched by {how}: {best:,} of {len(own):,} genes of the truth."
    return _renamed(file, names, known), [Finding("note", "genes_by_second_name", text, where=str(file.path))]


def _readings(file: PredictionFile, other: Mapping[str, str] | None) -> list[tuple[str, list[str]]]:
    """Every list of names the columns may go by, with where it comes from."""
    found = [(f"var[{c!r}]", list(v)) for c, v in file.second_names.items()]
    found += [
        (f"{word or 'their names'} without Ensembl versions", [without_version(n) for n in names])
        for word, names in [("", file.gene_names), *found]
        if any(without_version(n) != n for n in names[:200])
    ]
    if other:
        found += [
            (f"{word or 'their names'} and the second names of the truth", [_known_as(n, other) for n in names])
            for word, names in [("", file.gene_names), *found]
        ]
    return found


def _by_list(
    file: PredictionFile, own: Sequence[str], genes: Path | None, other: Mapping[str, str] | None
) -> tuple[PredictionFile, list[Finding]]:
    n = len(file.gene_names)
    if genes is not None:
        names, where = read_gene_list(genes), genes
        if len(names) != n:
            raise InputError(
                f"{genes} names {len(names):,} genes and {file.path} has {n:,} columns. Give the list of the genes "
                f"the model was trained on, in its order."
            )
    else:
        found = genes_beside(file.path, n)
        if found is None:
            same = " As many as the truth has, but in which order cannot be known." if n == len(own) else ""
            raise InputError(
                f"{file.path} does not name its {n:,} columns.{same} Give their names in order with --genes FILE (one "
                f"a line, or the h5ad the model was trained on), or put them beside it as gene_names.txt."
            )
        names, where = found
    if other and len(set(own) & {_known_as(x, other) for x in names}) > len(set(own) & set(names)):
        names = [_known_as(x, other) for x in names]
    _refuse_collisions(where, names, set(own))
    text = f"{file.path}: its columns have no names; those of {where} are taken, in order."
    found_it = Finding("note", "genes_by_list", text, where=str(file.path))
    return _renamed(file, names, set(own)), [found_it]


def _refuse_collisions(path: Path, names: Sequence[str], known: set[str]) -> None:
    index = names_index(names)
    twice = [str(n) for n in index[index.duplicated()].unique() if n in known]
    if twice:
        raise MisalignedError(
            f"{path}: {len(twice):,} genes of the truth stand for more than one column: {first_few(twice)}. Which "
            f"column counts cannot be known. Keep one of them, or name columns by ids that are unique."
        )


def _renamed(file: PredictionFile, names: Sequence[str], known: set[str]) -> PredictionFile:
    """The file with other names; columns that the truth does not know and whose names repeat are left out."""
    index = names_index(names)
    kept = np.flatnonzero(~index.duplicated(keep=False) | index.isin(known))
    if len(kept) == len(names):
        return replace(file, gene_names=list(names))
    rows: Rows = lambda n_rows: (values[:, kept] for values in file.rows(n_rows))  # noqa: E731
    return replace(file, gene_names=[names[i] for i in kept.tolist()], rows=rows)


def _known_as(name: str, other: Mapping[str, str]) -> str:
    return other.get(name, other.get(without_version(name), name))
