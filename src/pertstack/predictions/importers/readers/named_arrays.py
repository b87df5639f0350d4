"""Predictions as arrays beside each other, in an .npz or a pickled dict: values, names of the genes, and ids of the
rows or what was done to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.tables import as_texts
from pertstack.predictions.importers.readers.dicts import GENES, PROFILES
from pertstack.predictions.importers.readers.files import names_of
from pertstack.predictions.importers.readers.tables import is_key

VALUES = (*PROFILES, "X")
IDS = ("sample_ids", "sample_id", "obs_names")


@dataclass(frozen=True)
class NamedArrays:
    """Which array is what, by its name."""

    values: str
    genes: str
    ids: str | None  # of the rows
    said: tuple[str, ...]  # what was done to the rows, and the like

    @classmethod
    def among(cls, names: Iterable[Any], path: Path, told: Collection[str] = ()) -> NamedArrays:
        """The arrays of a file.

        Parameters
        ----------
        names : of its arrays.
        path : the file, for messages.
        told : arrays that say what was done, by the user's word.

        Raises
        ------
        InputError
            Values, names of genes, or what tells the rows apart is not there.
        """
        held = [n for n in names if isinstance(n, str)]
        values, genes, ids = (next((n for n in known if n in held), None) for known in (VALUES, GENES, IDS))
        said = tuple(n for n in held if n not in (*VALUES, *GENES, *IDS) and is_key(n, told))
        if values is None or genes is None or (ids is None and not said):
            found = {"predictions": values, "sample_ids": ids or said or None, "gene_names": genes}
            lacking = [n for n, at in found.items() if at is None]
            raise InputError(
                f"{path} lacks {first_few(lacking)}; it holds {first_few(held)}. Without names rows and columns could "
                f"only be matched by position. Save beside the predictions gene_names, and sample_ids or what was done "
                f"(perturbation, and cell_line, dose, time if they differ): one entry for each row."
            )
        return cls(values, genes, ids, said)

    def rows(self, get: Callable[[str], Any], n: int, path: Path) -> tuple[list[str], pd.DataFrame | None]:
        """Names of the rows, and a table of what was done to them if the file says it.

        Parameters
        ----------
        get : an array, by its name.
        n : how many rows there are.
        path : of the file, for messages.
        """
        ids = [str(i) for i in range(n)] if self.ids is None else names_of(get(self.ids), self.ids, path)
        if not self.said:
            return ids, None
        columns = {name: pd.Series(get(name)) for name in self.said}
        odd = [f"{name} ({len(c):,})" for name, c in columns.items() if len(c) != n]
        if odd:
            raise InputError(f"{path}: {', '.join(odd)}: one entry for each of the {n:,} rows is expected.")
        table = pd.DataFrame({n: c if c.dtype.kind in "fiu" else as_texts(c) for n, c in columns.items()})
        return ids, table.set_axis(pd.Index(ids, dtype=object))
