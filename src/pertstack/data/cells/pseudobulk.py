"""Cells to pseudobulk samples: one pass over the cells, and a data file of the profiles that come of it.

A sample is a perturbation in a cell line and batch (and whatever else ``CellChoice.by`` names); its control is that of
the cells' own line and batch, or of the whole line if the batch has none. The cells are read once and never held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.cells.choice import IN_WORDS, CellChoice, Kind
from pertstack.data.cells.entries import Int64
from pertstack.data.cells.groups import ONE_LINE, Groups, Mask, Sources, group_cells, summed_together
from pertstack.data.cells.profiles import Profiles, profile
from pertstack.data.cells.recognise import MENDS, how_to_mend
from pertstack.data.cells.serving import Serving
from pertstack.data.cells.summing import sum_cells
from pertstack.data.cells.sums import SUM, GroupSums
from pertstack.data.choices import Normalise
from pertstack.data.labels import spelling_finding
from pertstack.data.readers.columns.columns import canonical_obs
from pertstack.data.readers.matrices import Float32, RowSource

_RAW = "Sum counts if the file has them (--treated-layer counts), or take logarithms first: sc.pp.log1p(data)."


@dataclass(frozen=True)
class Pseudobulk:
    """Samples made of cells."""

    obs: pd.DataFrame  # canonical, one row per sample, with n_cells
    treated: Profiles
    control: RowSource
    reference: str  # where controls came from, in words
    made: str  # "360,000 cells -> 900 pseudobulk samples ..."
    counts: bool  # the values are sums of counts, as asked
    cells: pd.Series[Any]  # sample id by name of the cell; None for controls and cells left out
    notes: list[Finding]


@dataclass(frozen=True)
class CellSums:
    """Sums over the cells of a file, made in one pass when first asked for."""

    matrix: RowSource
    groups: Groups
    kind: Kind
    normalise: Normalise
    names: pd.Index[Any]  # of the cells
    where: str

    @property
    def n_genes(self) -> int:
        return self.matrix.shape[1]

    @cached_property
    def sums(self) -> GroupSums:
        """One pass over the cells; InputError if a cell cannot be summed."""
        return sum_cells(
            self.matrix, self.groups, self.kind, normalise=self.normalise, names=self.names, where=self.where
        )


@dataclass(frozen=True)
class Served:
    """The control of every sample: the profile of a pool of control groups. A ``RowSource``."""

    source: CellSums
    pools: list[Int64]
    of_sample: Int64

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.of_sample), self.source.n_genes

    def rows(self, start: int, stop: int) -> Float32:
        """Rows start..stop, float32."""
        return np.asarray(self.profiles[self.of_sample[start:stop]])

    @cached_property
    def profiles(self) -> Float32:
        """(n_pools, n_genes)"""
        sums = self.source.sums
        out = np.empty((len(self.pools), sums.n_genes), dtype=np.float32)
        for i, pool in enumerate(self.pools):
            total = sums.values[pool, :, SUM].sum(axis=0, keepdims=True)
            n, depth = sums.n_cells[pool].sum(keepdims=True), sums.depth[pool, 0].sum(keepdims=True)
            out[i] = profile(total, n, depth, normalise=self.source.normalise)[0]
        return out


def pseudobulk(
    matrix: RowSource,
    obs: pd.DataFrame,
    is_control: Mask,
    *,
    sources: Sources,
    mapping: Mapping[str, str] | None,
    kind: Kind,
    choice: CellChoice,
    by_batch: bool = True,
    already: str | None = None,
    where: str = "the data",
) -> Pseudobulk:
    """Samples of a table of cells. The cells are read when a value is first asked for.

    Parameters
    ----------
    matrix : values of the cells, (n_cells, n_genes).
    obs : one row per cell.
    is_control : (n_cells,) bool
    sources : which columns say what.
    mapping : canonical column -> column of ``obs``.
    kind : what the values are.
    choice : how sums become profiles, and the least number of cells of a sample.
    by_batch : controls of the cells' batch, if it has any; else those of the cell line.
    already : a column that says of how many cells a row is the sum already; None if rows are cells.
    where : the file, for messages.

    Raises
    ------
    InputError
        A key that is empty for some cells, no control, no sample with enough cells.
    """
    normalise = _space(matrix, kind, choice, where=where)
    if is_control.all():
        raise InputError(f"{where}: all {len(obs):,} cells are controls. There is no perturbation to predict.")
    groups = group_cells(obs, is_control, sources, where=where, already=already)
    kept = np.flatnonzero(groups.size[: groups.n_samples] >= choice.min_cells)
    if not len(kept):
        raise InputError(
            f"{where}: no sample has {choice.min_cells} cells; the largest of {groups.n_samples:,} has "
            f"{int(groups.size[: groups.n_samples].max())}. If rows are cells, take fewer with --min-cells "
            f"{max(1, int(np.median(groups.size[: groups.n_samples])))}"
            f"{', or those of all batches together with --map plate=none' if sources.batch else ''}; if they are "
            f"replicates, keep them apart with "
            f"--cells-as-samples."
        )
    serving = Serving.find(groups, kept, sources, by_batch=by_batch, where=where)
    source = CellSums(matrix, groups, kind, normalise=normalise, names=obs.index, where=where)
    table, notes = _sample_table(groups, kept, sources, mapping=mapping, serving=serving, where=where)
    notes += spelling_finding(groups.spelt, where)
    notes += _left_out(groups, kept, sources, choice)
    notes += serving.notes(choice)
    notes += summed_together(groups, sources, where)
    n_cells, n_controls = int(groups.size[kept].sum()), int(groups.size[groups.n_samples :].sum())
    n_left = int(groups.size.sum()) - n_cells - n_controls
    rows = "cells" if already is None else "sums of cells"
    made = (
        f"{len(obs):,} {rows} -> {len(kept):,} pseudobulk samples ({', '.join(_key_in_words(sources))}): "
        f"{IN_WORDS[normalise]}; {n_cells:,} cells in samples, {n_controls:,} control cells, {n_left:,} left out"
    )
    notes.insert(
        0,
        Finding(
            "note",
            "pseudobulk",
            f"{made}.",
            len(kept),
            where=where,
            numbers={
                "cells": len(obs),
                "samples": len(kept),
                "cells_in_samples": n_cells,
                "control_cells": n_controls,
                "normalise": normalise,
                "min_cells": choice.min_cells,
                "values": kind,
            },
        ),
    )
    divisible = already is None and bool((groups.size[kept] > 1).all())  # sums made elsewhere have no cells to part
    control = Served(source, serving.pools, serving.of_sample)
    return Pseudobulk(
        table,
        Profiles(source, normalise, kept, divisible=divisible),
        control,
        reference=serving.reference,
        made=made,
        counts=normalise == "sum",
        cells=_cells(obs.index, groups, kept, table.index),
        notes=notes,
    )


def _cells(names: pd.Index[Any], groups: Groups, kept: Int64, ids: pd.Index[Any]) -> pd.Series[Any]:
    """The sample of every cell."""
    sample = np.full(groups.n_groups, None, dtype=object)
    sample[kept] = ids.to_numpy(dtype=object)
    return pd.Series(sample[groups.of_cell], index=names.astype(str), dtype=object)


def _space(matrix: RowSource, kind: Kind, choice: CellChoice, *, where: str) -> Normalise:
    """How sums become profiles; InputError if the values allow nothing or not what was asked."""
    if kind == "mixed":
        raise InputError(
            f"{where}: some cells hold counts (whole numbers) and others logarithms. They cannot be summed together. "
            f"Put all cells on one scale, or name the layer of counts with --treated-layer."
        )
    if kind in MENDS:
        raise InputError(f"{where}: {how_to_mend(kind, matrix)}")
    if kind == "other":
        raise InputError(f"{where}: the values of the cells are neither counts nor logarithms. {_RAW}")
    if kind == "log":
        if choice.normalise not in (None, "mean_log1p"):
            raise InputError(
                f"{where}: --normalise {choice.normalise} sums counts, and the values of the cells are logarithms "
                f"of something else. Name the layer of counts with --treated-layer, or average the logarithms: "
                f"--normalise mean_log1p."
            )
        return "mean_log1p"
    return choice.normalise or "cp10k"


def _key_in_words(sources: Sources) -> list[str]:
    parts = ["perturbation", "cell line"] if sources.cell_line is not None else ["perturbation"]
    return parts + (["batch"] if sources.batch is not None else []) + list(sources.by)


def _sample_table(
    groups: Groups, kept: Int64, sources: Sources, *, mapping: Mapping[str, str] | None, serving: Serving, where: str
) -> tuple[pd.DataFrame, list[Finding]]:
    """Canonical metadata of the samples, and notes of what was taken for what."""
    table = groups.obs.iloc[kept].copy()
    chosen = {"perturbation": sources.perturbation}
    if sources.cell_line is not None:
        chosen["cell_line"] = sources.cell_line
    elif (mapping or {}).get("cell_line", "none") == "none":
        chosen["cell_line"] = f"const:{ONE_LINE}"
    if sources.batch is not None:
        chosen["plate"] = sources.batch
    said = {
        name: source if source in table or source.startswith("const:") else "none"
        for name, source in (mapping or {}).items()
        if name != "sample_id"
    }
    for column in sources.key:
        table[column] = [str(v).strip() for v in table[column]]
    table.index = pd.Index(["|".join(row) for row in table[sources.key].to_numpy(dtype=object)])
    out, notes = canonical_obs(table, {**said, **chosen}, where=where)
    out["n_cells"] = groups.size[kept]
    out["control_id"] = serving.ids
    return out, notes


def _left_out(groups: Groups, kept: Int64, sources: Sources, choice: CellChoice) -> list[Finding]:
    out = np.setdiff1d(np.arange(groups.n_samples), kept)
    if not len(out):
        return []
    table = groups.obs.iloc[out]
    names = ["|".join(str(v) for v in row) for row in table[sources.key].to_numpy(dtype=object)]
    gone = set(table[sources.perturbation].astype(str)) - set(groups.obs.iloc[kept][sources.perturbation].astype(str))
    whole = f" {len(gone):,} perturbations are lost altogether: {first_few(sorted(gone))}." if gone else ""
    return [
        Finding(
            "warning",
            "few_cells",
            f"{len(out):,} of {groups.n_samples:,} samples have fewer than {choice.min_cells} cells and were left out, "
            f"with {int(groups.size[out].sum()):,} cells: {first_few(names)}.{whole} --min-cells changes the limit.",
            count=len(out),
            examples=tuple(names[:10]),
            numbers={"cells": int(groups.size[out].sum()), "perturbations_lost": len(gone)},
        )
    ]
