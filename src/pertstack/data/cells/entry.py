"""Where a reader of files asks about cells: are these rows cells, and if so, the samples they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.findings import Finding
from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.groups import Mask, Sources, rows_per_condition
from pertstack.data.cells.pseudobulk import Pseudobulk, pseudobulk
from pertstack.data.cells.recognise import ALREADY, MANY, Look, look_at
from pertstack.data.choices import ControlChoice
from pertstack.data.readers.columns.columns import alias_of
from pertstack.data.readers.control_rows import no_control_rows
from pertstack.data.readers.matrices import RowSource


@dataclass(frozen=True)
class CellLook:
    """What rows look like, and what is done with them."""

    sources: Sources
    look: Look
    rows: float  # of one condition, in the median
    summed: bool
    already: str | None = None  # the column that says of how many cells a row is the sum

    def of_no_use(self, choice: CellChoice) -> bool:
        """Whether rows are as many of one condition as cells are, and their values cannot be summed."""
        return not self.summed and not choice.as_samples and self.rows >= MANY and self.look.kind == "other"

    def notes(self, where: str, choice: CellChoice) -> list[Finding]:
        """A warning where rows that may be cells are taken as samples."""
        like_cells = self.look.zeros >= 0.01 or self.look.kind == "other"
        if self.summed or self.rows < MANY or not like_cells:
            return []
        asked = ", as asked" if choice.as_samples else ""
        mend = "" if choice.as_samples else " Are they cells? --by and --normalise sum them to samples."
        return [
            Finding(
                "warning",
                "cells_as_samples",
                f"{where}: {self.rows:,.0f} rows say the same perturbation, cell line and batch (in the median), and "
                f"every "
                f"row is a sample{asked}. If they are cells, scores are correlations with single cells, which are low "
                f"whatever the model.{mend}",
                where=where,
            )
        ]


def look_at_cells(
    matrix: RowSource,
    obs: pd.DataFrame,
    is_control: Mask | None,
    *,
    mapping: Mapping[str, str] | None,
    choice: CellChoice,
    more: Sequence[str] = (),
) -> CellLook | None:
    """What the rows of a file look like; None where no column says the perturbation, or rows are sums already.

    Parameters
    ----------
    matrix : values of the rows, (n, n_genes).
    obs : (n rows) as the file has it.
    is_control : (n,) mask; None where no control is known.
    mapping : canonical column -> column of ``obs``.
    choice : what the user said of cells; decides before the look of the values does.
    more : columns that are part of what was done, beside the perturbation (the dose in its label).
    """
    already = next((c for c in ALREADY if c in obs.columns), None)
    sources = Sources.find(obs, mapping, (*choice.by, *more), where="the data")
    if sources is None or not len(obs):
        return None
    controls = np.zeros(len(obs), dtype=bool) if is_control is None else is_control
    finer = [alias_of(map(str, obs.columns), name) for name in ("dose", "time")]
    columns = dict.fromkeys([*sources.key, *(c for c in finer if c is not None)])
    rows = rows_per_condition(obs, controls, list(columns))
    look = look_at(matrix)
    if already is not None:  # sums of counts still have to be made profiles; anything else is a profile
        summed = choice.asked or (look.kind == "counts" and not choice.as_samples)
        return CellLook(sources, look, rows, summed=True, already=already) if summed else None
    return CellLook(sources, look, rows, choice.asked or (not choice.as_samples and look.are_cells(rows)))


def made_of_cells(
    matrix: RowSource,
    obs: pd.DataFrame,
    is_control: Mask | None,
    *,
    mapping: Mapping[str, str] | None,
    found: CellLook,
    choice: CellChoice,
    controls: ControlChoice,
    where: str,
) -> Pseudobulk:
    """Samples made of the cells of a file; see ``pseudobulk``.

    Parameters
    ----------
    matrix : values of the cells, (n, n_genes).
    obs : (n rows) as the file has it.
    is_control : (n,) mask; None is refused.
    mapping : canonical column -> column of ``obs``.
    found : from ``look_at_cells``.
    choice : how cells become samples.
    controls : "plate_mean" (of the cells' batch) or "line_mean"; a random single cell is refused.
    where : the file, for messages.

    Raises
    ------
    InputError
        There is no control cell, or something else is wrong; see ``pseudobulk``.
    """
    if is_control is None:
        raise InputError(
            f"{where}: rows are cells ({found.rows:,.0f} of one perturbation, cell line and batch), and no control is "
            f"known. {no_control_rows(obs, mapping)}"
        )
    if controls.endswith("random"):
        raise InputError(
            f"{where}: --controls {controls} takes one row as the control, and rows are cells: a single cell is no "
            f"control. Use --controls {controls.replace('random', 'mean')}."
        )
    made = pseudobulk(
        matrix,
        obs,
        is_control,
        sources=found.sources,
        mapping=mapping,
        kind=found.look.kind,
        choice=choice,
        by_batch=controls == "plate_mean",
        already=found.already,
        where=where,
    )
    if found.sources.cell_line is None:
        made.notes.append(
            Finding(
                "warning",
                "one_cell_line",
                f"No column of {where} says the cell line, so all cells are taken as one line. Name it with --map "
                f"cell_line=const:NAME, or the column with --map cell_line=COLUMN.",
                where=where,
            )
        )
    return made
