"""What every reader of foreign predictions gives: names first, then values a few rows at a time.

A reader trusts nothing about order; matching names to the study is handled by ``add``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, MisalignedError, first_few
from pertstack.data.rows import Float32
from pertstack.predictions.store.align import names_index

Rows = Callable[[int], Iterator[Float32]]
"""From a number of rows per chunk to the chunks, in the file's order."""

CHUNK_BYTES = 16_000_000
STATUS = ("status", "state", "kind", "origin", "source", "data_type", "type", "split", "set")
"""Columns that may say which rows of a file are predictions."""


@dataclass(frozen=True)
class NamedChunk:
    """Some rows of one file, with their names; all chunks of a file share its genes."""

    path: Path
    start: int  # of the first row, in the file
    sample_ids: list[str]
    gene_names: list[str]
    values: Float32  # (k, n_genes)


@dataclass(frozen=True)
class PredictionFile:
    """One file of predictions made elsewhere. ``sample_ids`` and ``gene_names`` are known before any value is read."""

    path: Path
    sample_ids: list[str]
    gene_names: list[str]
    rows: Rows = field(repr=False)
    folds: np.ndarray[Any, Any] | None = None  # (n,) fold of each row as the file says, if it does
    meta: dict[str, Any] = field(default_factory=dict)  # model_version, training_params, timestamp, ...
    card: dict[str, Any] | None = None  # the preprocessing card in the file, if there is one
    obs: pd.DataFrame | None = field(default=None, repr=False)  # what else the file says of its rows
    second_names: dict[str, list[str]] = field(default_factory=dict, repr=False)  # other names of the genes
    slot: str = ""  # which matrix of the file these are, if it can hold several
    other_slots: tuple[str, ...] = ()  # and which others it holds, as --layer names them

    def __post_init__(self) -> None:
        named = () if self.obs is not None else (("sample", self.sample_ids),)  # rows may be known by what was done
        for kind, names in (*named, ("gene", self.gene_names)):
            index = names_index(names)
            if not index.is_unique:
                twice = index[index.duplicated()].unique()
                raise MisalignedError(
                    f"{self.path}: {len(twice):,} {kind} names occur more than once: {first_few(twice)}. Which row is "
                    f"which cannot be known. Make the names unique in the file."
                )
        if not self.sample_ids or not self.gene_names:
            raise InputError(f"{self.path} holds {len(self.sample_ids)} samples and {len(self.gene_names)} genes.")

    def chunks(self, n_rows: int | None = None) -> Iterator[NamedChunk]:
        """The values, in the file's row order."""
        n_rows = n_rows or max(1, CHUNK_BYTES // (4 * len(self.gene_names)))
        start = 0
        for values in self.rows(n_rows):
            stop = start + len(values)
            if values.shape[1] != len(self.gene_names) or stop > len(self.sample_ids):
                raise MisalignedError(
                    f"{self.path}: rows {start}-{stop} have {values.shape[1]:,} columns for {len(self.gene_names):,} "
                    f"genes and {len(self.sample_ids):,} sample names. Each row and column needs its name."
                )
            yield NamedChunk(self.path, start, self.sample_ids[start:stop], gene_names=self.gene_names, values=values)
            start = stop
        if start != len(self.sample_ids):
            raise MisalignedError(f"{self.path} names {len(self.sample_ids):,} samples but holds {start:,} rows.")


def names_of(values: Any, what: str, path: Path) -> list[str]:
    """Names as text; numbers are written plainly.

    Parameters
    ----------
    values : (n,), text, bytes or numbers.
    what : "sample ids" or the like, for messages.
    path : of the file, for messages.

    Raises
    ------
    InputError
        Not one name per row or column, or an empty one.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{path}: {what} has shape {array.shape}; one name per row or column is expected.")
    if pd.isna(array).any() if array.dtype == object else False:
        raise InputError(f"{path}: {what} has empty names. Name every row and column.")
    return [n.decode() if isinstance(n, bytes) else str(n) for n in array.tolist()]


def check_shape(path: Path, shape: tuple[int, ...], sample_ids: list[str], *, gene_names: list[str]) -> None:
    """Values and names must agree in number.

    Parameters
    ----------
    path : of the file, for messages.
    shape : of the values.
    sample_ids, gene_names : of its rows and columns.

    Raises
    ------
    MisalignedError
        They do not.
    """
    if tuple(shape) != (len(sample_ids), len(gene_names)):
        raise MisalignedError(
            f"{path}: the predictions have shape {tuple(shape)}, but {len(sample_ids):,} sample ids and "
            f"{len(gene_names):,} gene names are beside them. Each row and column needs its name."
        )
