"""Which cell goes into which sample: groups of perturbation, cell line and batch, and the controls of each batch.

Only metadata are looked at. The values are summed by ``sums.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data.cells.entries import Int64
from pertstack.data.labels import one_spelling
from pertstack.data.readers.columns.aliases import CELL_EXTRAS, LOG_DOSE, alias_of, column_of, is_alias, plain_name
from pertstack.data.readers.columns.columns import source_column

ONE_LINE = "all_cells"
"""The cell line if no column says it."""
FEW = 200
"""Values that a column of cell lines or batches has at most, for a question whether it is one."""

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Sources:
    """Source columns: of perturbation, cell line and batch (None if there is none), and what splits samples."""

    perturbation: str
    cell_line: str | None
    batch: str | None
    by: dict[str, str]  # name as said -> column

    @classmethod
    def find(
        cls, obs: pd.DataFrame, mapping: Mapping[str, str] | None, by: Sequence[str], *, where: str
    ) -> Sources | None:
        """The columns that say what cells are; None if none says the perturbation.

        Parameters
        ----------
        obs : one row per cell.
        mapping : canonical column -> column of ``obs``.
        by : columns, or names of the usual extras (guide, donor, ...), that tell samples apart.
        where : the file, for messages.

        Raises
        ------
        UnknownNameError
            A column of ``by`` is not there.
        """
        perturbation = source_column(obs, mapping, "perturbation")
        if perturbation is None:
            return None
        found: dict[str, str] = {}
        for name in by:
            column = column_of(obs.columns, CELL_EXTRAS.get(name, ()))
            column = column or (source_column(obs, mapping, name) if name not in obs.columns else name)
            if column is None:
                raise unknown_name(f"--by column of {where}", name, map(str, obs.columns))
            found[name] = column
        line = source_column(obs, mapping, "cell_line")
        return cls(perturbation, line, source_column(obs, mapping, "plate"), found)

    @property
    def context(self) -> list[str]:
        """Columns that a control shares with the cells it serves."""
        return [c for c in (*self.place, self.time) if c is not None]

    @property
    def place(self) -> list[str]:
        """Cell line, batch and, if samples are split by it, donor."""
        known = set(map(plain_name, CELL_EXTRAS["donor"]))
        donor = next((c for said, c in self.by.items() if said == "donor" or plain_name(c) in known), None)
        return [c for c in (self.cell_line, self.batch, donor) if c is not None]

    @property
    def time(self) -> str | None:
        """The column of times, if samples are split by it."""
        return next((c for said, c in self.by.items() if said == "time" or is_alias(c, "time")), None)

    @property
    def key(self) -> list[str]:
        """Columns whose values make a sample."""
        return list(dict.fromkeys([self.perturbation, *self.context, *self.by.values()]))


@dataclass(frozen=True)
class Groups:
    """Groups of cells: first the samples, then the controls of each context.

    ``of_cell`` has the group of every cell, ``half`` whether a cell is in the first half of its group (equal halves,
    by a hash of the cell's name, whatever the order of the cells).
    """

    of_cell: Int64  # (n_cells,)
    half: Mask  # (n_cells,)
    size: Int64  # (n_groups,)
    obs: pd.DataFrame  # one row per group: key columns and whatever all cells of every group share
    n_samples: int
    mixed: tuple[str, ...]  # columns that differ within samples
    few: frozenset[str]  # of these, columns of few values, none of them measured
    spelt: dict[str, str]  # names of perturbations that were joined to another spelling of the same

    @property
    def n_groups(self) -> int:
        return len(self.size)


def group_cells(
    obs: pd.DataFrame, is_control: Mask, sources: Sources, *, where: str, already: str | None = None
) -> Groups:
    """Groups of the cells of a table.

    Parameters
    ----------
    obs : one row per cell.
    is_control : (n_cells,) mask; controls are grouped by batch, all others by what was done.
    sources : which columns say what.
    where : the file, for messages.
    already : column that says of how many cells each row is the sum; None if rows are cells.

    Raises
    ------
    InputError
        A key column is empty for some cells.
    """
    treated = obs[sources.perturbation][~is_control].dropna()
    spelt = one_spelling(str(v).strip() for v in treated.unique())
    obs = obs.assign(**{sources.perturbation: _respelt(obs[sources.perturbation], spelt)}) if spelt else obs
    codes = {name: _codes(obs[name], name, obs.index, where=where, is_control=is_control) for name in sources.key}
    of_sample = _combined([codes[c] for c in sources.key], ~is_control)
    controls = _combined([codes[c] for c in sources.context], is_control)
    n_samples = int(of_sample.max(initial=-1)) + 1
    of_cell = np.where(is_control, controls + n_samples, of_sample)
    each = np.ones(len(obs)) if already is None else pd.to_numeric(obs[already], errors="coerce").fillna(0).to_numpy()
    size = np.bincount(of_cell, weights=each, minlength=n_samples).astype(np.int64)
    first = np.full(len(size), -1, dtype=np.int64)
    first[of_cell[::-1]] = np.arange(len(obs) - 1, -1, -1)
    kept, mixed, few = _shared(obs, of_cell, first, n_samples=n_samples, sources=sources)
    table = obs.iloc[first][kept]
    return Groups(
        of_cell,
        halves(obs.index, of_cell),
        size,
        obs=table,
        n_samples=n_samples,
        mixed=tuple(mixed),
        few=frozenset(few),
        spelt=spelt,
    )


def _respelt(column: pd.Series[Any], spelt: Mapping[str, str]) -> pd.Series[Any]:
    codes, values = pd.factorize(column)
    names = np.array([*(spelt.get(str(v).strip(), v) for v in values), None], dtype=object)
    return pd.Series(names[codes], index=column.index, dtype=object)


def halves(names: pd.Index[Any], of_cell: Int64) -> Mask:
    """(n,) cells of the first half of their group; of an odd number, the first half has one less.

    The order within a group is that of a hash of the cell's name, so it depends on no file and no neighbour.
    """
    keys = pd.util.hash_array(np.asarray(names.astype(str), dtype=object), categorize=False)
    order = np.lexsort((keys, of_cell))
    ordered = of_cell[order]
    begins = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - begins
    size = np.bincount(of_cell)
    return np.asarray(rank < size[of_cell] // 2)


def rows_per_condition(obs: pd.DataFrame, is_control: Mask, columns: Sequence[str]) -> float:
    """Median number of rows that say the same, over treated rows; 0 if there are none.

    Parameters
    ----------
    obs : (n rows).
    is_control : (n,) mask of rows that do not count.
    columns : in which rows must agree; empty cells agree.
    """
    keep = ~is_control
    if not keep.any():
        return 0.0
    codes = [pd.factorize(obs[c], use_na_sentinel=False)[0].astype(np.int64) for c in columns]
    return float(np.median(np.bincount(_combined(codes, keep)[keep])))


def _codes(
    column: pd.Series[Any], name: str, index: pd.Index[Any], *, where: str, is_control: Mask
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Code of each cell's value, as text; the perturbation of a control may be empty."""
    codes, values = pd.factorize(column)
    texts = [str(v).strip() for v in values]
    small, merged = pd.factorize(pd.Index(texts, dtype=object), sort=True)
    found = np.where(codes < 0, -1, small[codes] if len(texts) else -1)
    empty = np.isin(found, [i for i, v in enumerate(merged) if v.casefold() in {"", "nan", "<na>"}]) | (found < 0)
    lacking = empty & ~is_control
    if lacking.any():
        raise InputError(
            f"{where}: column {name!r} is empty for {int(lacking.sum()):,} of {len(index):,} cells: "
            f"{first_few(index[lacking])}. Every cell belongs to one sample. Remove these cells: "
            f'python -c "import anndata; a = anndata.read_h5ad({where!r}); '
            f"k = a.obs[{name!r}].astype(object).map(str).isin(['', 'nan', '<NA>', 'None']); "
            f"a[~k].write_h5ad('kept.h5ad')\", then --data kept.h5ad. Or name another "
            f"column with --map."
        )
    return found.astype(np.int64)


def _combined(parts: Sequence[Int64], keep: Mask) -> Int64:
    """One code for the combination of several, 0, 1, ... in the order of the values; -1 if not ``keep``."""
    code = np.zeros(int(keep.sum()), dtype=np.int64)
    for part in parts:
        mine = part[keep]
        low = int(mine.min(initial=0))
        code = code * (int(mine.max(initial=0)) - low + 1) + (mine - low)
        code = np.unique(code, return_inverse=True)[1].astype(np.int64).reshape(-1)
    out = np.full(len(keep), -1, dtype=np.int64)
    out[keep] = code
    return out


def _shared(
    obs: pd.DataFrame, of_cell: Int64, first: Int64, n_samples: int, sources: Sources
) -> tuple[list[str], list[str], list[str]]:
    """Columns in which all cells of every sample agree, the others, and those of the others that hold few values."""
    treated = of_cell < n_samples
    at = first[of_cell[treated]]
    kept: list[str] = []
    mixed: list[str] = []
    few: list[str] = []
    for name in obs.columns:
        if name in sources.key:
            kept.append(name)
            continue
        codes = pd.factorize(obs[name], use_na_sentinel=False)[0]
        if (codes[treated] == codes[at]).all():
            kept.append(name)
            continue
        mixed.append(name)
        if obs[name].dtype.kind != "f" and codes.max(initial=0) < FEW:
            few.append(name)
    return kept, mixed, few


def summed_together(groups: Groups, sources: Sources, where: str) -> list[Finding]:
    """What is said when cells of different doses, times, guides or donors were summed.

    Parameters
    ----------
    groups : of the cells.
    sources : which columns say what.
    where : the file, for messages.
    """

    found = []
    dose = "a weak and a strong dose are then one sample without a dose"
    time = "early and late responses are then one sample without a time"
    logarithm = next((c for c in groups.mixed if LOG_DOSE.search(c)), None)
    for name, column, why in (
        ("dose", alias_of(groups.mixed, "dose") or alias_of(groups.mixed, "log10_dose") or logarithm, dose),
        ("time", alias_of(groups.mixed, "time"), time),
    ):
        if column is not None and column not in sources.key:
            by = name if column == alias_of(groups.mixed, name) else quote(column)
            found.append(
                Finding(
                    "warning",
                    f"mixed_{name}",
                    f"{where}: cells of several values of {column!r} were summed into one sample; {why}. --by {by} "
                    f"keeps them apart.",
                    where=where,
                )
            )
    for name in CELL_EXTRAS:
        column = column_of(groups.mixed, CELL_EXTRAS[name])
        if column is not None and column not in sources.key:
            found.append(
                Finding(
                    "note",
                    f"mixed_{name}",
                    f"{where}: cells of several values of {column!r} were summed into one sample; --by {name} keeps "
                    f"them apart.",
                    where=where,
                )
            )
    return found
