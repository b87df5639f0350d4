"""What cannot be used as data as it is, and the command that mends it: files of other kinds, rows without a control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.tables import as_texts
from pertstack._base.reading.text_tables import UNNAMED
from pertstack.data.labels import is_control_name
from pertstack.data.readers.columns.aliases import plain_name
from pertstack.data.readers.columns.columns import source_column
from pertstack.data.readers.columns.doses import EMPTY
from pertstack.data.readers.control_rows import NEGATIVE, counted
from pertstack.data.readers.spill import Table

_TOGETHER = (
    "import anndata, pandas; d = [anndata.read_h5ad(x) for x in p]; "
    "a = anndata.concat(d, keys=p, label='file', merge='same', index_unique='-'); "
    "a.obs = pandas.concat([x.obs for x in d]).set_axis(a.obs_names).assign(file=a.obs['file']); "
    "a.write_h5ad({out!r})"
)
"""Python that makes one AnnData of the files ``p``, with the columns of all and the genes that all have."""
_TURNED = {
    ".feather": "import pandas; pandas.read_feather({path!r}).to_parquet({out!r})",
    ".h5mu": "import anndata, h5py; anndata.io.read_elem(h5py.File({path!r})['mod/rna']).write_h5ad({out!r})",
    ".loom": (
        "import anndata, h5py, pandas; f = h5py.File({path!r}); t = lambda g: pandas.DataFrame({{k: d.asstr()[:] if "
        "d.dtype.kind in 'OS' else d[:] for k, d in f[g].items()}}); o, v = t('col_attrs'), t('row_attrs'); "
        "anndata.AnnData(f['matrix'][:].T, o.set_index(o.get('CellID', o.index).astype(str)), "
        "v.set_index(v.get('Gene', v.iloc[:, 0]))).write_h5ad({out!r})"
    ),
    "10x .h5": (
        "import anndata, h5py, pandas, scipy.sparse; m = h5py.File({path!r})['matrix']; "
        "o = pandas.read_csv({cells!r}, index_col=0).reindex(m['barcodes'].asstr()[:]); "
        "v = pandas.DataFrame({{'gene_name': m['features/name'].asstr()[:]}}, m['features/id'].asstr()[:]); "
        "anndata.AnnData(scipy.sparse.csr_matrix((m['data'][:], m['indices'][:], m['indptr'][:]), "
        "m['shape'][:][::-1]), o, v).write_h5ad({out!r})"
    ),
    "10x folder": (
        "import anndata, pandas, scipy.io; f = pandas.read_table({genes!r}, header=None); "
        "b = list(pandas.read_table({barcodes!r}, header=None)[0]); "
        "o = pandas.read_csv({cells!r}, index_col=0).reindex(b); "
        "v = pandas.DataFrame({{'gene_name': f[f.columns[:2][-1]].values}}, f[0].values); "
        "anndata.AnnData(scipy.io.mmread({matrix!r}).T.tocsr(), o, v).write_h5ad({out!r})"
    ),
    "folder of .h5ad": "import pathlib; p = sorted(map(str, pathlib.Path({path!r}).glob('*.h5ad'))); " + _TOGETHER,
}
"""Python that turns a file that is not read into one that is."""
_ELSEWHERE = {
    ".rds": "Write it as .h5ad in R: zellkonverter::writeH5AD(as.SingleCellExperiment(readRDS('FILE')), 'OUT.h5ad')",
    ".rdata": "Write the object as .h5ad in R: zellkonverter::writeH5AD(as.SingleCellExperiment(OBJECT), 'OUT.h5ad')",
    ".h5seurat": "Write it as .h5ad in R: SeuratDisk::Convert('FILE', dest = 'h5ad')",
    ".xlsx": "Save the sheet as CSV",
    ".xls": "Save the sheet as CSV",
}
GENE_COLUMNS = frozenset(
    ("gene", "genes", "genename", "genesymbol", "geneid", "symbol", "ensemblid", "feature", "variable")
)
_MATRIX = ("matrix.mtx", "matrix.mtx.gz")
_TENX = {
    "matrix": _MATRIX,
    "genes": ("features.tsv.gz", "features.tsv", "genes.tsv", "genes.tsv.gz"),
    "barcodes": ("barcodes.tsv.gz", "barcodes.tsv"),
}


def one_file(paths: Sequence[Path]) -> Path:
    """The only one of the files that were given as data.

    Raises
    ------
    InputError
        There are several: with the command that makes one of them.
    """
    if len(paths) == 1:
        return paths[0]
    names = [str(p) for p in paths]
    text = f"{len(paths)} files were given as data ({first_few(names)}), and a study is made of one. "
    if all(p.suffix.casefold() == ".h5ad" for p in paths):
        code = f"p = {names}; " + _TOGETHER.format(out="together.h5ad")
        text += f'{_IN_ONE}Put them together once: python -c "{code}", then --data together.h5ad.'
    else:
        text += (
            "Put them into one .h5ad first: genes by name, one spelling of the columns, values on one scale, sample "
            "ids that differ."
        )
    raise InputError(text)


_IN_ONE = (
    "Genes that a file lacks are left out of all; if batches of different files have the same names, say --map "
    "plate=file then. "
)


def refuse_kind(path: Path, last: str, metadata: Path | None) -> None:
    """Refuse files that are known but not read, with the command that turns them into one that is.

    Parameters
    ----------
    path : a file or folder.
    last : its suffix in lower case, without that of packing.
    metadata : a table of what is said of its rows, if one was given.

    Raises
    ------
    InputError
        It is of such a kind.
    """
    if last in (".vcc", ".json", ".npz", ".zst"):
        raise InputError(
            f"{path}: files of kind {last!r} are read as predictions, and data are measured, with controls. Compare "
            f"it with measured cells: pertstack evaluate DATA.h5ad {quote(str(path))}, or give it to a study: "
            f"pertstack add STUDY NAME {quote(str(path))}."
        )
    if last in _ELSEWHERE:
        raise InputError(f"{path}: files of kind {last!r} are not read. {_ELSEWHERE[last].replace('FILE', str(path))}.")
    kind, names = last, {"path": str(path), "cells": str(metadata or "CELLS.csv")}
    if path.is_dir() and any(path.glob("*.h5ad")):
        kind = "folder of .h5ad"
    elif last == ".mtx" or (path.is_dir() and any((path / n).exists() for n in _MATRIX)):
        kind, folder = "10x folder", path if path.is_dir() else path.parent
        there = {k: next((folder / n for n in given if (folder / n).exists()), None) for k, given in _TENX.items()}
        names |= {k: str(there[k] or folder / _TENX[k][0]) for k in _TENX}
    elif last == ".h5" and _is_tenx(path):
        kind = "10x .h5"
    if kind not in _TURNED:
        return
    out = f"{path.name.split('.')[0] or 'cells'}.{'parquet' if kind == '.feather' else 'h5ad'}"
    code = _TURNED[kind].format(**names, out=out)
    asked = (
        ", where CELLS.csv says in its first column the barcode and in others what was done"
        if ("CELLS.csv" in code)
        else ""
    )
    first = _IN_ONE if kind == "folder of .h5ad" else ""
    raise InputError(
        f"{path}: this ({kind}) is not read as it is. {first}"
        f'Convert it once{asked}: python -c "{code}", then --data {out}.'
    )


def _is_tenx(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path) as file:
            return "matrix/barcodes" in file and "obs" not in file
    except OSError:
        return False  # its reader says what is wrong


def refuse_long(table: Table, numbers: list[str]) -> None:
    """Refuse a table with one row for each cell and gene.

    Parameters
    ----------
    table : the file.
    numbers : its columns that may be genes.

    Raises
    ------
    InputError
        It has such rows.
    """
    gene = next((c for c in table.columns if c not in table.numeric and plain_name(c) in GENE_COLUMNS), None)
    if gene is None or not 1 <= len(numbers) <= 2:
        return
    read = f"read_{'parquet' if table.text is None else 'csv'}({str(table.path)!r}{_how(table)})"
    keys = [c for c in table.columns if c != gene and c not in numbers and c != UNNAMED]
    raise InputError(
        f"{table.path} has a row for each cell and gene (columns {gene!r} and {numbers[0]!r}), and a row for each cell "
        f'is read. Turn it once: python -c "import pandas; pandas.{read}.pivot_table(index={keys}, columns={gene!r}, '
        f"values={numbers[-1]!r}, aggfunc='sum', fill_value=0).reset_index().to_parquet('wide.parquet')\", then --data "
        f"wide.parquet."
    )


def _how(table: Table) -> str:
    return "" if table.text is None else ", sep=None, engine='python'"


def refuse_turned(obs: pd.DataFrame, var: pd.DataFrame, path: Path) -> None:
    """Refuse AnnData with genes as rows.

    Parameters
    ----------
    obs, var : tables as the file has them.
    path : of the file, for messages.

    Raises
    ------
    InputError
        The table of genes says which cells are controls, and that of cells does not say the perturbation.
    """
    column = source_column(var, None, "perturbation")
    if column is None or source_column(obs, None, "perturbation") is not None:
        return
    if any(map(is_control_name, _texts(var[column]).unique())):
        form = "zarr" if path.is_dir() else "h5ad"
        raise InputError(
            f'{path} has cells as columns and genes as rows (var says {column!r}). Turn it once: python -c "import '
            f"anndata; anndata.read_{form}({str(path)!r}).T.write_{form}('turned.{form}')\", then --data turned.{form}."
        )


def no_controls(table: Table, mapping: Mapping[str, str] | None) -> InputError:
    """The error for a table of values without controls, by what it lacks.

    Parameters
    ----------
    table : the file.
    mapping : canonical column -> column of it.
    """
    path = table.path
    two = (
        "Where controls lie in a table of their own, name it with --control FILE (a row per sample_id, or per "
        "control_id); or say --delta when the values are already differences."
    )
    keep = [c for c in table.columns if c not in table.numeric]
    said = pd.concat(list(table.batches(keep, []))) if keep else pd.DataFrame()
    if not any(_may_say(said[c]) for c in keep):
        return InputError(
            f"{path} holds values, and no column says what was done to its rows. Name the table that does with "
            f"--metadata FILE: one row for each of them, under the same names. {two}"
        )
    return InputError(f"{path} says no control of its rows. {no_control_rows(said, mapping, where=path.name)} {two}")


def _in_row_names(obs: pd.DataFrame, where: str) -> str:
    """How to write perturbations into a column that stand in the names of rows (``7_AHR_P1P2_ENSG00000106546``)."""
    parts = [str(name).split("_") for name in obs.index[:10_000]]
    shortest = min(map(len, parts), default=0)
    for at in range(shortest if where.endswith(".h5ad") and shortest > 1 else 0):
        control = {is_control_name(p[at]) for p in parts}
        if len(control) > 1:  # some are, some are not
            return (
                f' Names of rows hold it ({first_few(obs.index, 2)}). To write it into a column: python -c "import '
                f"anndata; a = anndata.read_h5ad({where!r}); a.obs['perturbation'] = "
                f"a.obs_names.str.split('_').str[{at}]; a.write_h5ad('named.h5ad')\", then --data named.h5ad."
            )
    return ""


def no_control_rows(obs: pd.DataFrame, mapping: Mapping[str, str] | None, *, where: str) -> str:
    """Why no row is known as a control, and what to write: for the message of a file without controls.

    Parameters
    ----------
    obs : table as the file has it.
    mapping : canonical column -> column of ``obs``.
    where : the file, for messages.
    """
    column = source_column(obs, mapping, "perturbation")
    if column is None:
        told = {
            c: sorted(filter(is_control_name, _texts(obs[c]).unique()))[:2] for c in obs.columns if _may_say(obs[c])
        }
        likely = next((c for c, found in told.items() if found), None)
        hint = (
            f"Column {likely!r} has rows called {first_few(told[likely])}: is it" if likely is not None else "Name it:"
        )
        return (
            f"No column of {where} is known to say the perturbation. {hint} "
            f"--map perturbation={quote(str(likely)) if likely is not None else 'COLUMN'}"
            f"{'.' if likely is None else '?'} Its columns: {first_few(obs.columns, 40)}."
            f"{_in_row_names(obs, where)}"
        )
    count = _texts(obs[column]).value_counts()
    likely = next((quote(str(n)) for n in count.index[:200] if NEGATIVE.search(str(n).casefold())), None)
    empty = int(_texts(obs[column]).str.casefold().isin(EMPTY).sum())
    name = f"a.obs[{column!r}]"
    unnamed = (
        f' {empty:,} rows have no name there. If they are the controls, name them: python -c "import anndata; a = '
        f"anndata.read_h5ad({where!r}); x = {name}.astype(object).map(str); "
        f"{name} = x.where(~x.isin(['', 'nan', '<NA>', 'None']), 'control'); "
        f"a.write_h5ad('named.h5ad')\", then --data named.h5ad."
        if empty
        else ""
    )
    return (
        f"No row of {where} is known as a control by its {column!r} ({counted(_texts(obs[column]))}) or by a column "
        f"is_control. Where controls are rows, name theirs: --control-label {likely or 'NAME'}"
        f"{', if that is one' if likely else ''}.{unnamed}"
    )


def _may_say(column: pd.Series[Any]) -> bool:
    """Whether a column is of names that rows share."""
    return not pd.api.types.is_numeric_dtype(column) and column.nunique() < max(2, len(column) // 2)


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    return as_texts(column).str.strip()
