"""The table of base models: what each is, what it needs, and whether a study has it."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from pertstack.fit.base import Needs
from pertstack.fit.registry import available, list_models
from pertstack.study.folder import StudyFolder


def models_table(study: Path | None = None) -> Table:
    """All registered base models; with a study, a column that says which can run on it and why others cannot."""
    folder = None if study is None else StudyFolder.open(study)
    table = Table(title="Base models", title_justify="left")
    for column in ("name", "kind", "needs", "what it is"):
        table.add_column(column, overflow="fold")
    if folder is not None:
        table.add_column("on this study", overflow="fold")
    for row in list_models():
        cells = [row.name, row.kind, needs_in_words(row.needs), row.summary]
        if folder is not None:
            cells.append(available(row, folder.side, folder.samples) or "ready")
        table.add_row(*cells)
    return table


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
