"""The leaderboard of the report as lines of a table: numbers, each line read in words, cautions folded away.

What the numbers mean is decided in ``verdict/``; how the table looks, in ``templates/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pertstack.design.metric_names import find_metric
from pertstack.verdict.boards.rows import LeaderboardRow, ScoreCell
from pertstack.verdict.gain.in_words import MEANINGS
from pertstack.verdict.words import interval, number
from pertstack.write.report_input import ReportInput

SHOWN = ("r2_top20_strict@own", "pearson_all@centroid", "cod_all@own", "rmse_all@own", "sign_acc_top20@own")
"""Beside the canonical and the deciding metric, in the main table."""


def main_table(content: ReportInput) -> dict[str, Any]:
    """The leaderboard with intervals: ``metrics`` (columns), ``lines`` (one a row), ``scaled`` (is there a column)."""
    board = content.verdict.leaderboard
    metrics = board.shown_metrics()
    metrics += [m for w in SHOWN if (m := find_metric(board.metrics(), w)) and m not in metrics]
    scaled = {r["name"]: float(r["scaled"]) for r in content.verdict.scaled.to_dict("records")}
    lines = []
    for row in board.ranked():
        main = row.score(board.primary)
        shipped, cautions = _cautions(row, content)
        lines.append(
            {
                "row": row,
                "chosen": row.name == board.ships,
                "best": row.name == board.best_single,
                "cells": [_cell(row.score(m), main) for m in metrics],
                "scaled": scaled.get(row.name),
                "n": f"{main.n_valid:,} / {main.n:,}" if main else "—",
                "reading": _reading(row, content),
                "not_shipped": shipped,
                "cautions": cautions,
            }
        )
    return {"metrics": metrics, "lines": lines, "scaled": bool(scaled)}


def _cell(cell: ScoreCell | None, main: ScoreCell | None) -> tuple[str, str, float | None]:
    """Number, interval (with the count if it differs from that of the deciding metric), value to sort by."""
    if cell is None:
        return "—", "", None
    n = f"n {cell.n_valid:,}" if main is not None and cell.n_valid != main.n_valid else ""
    return number(cell.value), "\n".join(x for x in (interval(cell.ci), n) if x), cell.value


def _reading(row: LeaderboardRow, content: ReportInput) -> str:
    """One line of the leaderboard in words."""
    board = content.verdict.leaderboard
    if row.name == board.best_single:
        return "the best model" if board.evaluated else "the best single model, which a combination has to beat"
    versus = row.versus(board.primary)
    if row.kind == "ceiling":
        return "a ceiling: it looks at the truth and cannot be shipped"
    if versus is None or versus.value is None:
        return ""
    said = f"{number(versus.value, sign=True)} {interval(versus.ci, sign=True)}".strip()
    found = content.verdict.decompositions.get(row.name)
    if found is not None and row.kind != "base":
        return f"{said}: {MEANINGS[found.reading]}" if not board.evaluated else said
    return said


def _cautions(row: LeaderboardRow, content: ReportInput) -> tuple[str, Sequence[str]]:
    """Why it may not ship ("" if nothing forbids it), and the cautions the reading of the line does not already say."""
    found = content.verdict.decompositions.get(row.name)
    said = [c for c in row.cautions if found is None or c != found.caution]
    forbidden = [c for c in said if c.startswith("not shipped: ")]
    return "; ".join(c.removeprefix("not shipped: ") for c in forbidden), [c for c in said if c not in forbidden]
