"""The leaderboard as a picture: every row's difference to the best single model, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pertstack._base.colours import INK, KIND_STYLE, MUTED, figure_style
from pertstack._base.shown import shown
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import direction
from pertstack.verdict.boards.text import first_names

if TYPE_CHECKING:
    from pertstack.verdict.boards.board import Leaderboard
    from pertstack.verdict.boards.rows import LeaderboardRow, Split

Found = tuple[float | None, float | None, float | None]


def gain_of(board: Leaderboard, row: LeaderboardRow) -> Found:
    """Difference to the best single model on the deciding metric and its bounds, turned so that above zero is better.

    Zero without bounds for the best single model itself; None if nothing was compared.
    """
    if row.name == board.best_single:
        return 0.0, None, None
    versus = row.versus(board.primary)
    if versus is None or versus.value is None:
        return None, None, None
    sign = direction(board.primary)
    low, high = sorted(sign * b for b in versus.ci) if versus.ci else (None, None)
    return sign * versus.value, low, high


def differences_figure(board: Leaderboard, split: Split | None = None, *, every: bool = False) -> Figure:
    """Rows with their difference to the best single model and its interval; right of zero is better.

    Parameters
    ----------
    board : whose deciding metric is drawn.
    split : "oof" or "test"; None for the test once it was opened.
    every : all rows instead of the best ten, what was chosen and the best single model.
    """
    kept = first_names(board, split)
    rows = [r for r in board.ranked(split) if every or r.name in kept][::-1]
    best = board.best_single or "the best single model"
    with figure_style():
        figure = Figure(figsize=(7.4, 0.9 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, row in enumerate(rows):
            _draw(axes, y, row, found=gain_of(board, row), ships=board.ships)
        axes.axvline(0, color=MUTED, lw=1.2, ls=(0, (3, 2)))
        axes.set_yticks(range(len(rows)), [shown(r.name, longest=60) for r in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.name == board.ships else "normal")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="x")
        axes.set_xlabel(f"difference to {shown(best, longest=60)}, {metric_label(board.primary)}", color=INK)
    return figure


def _draw(axes: Axes, y: float, row: LeaderboardRow, found: Found, ships: str | None) -> None:
    gain, low, high = found
    colour, marker = KIND_STYLE[row.kind]
    if gain is None:
        return
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, lw=2.4, alpha=0.45, solid_capstyle="round")
    axes.plot(gain, y, marker, color=colour, ms=8 if row.name == ships else 5.5)
