"""A table with one row a cell or sample, genes as columns, and the controls among its rows; what is said of the rows
stands in the same table or in one beside it.

Rows are written once to a scratch AnnData file and read like any other from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.machine.scratch import scratch_path
from pertstack._base.reading.tables import as_texts, with_numbers
from pertstack._base.reading.text_tables import UNNAMED
from pertstack.data.readers.columns.aliases import CELL_EXTRAS, alias_names, plain_name
from pertstack.data.readers.control_rows import FLAGS, Labels, control_rows
from pertstack.data.readers.matrices import ArrayRows
from pertstack.data.readers.refused import refuse_long
from pertstack.data.readers.spill import Table, pour

IDS = (
    "sample_id",
    "index",
    UNNAMED,
    "__index_level_0__",
    "id",
    "cell_barcode",
    "barcode",
    "barcodes",
    "cell_id",
    "cell",
)
COUNTED = frozenset(
    [
        "n_counts",
        "ncounts",
        "total_counts",
        "n_genes",
        "ngenes",
        "n_genes_by_counts",
        "n_umi",
        "n_umis",
        "umi_count",
        "UMI_count",
        "nUMI",
        "nGene",
        "nCount_RNA",
        "nFeature_RNA",
        "percent_mito",
        "percent.mt",
        "percent_mt",
        "pct_counts_mt",
        "pct_counts_ribo",
        "mito_frac",
        "size_factor",
        "size_factors",
        "log1p_total_counts",
        "log1p_n_genes_by_counts",
        "guide_umi",
        "guide_umis",
        "n_cells",
        "core_scale_factor",
        "core_adjusted_UMI_count",
        "doublet_score",
        "S_score",
        "G2M_score",
        "z_gemgroup_UMI",
    ]
)
"""Columns of numbers that programs write about cells; they are no genes."""
_SOUNDS_COUNTED = re.compile(
    r"(?i)^(n|num|pct|percent|frac|total|mean|median|log1p)[_.]|[_.](scores?|counts?|umis?|pct|percent|frac|factors?)$"
)
"""The same under names that no list has: no symbol of a gene begins with ``pct_`` or ends with ``_score``."""
_NO_GENES = (
    frozenset(map(plain_name, (*IDS, *FLAGS, *COUNTED, *chain(*CELL_EXTRAS.values()), "log10_dose"))) | alias_names()
)
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
    told = {*(mapping or {}).values(), *IDS}
    no_genes = {c for c in table.columns if c in told or plain_name(c) in _NO_GENES or _SOUNDS_COUNTED.search(c)}
    maybe = [c in table.numeric and c not in no_genes for c in table.columns]
    refuse_long(table, [c for c, may in zip(table.columns, maybe, strict=True) if may])
    genes, apart = _genes(table.columns, maybe, everywhere=metadata is not None)
    keep = [c for c in table.columns if c not in set(genes)]
    if not genes or (metadata is None and _says_nothing(table, keep, mapping, label)):
        return None
    amounts = alias_names("dose", "time")
    values, said = pour(table, genes, keep, names={c for c in no_genes if plain_name(c) not in amounts})
    said = _indexed(said)
    if metadata is not None:
        said = said.join(_of_rows(metadata, said.index, table.columns, path), rsuffix="_of_matrix")
    if control_rows(said, mapping, label, where=path.name) is None:
        return None
    numeric = [c for c in keep if c in table.numeric and c not in IDS]
    beside = f", and the columns of numbers {first_few(numeric)} for what is said of them" if numeric else ""
    text = f"{path.name}: {len(genes):,} columns of numbers were taken for genes ({first_few(genes, 3)}){beside}."
    notes = [Finding("note", "genes_taken", text, len(genes), where=path.name)]
    if apart:
        text = (
            f"{path.name}: {len(apart):,} columns of numbers stand apart from the genes and have other names, so they "
            f"are not taken for genes: {first_few(apart)}. If they are genes, put their columns among the others."
        )
        notes.append(Finding("warning", "columns_apart", text, len(apart), tuple(apart[:10]), where=path.name))
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


def _indexed(said: pd.DataFrame) -> pd.DataFrame:
    """With the names of the rows as index; numbers where no column has a name for each."""
    column = next((c for c in IDS if c in said.columns and said[c].notna().all() and said[c].is_unique), None)
    if column is None:
        return said.set_axis([f"row{i + 1}" for i in range(len(said))], axis=0)
    return said.set_index(as_texts(said[column]).rename(None)).drop(columns=column)


def _of_rows(metadata: Path, ids: pd.Index[Any], columns: list[str], path: Path) -> pd.DataFrame:
    """What a table beside the values says of their rows, in their order."""
    other = Table(metadata)
    said = pd.concat(list(other.batches(other.columns, [])), ignore_index=True)
    said = with_numbers(said, set(said.columns) - other.numeric, "." if other.text is None else other.text.decimal)
    for column in said.columns:
        found = as_texts(said[column])
        if found.is_unique and ids.isin(found).all():
            return said.set_index(found.rename(None)).drop(columns=column).loc[ids]
        if found.is_unique and found.isin(columns).all():
            raise InputError(
                f"{path} has a column for each row of {metadata}: cells are its columns and genes its rows. Turn it: "
                f"python -c \"import pandas; pandas.read_csv('{path}', index_col=0, sep=None, engine='python')"
                f".T.to_parquet('turned.parquet')\", then --data turned.parquet."
            )
    raise InputError(
        f"No column of {metadata} names the {len(ids):,} rows of {path} ({first_few(ids, 3)}), each once. Its columns: "
        f"{first_few(other.columns, 10)}. Give both files the same names of cells."
    )


def _written(path: Path, values: ArrayRows, said: pd.DataFrame, genes: list[str]) -> Path:
    """The rows as AnnData, X sparse by rows."""
    import h5py
    from anndata.io import write_elem
    from scipy.sparse import csr_matrix

    out = scratch_path(f"{path.name.split('.')[0]}.h5ad")
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
