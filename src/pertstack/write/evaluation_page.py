"""The page of an evaluation: the report of a study without what only a study has (plan, ledger, weights, test)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pertstack._base.files import write_atomic
from pertstack.verdict.ranking import UNSEEN
from pertstack.write.report import render
from pertstack.write.report_input import ReportInput

TEMPLATE = "evaluation.html.j2"


def evaluation_page(content: ReportInput, models: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the page of an evaluation; its path.

    Parameters
    ----------
    content : as for the report of a study.
    models : one mapping per model: model, files, how, samples, genes.
    path : of the page.
    """
    names = {r.name for r in content.verdict.leaderboard.rows}
    page = render(content, template=TEMPLATE, models=models, unseen=UNSEEN, names=names)
    write_atomic(path, page.encode())
    return path
