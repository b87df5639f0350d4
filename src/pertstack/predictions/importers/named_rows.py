"""Rows of predictions that are known by their names alone: perturbations, with the cell line or without, or genes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import MisalignedError
from pertstack.data.readers.columns.columns import source_column
from pertstack.data.readers.columns.tuple_labels import part_label
from pertstack.predictions.importers.keys import Labels
from pertstack.predictions.importers.readers.files import PredictionFile

BETWEEN = ("|", "::", "@", "/", "_", "-", " ")
"""What stands between a perturbation and its cell line if one name says both."""


def labelled(file: PredictionFile, samples: pd.DataFrame, mapping: Mapping[str, str]) -> PredictionFile:
    """A file with the columns that the names of its rows, or of its perturbations, stand for.

    Names of rows that are perturbations say so, if no column does, beside whatever else is said of the rows; names
    made of a perturbation and a cell line (``A|K562``, ``K562_A``) say both.

    Parameters
    ----------
    file, samples : as in ``by_id_or_key``.
    mapping : canonical column -> column, of those that the file has.
    """
    told = None if file.obs is None else source_column(file.obs, mapping, "perturbation")
    if file.obs is None or told is None:
        if samples.index.isin(file.sample_ids).any():
            return file
        names = [str(i) for i in file.sample_ids]
    elif "cell_line" in mapping or source_column(file.obs, mapping, "cell_line") is not None:
        return file
    else:
        names = file.obs[told].astype(str).tolist()
    plain = [n if (parted := part_label(n)) is None else parted[0] for n in names]
    labels = Labels.of(own := samples["perturbation"].astype(str).unique(), plain)
    known = {labels.key(p) for p in own}
    if any(labels.key(n) in known for n in plain):
        found = None if told is not None else pd.DataFrame({"perturbation": names})
    else:
        found = _pairs(names, known=own, lines=set(samples["cell_line"].astype(str)))
    if found is None:
        return file
    found = found.rename(columns={"perturbation": told or "perturbation"}).set_axis(
        pd.Index(file.sample_ids, dtype=object)
    )
    if file.obs is not None:
        beside = file.obs.drop(columns=found.columns, errors="ignore")
        found = pd.concat([found, beside.set_axis(found.index)], axis=1)
    return replace(file, obs=found)


def _pairs(names: Sequence[str], *, known: Iterable[str], lines: set[str]) -> pd.DataFrame | None:
    """Perturbation and cell line of names that say both; None if some end (or begin) with no line of the samples."""
    for mark in BETWEEN:
        behind = [n.rsplit(mark, 1) for n in names]
        before = [n.split(mark, 1)[::-1] for n in names]
        for parts in (behind, before):
            if all(len(p) == 2 and p[1] in lines for p in parts):
                labels = Labels.of(known, (p[0] for p in parts))
                own = {labels.key(p) for p in known}
                if any(labels.key(p[0]) in own for p in parts):
                    return pd.DataFrame(parts, columns=["perturbation", "cell_line"])
    return None


def refuse_turned(file: PredictionFile, perturbations: pd.Series[Any], genes: Sequence[str]) -> None:
    """Refuse a table whose rows are genes and whose columns are perturbations, which may be genes too.

    Parameters
    ----------
    file : only rows that are known by their names alone, or by one column, are looked at.
    perturbations : of the samples.
    genes : of the samples.

    Raises
    ------
    MisalignedError
        Read the other way round, rows and columns together fit better, and neither fits worse.
    """
    rows, columns = file.sample_ids, file.gene_names
    if file.obs is not None:
        if len(file.obs.columns) != 1:
            return
        rows = file.obs.iloc[:, 0].astype(str).tolist()
    labels = Labels.of(perturbations, rows, columns)
    own, known = {labels.key(p) for p in perturbations.unique()}, set(genes)

    def share(names: Sequence[str], of_genes: bool) -> float:
        return sum(n in known if of_genes else labels.key(n) in own for n in names) / len(names)

    gain_rows, gain_columns = share(rows, True) - share(rows, False), share(columns, False) - share(columns, True)
    if min(gain_rows, gain_columns) >= 0 and max(gain_rows, gain_columns) > 0:
        out, command = _turned(file.path)
        raise MisalignedError(
            f'{file.path} has genes as rows and perturbations as columns. Turn it once: python -c "{command}", then '
            f"name {out}."
        )


def _turned(path: Path) -> tuple[str, str]:
    """Where a table is turned to, and the Python that does it."""
    name, where = path.name.casefold(), repr(str(path))
    if name.endswith((".parquet", ".pq", ".feather", ".arrow", ".ipc")):
        read = "read_parquet" if name.endswith((".parquet", ".pq")) else "read_feather"
        named = "t if t.index.inferred_type == 'string' else t.set_index(t.columns[0])"
        return (
            "turned.parquet",
            f"import pandas; t = pandas.{read}({where}); t = {named}; t.T.rename(columns=str)"
            f".to_parquet('turned.parquet')",
        )
    if name.endswith((".pkl", ".pickle")):
        return "turned.csv", f"import pandas; pandas.read_pickle({where}).T.to_csv('turned.csv')"
    read = f"pandas.read_csv({where}, index_col=0, sep=None, engine='python')"
    return "turned.csv", f"import pandas; {read}.T.to_csv('turned.csv')"
