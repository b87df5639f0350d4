"""The table of base models: what each is, what it needs, and whether a study has it."""

from __future__ import annotations

from pathlib import Path
from shutil import get_terminal_size

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pertstack.fit.base import Needs
from pertstack.fit.registry import available, list_models
from pertstack.study.folder import StudyFolder

WIDE = 120
"""Columns from which there is room for a table."""


def models_table(study: Path | None = None, *, width: int | None = None) -> Table | Group:
    """All registered base models; with a study, which can run on it, and why others cannot. Narrow: a list."""
    folder = None if study is None else StudyFolder.open(study)
    if (width or get_terminal_size().columns) < WIDE:
        return _listed(folder)
    table = Table(title="Base models", title_justify="left")
    for column in ("name", "kind", "needs", "what it is"):
        table.add_column(column, overflow="fold")
    if folder is not None:
        table.add_column("on this study", overflow="fold")
    for row in list_models():
        cells = [row.name, row.kind, needs_in_words(row.needs), _plain(row.summary)]
        if folder is not None:
            cells.append(available(row, folder.side, folder.samples) or "ready")
        table.add_row(*cells)
    return table


def _listed(folder: StudyFolder | None) -> Group:
    """A line of names and what is said of each under it."""
    lines: list[Text | Padding] = []
    for row in list_models():
        why = None if folder is None else available(row, folder.side, folder.samples)
        state = "" if folder is None else ", ready" if why is None else ", cannot run here"
        lines.append(Text.assemble((row.name, "bold"), (f"  {row.kind}{state}", "dim")))
        needs = needs_in_words(row.needs)
        said = [
            _plain(row.summary),
            *([f"Needs {needs}."] if needs != "nothing" else []),
            *([f"It {why}."] if why else []),
        ]
        lines.append(Padding(Text(" ".join(said)), (0, 0, 0, 4)))
    return Group(*lines)


def _plain(summary: str) -> str:
    """A docstring's first line without its marks for code."""
    return summary.replace("``", "")


def needs_in_words(needs: Needs) -> str:
    """What a model needs, in a few words; "nothing" for a baseline.

    >>> needs_in_words(Needs())
    'nothing'
    """
    parts = []
    if needs.features:
        parts.append(" or ".join(needs.features) + " features")
    if needs.targets:
        parts.append("target genes")
    if needs.graph:
        parts.append("a gene graph")
    if needs.extra:
        parts.append(f"pip extra [{needs.extra}]")
    if not needs.unseen_perturbation:
        parts.append("perturbations it has seen")
    if not needs.unseen_cell_line:
        parts.append("cell lines it has seen")
    return ", ".join(parts) or "nothing"
