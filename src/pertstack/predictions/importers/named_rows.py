"""Rows of predictions that are known by their names alone: perturbations, with the cell line or without, or genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pertstack._base.errors import MisalignedError
from pertstack.predictions.importers.keys import Labels
from pertstack.predictions.importers.readers.files import PredictionFile


def labelled(file: PredictionFile, samples: pd.DataFrame) -> PredictionFile:
    """A file that says nothing of its rows but their names: where these are perturbations, that is what they say."""
    if file.obs is not None or samples.index.isin(file.sample_ids).any():
        return file
    names = samples["perturbation"].astype(str)
    labels = Labels.of(names, file.sample_ids)
    own = {labels.key(p) for p in names.unique()}
    index, lines = pd.Index(file.sample_ids, dtype=object), set(samples["cell_line"].astype(str))
    parts = [i.rsplit("|", 1) for i in file.sample_ids]
    if all(len(p) == 2 and p[1] in lines for p in parts):
        return replace(file, obs=pd.DataFrame(parts, columns=["perturbation", "cell_line"], index=index))
    if not any(labels.key(i) in own for i in file.sample_ids):
        return file
    return replace(file, obs=pd.DataFrame({"perturbation": file.sample_ids}, index=index))


def refuse_turned(file: PredictionFile, perturbations: pd.Series[Any], genes: Sequence[str]) -> None:
    """Refuse a table whose rows are genes and whose columns are perturbations, which may be genes too.

    Parameters
    ----------
    file : rows are known by their names alone.
    perturbations : of the samples.
    genes : of the samples.

    Raises
    ------
    MisalignedError
        More of the rows are genes, and more of the columns perturbations, than the other way round.
    """
    labels = Labels.of(perturbations, file.sample_ids, file.gene_names)
    own, known = {labels.key(p) for p in perturbations.unique()}, set(genes)

    def share(names: Sequence[str], of_genes: bool) -> float:
        return sum(n in known if of_genes else labels.key(n) in own for n in names) / len(names)

    rows, columns = file.sample_ids, file.gene_names
    if share(rows, True) > share(rows, False) and share(columns, False) > share(columns, True):
        packed = file.path.suffix in (".parquet", ".pq")
        read, write = ("read_parquet", "to_parquet") if packed else ("read_csv", "to_csv")
        out = f"turned.{'parquet' if packed else 'csv'}"
        index = "" if packed else ", index_col=0"
        raise MisalignedError(
            f'{file.path} has genes as rows and perturbations as columns. Turn it once: python -c "import pandas; '
            f'pandas.{read}({str(file.path)!r}{index}).T.{write}({out!r})", then name {out}.'
        )
