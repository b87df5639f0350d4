"""A table with one row a cell or sample, genes as columns, and the controls among its rows; what is said of the rows
stands in the same table or in one beside it.

Rows are written once to a scratch AnnData file and read like any other from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.machine.scratch import scratch_path
from pertstack._base.reading.tables import as_texts, counts_rows
from pertstack._base.reading.text_tables import UNNAMED
from pertstack.data.readers.columns.aliases import plain_name
from pertstack.data.readers.columns.beside import IDS, said_beside
from pertstack.data.readers.columns.no_genes import among_genes, apart, names_of_rows, no_genes, unlike_genes
from pertstack.data.readers.control_rows import Labels, control_rows
from pertstack.data.readers.matrices import ArrayRows
from pertstack.data.readers.refused import no_control_rows, refuse_long
from pertstack.data.readers.spill import Table, pour

_ROWS = 1024


def as_anndata(
    path: Path, metadata: Path | None, *, mapping: Mapping[str, str] | None, label: Labels
) -> tuple[Path, list[Finding]] | None:
    """A scratch ``.h5ad`` of such a table, and what was taken for genes; None if no row is a control.

    Parameters
    ----------
    path : the table.
    metadata : a table of what is said of its rows, by the same ids; None if the table says it.
    mapping : canonical column -> column; these are no genes.
    label : the perturbation, or perturbations, that are the control; None to look.

    Raises
    ------
    InputError
        Ids of the two tables do not fit together, or no column is a gene.
    """
    table = Table(path)
    others = no_genes(table.columns, mapping)
    likely = [c for c in table.columns if c in table.numeric and c not in others]
    refuse_long(table, likely)
    odd = unlike_genes(likely)
    maybe = [c in table.numeric and c not in others and c not in odd for c in table.columns]
    genes, left = _genes(table.columns, maybe, everywhere=metadata is not None)
    keep = [c for c in table.columns if c not in set(genes)]
    if not genes or (metadata is None and _says_nothing(table, keep, mapping, label)):
        return None
    values, said = pour(table, genes, keep, names=names_of_rows(table.columns, mapping))
    said, numbered = indexed(said, table, mapping)
    notes: list[Finding] = []
    if metadata is not None:
        said, notes = said_beside(metadata, said, path, mapping=mapping, columns=table.columns, numbered=numbered)
    if control_rows(said, mapping, label, where=path.name) is None:
        if metadata is not None:
            raise InputError(no_control_rows(said, mapping, where=metadata.name))
        return None
    known = set(map(plain_name, IDS))
    numeric = [c for c in keep if c in table.numeric and plain_name(c) not in known]
    beside = f", and the columns of numbers {first_few(numeric)} for what is said of them" if numeric else ""
    text = f"{path.name}: {len(genes):,} columns of numbers were taken for genes ({first_few(genes, 3)}){beside}."
    notes.append(Finding("note", "genes_taken", text, len(genes), where=path.name))
    notes += apart(path.name, [c for c in table.columns if c in {*left, *odd}])
    told = set((mapping or {}).values())
    notes += among_genes(path.name, table.columns, genes, numeric=table.numeric, told=told)
    return _written(path, values, said, genes), notes


def _genes(columns: list[str], maybe: list[bool], *, everywhere: bool) -> tuple[list[str], list[str]]:
    """Of columns that may be genes, the longest run of neighbours with whatever is named like them; and the others."""
    likely = [c for c, may in zip(columns, maybe, strict=True) if may]
    if everywhere or not likely:
        return likely, []
    runs = [[c for c, _ in g] for may, g in groupby(zip(columns, maybe, strict=True), key=lambda c: c[1]) if may]
    longest = max(runs, key=len)
    forms = {_form(c) for c in longest}
    taken = set(longest) | {c for c in likely if _form(c) in forms}
    return [c for c in likely if c in taken], [c for c in likely if c not in taken]


def _form(name: str) -> str:
    """What names of one kind have in common: capitals throughout (symbols, Ensembl ids), or all but their numbers."""
    return "A" if name.upper() == name and name[:1].isalpha() else re.sub(r"\d+", "0", name)


def _says_nothing(table: Table, keep: list[str], mapping: Mapping[str, str] | None, label: Labels) -> bool:
    """Whether no row of the table says that it is a control, by its columns that are no genes."""
    parts = [b[keep] for b in table.batches(keep, [])]
    return not keep or control_rows(pd.concat(parts), mapping, label, where=table.path.name) is None


def indexed(said: pd.DataFrame, table: Table, mapping: Mapping[str, str] | None) -> tuple[pd.DataFrame, bool]:
    """With the names of the rows as index, and whether these are but numbers of the rows.

    Numbers are given if no column has a name for each row. A column called ``sample_id`` is taken even if names
    repeat, which is refused later unless rows are cells.

    Parameters
    ----------
    said : the columns that are no genes.
    table : the file.
    mapping : ``sample_id`` -> the column that names the rows; it is kept.
    """
    asked = (mapping or {}).get("sample_id")
    if asked in said.columns:
        return said.set_index(as_texts(said[asked]).rename(None)), False
    rank = {plain_name(n): i for i, n in reversed(list(enumerate(IDS)))}
    known = sorted((c for c in said.columns if plain_name(c) in rank), key=lambda c: rank[plain_name(c)])
    unique = [c for c in known if said[c].notna().all() and said[c].is_unique]
    named = [c for c in known if plain_name(c) == plain_name("sample_id") and said[c].notna().all()]
    column = next(iter([*named, *unique]), None)
    if column is None:
        return said.set_axis([f"row{i + 1}" for i in range(len(said))], axis=0), True
    numbered = plain_name(column) in map(plain_name, (UNNAMED, "index", "__index_level_0__"))
    texts = as_texts(said[column])
    return said.set_index(texts.rename(None)).drop(columns=column), numbered and counts_rows(list(texts))


def _written(path: Path, values: ArrayRows, said: pd.DataFrame, genes: list[str]) -> Path:
    """The rows as AnnData, X sparse by rows."""
    import h5py
    from anndata.io import write_elem
    from scipy.sparse import csr_matrix

    out = scratch_path(path.name)
    ends: list[Any] = [np.zeros(1, np.int64)]
    with h5py.File(out, "w") as file:
        x = file.create_group("X")
        kinds = (("data", "f4"), ("indices", "i4"))
        parts = {n: x.create_dataset(n, (0,), t, maxshape=(None,), chunks=(2**16,)) for n, t in kinds}
        for start in range(0, len(said), _ROWS):
            part = csr_matrix(values.rows(start, start + _ROWS))
            for name, new in (("data", part.data), ("indices", part.indices)):
                parts[name].resize(len(parts[name]) + len(new), axis=0)
                parts[name][len(parts[name]) - len(new) :] = new
            ends.append(ends[-1][-1] + part.indptr[1:].astype(np.int64))
        x.create_dataset("indptr", data=np.concatenate(ends))
        shape = np.array([len(said), len(genes)])
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        for name in said.columns:
            if pd.api.types.is_object_dtype(said[name]) or pd.api.types.is_string_dtype(said[name]):
                said[name] = said[name].astype("category")
        write_elem(file, "obs", said.rename(columns=str).set_index(said.index.astype(object)))
        write_elem(file, "var", pd.DataFrame(index=pd.Index(genes, dtype=object)))
        for slot in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            write_elem(file, slot, {})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    return out
