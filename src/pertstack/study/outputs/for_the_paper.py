"""A methods paragraph and the table of a paper, from what a study says of itself."""

from __future__ import annotations

import csv
import io

from pertstack._base.shown import count_of, shown, spreadsheet_cell
from pertstack.design.metric_labels import metric_label
from pertstack.study.folder import StudyFolder
from pertstack.study.sealed_results import sealed_verdict
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.words import count_units, interval, number

METHODS, TABLE = "methods.txt", "table.csv"


def for_the_paper(folder: StudyFolder) -> dict[str, str]:
    """A methods paragraph and the table, from what the study says of itself."""
    board = Leaderboard.from_json(folder.results / "leaderboard.json")
    return {METHODS: methods_paragraph(folder, board), TABLE: paper_table(board)}


def methods_paragraph(folder: StudyFolder, board: Leaderboard) -> str:
    """What was done, in the words of a methods section; every number is the study's own."""
    plan, facts = folder.plan, folder.choices
    test = plan.table[plan.table["role"] == "test"]
    unit = plan.group_by
    models = sorted({r.name for r in board.rows if r.kind == "base"})
    combined = sorted({r.name for r in board.rows if r.kind == "combiner"})
    sealed = f", encrypted under key {folder.test_key}," if folder.test_key else ""
    opened = {1: "once", 2: "twice"}.get(board.test_looks, f"{board.test_looks} times")
    said = (
        f"{count_of(len(models), 'base model')} ({', '.join(map(shown, models))}) were cross-fitted on {plan.n_folds} "
        f"folds of whole groups ({unit}) with pertstack {board.versions.get('pertstack', 'of unknown version')} (fold "
        f"plan {plan.digest[:12]}, seed {facts.get('seed', 0)}). {count_units(int(test['group'].nunique()), unit)} "
        f"({count_of(len(test), 'sample')}) were held out before anything was fitted{sealed} and opened {opened}"
        f"{' for exploration, after the plan had been changed' if board.exploratory else ''} (ledger digest "
        f"{sealed_verdict(folder) or 'unknown'}). {count_of(len(combined), 'combination')} were learned on out-of-fold "
        f"predictions and scored by weights that had not seen the scored fold; the analysis plan, locked before the "
        f"test was opened, chose one of them or the best single model. The deciding metric was "
        f"{metric_label(board.primary)}. Intervals ({100 * float(board.interval.get('level', 0.95)):.0f} %) come from "
        f"resampling whole groups, and gains are against the best single model, whichever it is. Result: "
        f"{board.headline}"
    )
    return f"{shown(said)}\n"


def paper_table(board: Leaderboard) -> str:
    """One line a row of the test, best first: score and gain with their intervals, as printed in a paper."""
    label = metric_label(board.primary)
    lines = [["name", "kind", label, "interval", "gain over best single", "interval of the gain", "n valid", "n"]]
    for row in board.ranked():
        cell, versus = row.score(board.primary), row.versus(board.primary)
        gain = None if versus is None else versus.value
        lines.append(
            [
                shown(row.name),
                row.kind,
                "" if cell is None else number(cell.value),
                interval(cell.ci) if cell is not None else "",
                "" if gain is None else number(gain, sign=True),
                "" if versus is None else interval(versus.ci, sign=True),
                "" if cell is None else str(cell.n_valid),
                "" if cell is None else str(cell.n),
            ]
        )
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[spreadsheet_cell(c) for c in line] for line in lines])
    return out.getvalue()
