"""The leaderboard as text: the short table and what must be said under it, plain, for a notebook and for a terminal.

What stands on the board, and in which order, is the business of ``board.py``; the report's tables, of ``write/``.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pertstack.verdict.several import several_in_words
from pertstack.verdict.words import count_of, count_units, interval, metric_label, number

if TYPE_CHECKING:
    from pertstack.verdict.board import Leaderboard, ScoreCell, Split


def table(board: Leaderboard, split: Split | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the short table, as text."""
    shown = board.shown_metrics()
    measures = [metric_label(m) for m in shown]
    header = ["", "name", "kind", *measures, "gain over best single", "n valid / n", "cautions"]
    lines = []
    for row in board.ranked(split):
        cells = [row.score(m) for m in shown]
        versus, main = row.versus(board.primary), row.score(board.primary)
        lines.append([
            "▸" if row.name == board.chosen else "", row.name, row.kind,
            *(_cell_text(c, main) for c in cells),
            "(best single)" if row.name == board.best_single else
            f"{number(versus.difference, sign=True)} {interval(versus.ci, sign=True)}".strip() if versus else "",
            f"{main.n_valid:,} / {main.n:,}" if main else "—", str(len(row.cautions) or ""),
        ])  # fmt: skip
    return header, lines


def footer(board: Leaderboard, split: Split | None = None) -> str:
    """What must be said under every table: split, deciding metric, intervals, looks."""
    shown = split or board.split
    where = "held-out test" if shown == "test" else "out-of-fold rows"
    parts = [f"Split: {where}. Decided on {metric_label(board.primary)}."]
    if board.interval:
        units = board.interval.get("n_units", {}).get(shown)
        unit = str(board.interval.get("unit", "group"))
        level = f"{100 * float(board.interval.get('level', 0.95)):.0f} %"
        parts.append(f"Intervals: {level}, resampling {count_units(units, unit) if units else 'whole groups'}.")
    parts.append(f"The test has been opened {count_of(board.test_looks, 'time')}.")
    if board.exploratory:
        parts.append("EXPLORATORY: the plan was changed after the first look.")
    return " ".join(parts)


def plain(board: Leaderboard) -> str:
    """The headline, the short table in columns and the footer, as text without any style."""
    header, lines = table(board)
    widths = [max(len(x[i]) for x in [header, *lines]) for i in range(len(header))]
    text = ["  ".join(c.ljust(w) for c, w in zip(x, widths, strict=True)).rstrip() for x in [header, *lines]]
    return "\n".join([*([board.headline] if board.headline else []), *text, footer(board)])


def html(board: Leaderboard) -> str:
    """The same as a table for a notebook; every name is escaped."""
    header, lines = table(board)
    head = "".join(f"<th style='text-align:left'>{escape(h)}</th>" for h in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(c)}</td>" for c in x) + "</tr>" for x in lines
    )
    top = f"<p><b>{escape(board.headline)}</b></p>" if board.headline else ""
    return f"{top}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(footer(board))}</p>"


def for_console(board: Leaderboard, options: ConsoleOptions) -> RenderResult:
    """The same for a terminal, in two lines a row where it is narrow."""
    if board.headline:
        yield Text(board.headline, style="bold")
    yield rich_table(board, narrow=options.max_width < 130)
    for line in several_in_words(board.several):
        yield Text(line)
    yield Text(footer(board), style="dim")


def rich_table(board: Leaderboard, split: Split | None = None, *, narrow: bool = False) -> Table:
    """The table for a terminal. Narrow (80 columns): intervals, kind, counts and cautions on a second line."""
    header, lines = table(board, split)
    n_shown = len(board.shown_metrics())
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    if narrow:
        header = ["name", *header[3 : 4 + n_shown]]
        lines = [_narrow(line, n_shown) for line in lines]
    for title in header:
        drawn.add_column(title, no_wrap=title == "name")
    for row, line in zip(board.ranked(split), lines, strict=True):
        style = "bold" if row.name == board.chosen else "dim" if row.kind in ("reference", "ceiling") else ""
        drawn.add_row(*map(Text, line), style=style)
    return drawn


def _cell_text(cell: ScoreCell | None, main: ScoreCell | None) -> str:
    """Score and interval; the count too where it is not that of the deciding metric, which has a column of its own."""
    if cell is None:
        return "—"
    other = main is not None and cell.n_valid != main.n_valid
    return f"{number(cell.value)} {interval(cell.ci)}".strip() + (f" (n {cell.n_valid:,})" if other else "")


def _narrow(line: list[str], n_shown: int) -> list[str]:
    mark, name, kind, *cells, n, cautions = line
    second = f"{kind}, n {n.replace(' ', '')}" + (f", ⚠ {cautions}" if cautions else "")
    return [f"{mark} {name}".strip() + f"\n{second}", *(c.replace(" [", "\n[", 1) for c in cells[: n_shown + 1])]
