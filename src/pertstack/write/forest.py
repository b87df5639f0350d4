"""The first figure of the report: every competitor's difference to the best single model, with its interval.

Drawn as HTML that the page lays out itself, so that it reads on a phone and on paper; a few lines of script filter it
and save it as SVG, PNG or CSV. Here its numbers are put into places; the layout is in ``templates/_forest.html.j2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pertstack.design.metric_labels import metric_label
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.figure import gain_of
from pertstack.verdict.boards.rows import LeaderboardRow
from pertstack.verdict.words import interval, number

SHOWN = 10
"""Rows shown before "show all"."""


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One line: texts, and places in percent of the width (None if there is nothing to draw)."""

    name: str
    kind: str
    chosen: bool
    best: bool
    first: bool  # among the rows that are shown at once
    gain: float | None
    low: float | None
    high: float | None
    text: str
    at: float | None
    bar: tuple[float, float] | None  # left end and width
    beyond: str  # "left" or "right" where the value lies outside the axis
    hover: str


def forest(board: Leaderboard) -> dict[str, Any]:
    """``rows`` (best first), ``ticks`` ((percent, text) each), ``label`` of the axis, ``zero`` in percent, ``hidden``.

    Differences are turned so that right of zero is better, whatever the metric. The axis spans the rows shown at once;
    what lies beyond it is marked at the edge and keeps its number.
    """
    ranked = [r for r in board.ranked() if r.kind != "ceiling"] + [r for r in board.ranked() if r.kind == "ceiling"]
    facts = []
    for row in ranked:
        gain, low, high = gain_of(board, row)
        facts.append((row, gain, low, high))
    first = {r.name for r, *_ in facts[:SHOWN]} | {board.chosen, board.ships, board.best_single}
    shown = [x for r, g, lo, hi in facts if r.name in first for x in (g, lo, hi) if x is not None]
    ticks = _axis_ticks(min([0.0, *shown]), max([0.0, *shown]))
    left, right = ticks[0], ticks[-1]

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - left) / (right - left))), 2)

    rows = [_row(board, r, (g, lo, hi), r.name in first, place, (left, right)) for r, g, lo, hi in facts]
    digits = max(1, math.ceil(-math.log10(ticks[1] - ticks[0])))
    return {
        "rows": rows,
        "zero": place(0.0),
        "hidden": sum(not r.first for r in rows),
        "ticks": [(place(t), number(t, digits, sign=True)) for t in ticks],
        "label": metric_label(board.primary),
        "best": board.best_single or "the best single model",
    }


def _row(
    board: Leaderboard,
    row: LeaderboardRow,
    found: tuple[float | None, float | None, float | None],
    first: bool,
    place: Any,
    ends: tuple[float, float],
) -> ForestRow:
    gain, low, high = found
    bar = None
    if low is not None and high is not None:
        bar = (place(low), round(max(0.3, place(high) - place(low)), 2))
    best = row.name == board.best_single
    text = ("best model" if board.evaluated else "best single model") if best else number(gain, sign=True)
    if not best and low is not None and high is not None:
        text += f" {interval((low, high), sign=True)}"
    beyond = "" if gain is None else "left" if gain < ends[0] else "right" if gain > ends[1] else ""
    at = None if gain is None else place(gain)
    hover = _hover(board, row)
    return ForestRow(
        row.name,
        row.kind,
        row.name == board.chosen,
        best=best,
        first=first,
        gain=gain,
        low=low,
        high=high,
        text=text,
        at=at,
        bar=bar,
        beyond=beyond,
        hover=hover,
    )


def _hover(board: Leaderboard, row: LeaderboardRow) -> str:
    """What a reader sees on pointing at a line: the scores themselves, counts, cautions."""
    said = []
    for metric in board.shown_metrics():
        cell = row.score(metric)
        if cell is not None and cell.value is not None:
            counts = f", n {cell.n_valid:,} of {cell.n:,}"
            said.append(f"{metric_label(metric)} {number(cell.value)} {interval(cell.ci)}{counts}".strip())
    return "; ".join([f"{row.name} ({row.kind})", *said, *row.cautions])


def _axis_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, zero among them; at least two.

    >>> _axis_ticks(-0.031, 0.066)
    [-0.05, -0.025, 0.0, 0.025, 0.05, 0.075]
    """
    span = max(high - low, 1e-6)
    for exponent in range(math.floor(math.log10(span)) - 1, math.floor(math.log10(span)) + 2):
        for base in (1, 2, 2.5, 5):
            step = base * 10.0**exponent
            start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if stop - start + 1 <= most:
                stop = max(stop, start + 1)
                return [round(i * step, 12) for i in range(start, stop + 1)]
    return [low, high]
