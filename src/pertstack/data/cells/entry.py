"""Where a reader of files asks about cells: are these rows cells, and if so, the samples they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.cells.choice import CellChoice
from pertstack.data.cells.groups import Groups, Mask, Sources, rows_per_condition
from pertstack.data.cells.pseudobulk import CellSums, Pseudobulk, pseudobulk
from pertstack.data.cells.recognise import ALREADY, MANY, Look, look_at
from pertstack.data.choices import ControlChoice
from pertstack.data.readers.columns.aliases import AMOUNTS, CELL_EXTRAS, alias_names, alias_of, plain_name
from pertstack.data.readers.matrices import RowSource
from pertstack.data.readers.refused import no_control_rows

_LINES = re.compile(r"(?i)cell|line$|context|tissue|model|cvcl|depmap|strain|species|organism")
_WORDS = {"cell_line": "cell line", "plate": "batch"}
_BATCHES = re.compile(r"(?i)batch|lane|librar|run$|channel|replicate|rep$|well|experiment|pool|sample|orig.?ident|chip")
"""What names of such columns contain."""


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
        """A warning if rows that may be cells are taken as samples."""
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
    """What the rows of a file look like; None if no column says the perturbation, or rows are sums already.

    Parameters
    ----------
    matrix : values of the rows, (n, n_genes).
    obs : (n rows) as the file has it.
    is_control : (n,) mask; None if no control is known.
    mapping : canonical column -> column of ``obs``.
    choice : what the user said of cells; decides before the look of the values does.
    more : columns that are part of what was done, beside the perturbation (the dose in its label).
    """
    already = next((c for c in ALREADY if c in obs.columns), None)
    sources = Sources.find(obs, mapping, (*choice.by, *more), where="the data")
    if sources is None or not len(obs):
        return None
    controls = np.zeros(len(obs), dtype=bool) if is_control is None else is_control
    finer = [alias_of(obs.columns, name) for name in AMOUNTS]
    columns = dict.fromkeys([*sources.key, *(c for c in finer if c is not None)])
    rows = rows_per_condition(obs, controls, list(columns))
    look = look_at(matrix)
    if already is not None:  # sums of counts still have to be made profiles; anything else is a profile
        summed = choice.asked or (look.kind == "counts" and not choice.as_samples)
        return CellLook(sources, look, rows, summed=True, already=already) if summed else None
    of_all = rows_per_condition(obs, controls, [c for c in columns if c != sources.batch])
    cells = look.are_cells(rows) or (look.zeros >= 0.2 and of_all >= MANY and look.kind == "counts")  # small batches
    return CellLook(sources, look, rows, choice.asked or (not choice.as_samples and cells))


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
            f"known. {no_control_rows(obs, mapping, where=where)}"
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
    assert isinstance(made.treated.source, CellSums)
    made.notes.extend(_not_taken(made.treated.source.groups, found.sources, where))
    if found.sources.cell_line is None and not (mapping or {}).get("cell_line", "").startswith("const:"):
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


def _not_taken(groups: Groups, sources: Sources, where: str) -> list[Finding]:
    """A warning if a column that differs within samples may be the perturbation, cell line or batch, and was not
    taken for it."""
    lacking = [
        ("cell_line", "cell_line_not_named", sources.cell_line, _LINES, "effects of several lines are then one"),
        ("plate", "plate_not_named", sources.batch, _BATCHES, "their controls then serve together"),
    ]
    found = []
    guides = {plain_name(n) for n in CELL_EXTRAS["guide"]}
    also = [c for c in groups.mixed if plain_name(c) in alias_names("perturbation") - guides]
    if also:
        text = (
            f"{where}: {sources.perturbation!r} is taken for the perturbation, and cells of several values of "
            f"{first_few(also)} were summed into one sample. If that is what was done to them, say --map "
            f"perturbation={quote(str(also[0]))}; to keep both apart, --by {quote(str(also[0]))}."
        )
        found.append(Finding("warning", "perturbation_elsewhere", text, len(also), tuple(also), where=where))
    for name, code, source, sounds, why in lacking:
        columns = [c for c in groups.mixed if c not in sources.key and c in groups.few and sounds.search(str(c))]
        if source is None and columns:
            text = (
                f"{where}: no column is known to say the {_WORDS[name]}, and cells of several values of "
                f"{first_few(columns)} were summed into one sample: {why}. If it is one, say "
                f"--map {name}={quote(str(columns[0]))}."
            )
            found.append(Finding("warning", code, text, len(columns), tuple(columns), where=where))
    return found
