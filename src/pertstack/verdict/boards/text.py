"""The leaderboard as text: the short table and what must be said under it, plain, for a notebook and for a terminal.

What is on the board, and in which order, is handled by ``board.py``; the report's tables, by ``write/``.
"""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from pertstack._base.shown import count_of
from pertstack.design.metric_labels import metric_label
from pertstack.verdict.several import several_in_words
from pertstack.verdict.words import count_units, interval, number

if TYPE_CHECKING:
    from pertstack.verdict.boards.board import Leaderboard
    from pertstack.verdict.boards.rows import LeaderboardRow, ScoreCell, Split


FIRST = 10
"""Rows that a terminal or a notebook shows at first."""
WIDE = 130
"""Columns from which the whole table fits into one line a row."""


def table(board: Leaderboard, split: Split | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the short table, as text."""
    shown = board.shown_metrics()
    measures = [metric_label(m) for m in shown]
    header = ["", "name", "kind", *measures, "gain over best single", "n valid / n", "cautions"]
    lines = []
    for row in board.ranked(split):
        cells = [row.score(m) for m in shown]
        versus, main = row.versus(board.primary), row.score(board.primary)
        lines.append(
            [
                "▸" if row.name == board.ships else "",
                row.name,
                row.kind,
                *(_cell_text(c, main) for c in cells),
                "(best single)"
                if row.name == board.best_single
                else f"{number(versus.value, sign=True)} {interval(versus.ci, sign=True)}".strip()
                if versus
                else "",
                f"{main.n_valid:,} / {main.n:,}" if main else "—",
                str(len(row.cautions) or ""),
            ]
        )
    return header, lines


def footer(board: Leaderboard, split: Split | None = None) -> str:
    """What must be said under every table: split, deciding metric, intervals, looks."""
    shown = split or board.split
    where = "held-out test" if shown == "test" else "out-of-fold rows"
    split_words = "" if board.evaluated else f"Split: {where}. "
    parts = [f"{split_words}Decided on {metric_label(board.primary)}."]
    if board.interval:
        units = board.interval.get("n_units", {}).get(shown)
        unit = str(board.interval.get("unit", "group"))
        level = f"{100 * float(board.interval.get('level', 0.95)):.0f} %"
        sharing = board.interval.get("n_sharing_parts", {}).get(shown, 0)
        wider = f", {sharing:,} of which share parts, so their scores go together and intervals are wider for it"
        drawn = count_units(units, unit) if units else "whole groups"
        parts.append(f"Intervals: {level}, resampling {drawn}{wider if sharing else ''}.")
    if board.evaluated:
        parts.append("Nothing was fitted, held out or chosen here.")
        return " ".join(parts)
    parts.append(f"The test has been opened {count_of(board.test_looks, 'time')}.")
    if board.exploratory:
        parts.append("EXPLORATORY: the plan was changed after the first look.")
    return " ".join(parts)


def _first_and_rest(board: Leaderboard) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Header; the lines of the best ten rows, of what ships and of the best single model; the other lines."""
    header, lines = table(board)
    kept, rows = first_names(board), board.ranked()
    first = [line for row, line in zip(rows, lines, strict=True) if row.name in kept]
    return header, first, [line for row, line in zip(rows, lines, strict=True) if row.name not in kept]


def first_names(board: Leaderboard, split: Split | None = None) -> set[str]:
    """Names shown at first: the best ten, what was chosen, what ships, the best single model."""
    ranked = board.ranked(split)
    return {r.name for r in ranked[:FIRST]} | {n for n in (board.ships, board.chosen, board.best_single) if n}


def plain(board: Leaderboard) -> str:
    """The headline, the best rows in columns and the footer, as text without any style."""
    header, lines, rest = _first_and_rest(board)
    widths = [max(cell_len(x[i]) for x in [header, *lines]) for i in range(len(header))]
    text = ["  ".join(set_cell_size(c, w) for c, w in zip(x, widths, strict=True)).rstrip() for x in [header, *lines]]
    more = [f"{count_of(len(rest), 'more row')}: .to_frame() has them all."] if rest else []
    return "\n".join([*([board.headline] if board.headline else []), *text, *more, footer(board)])


def html(board: Leaderboard) -> str:
    """The same as a table for a notebook, the other rows folded away; every name is escaped."""
    header, lines, rest = _first_and_rest(board)
    top = f"<p><b>{escape(board.headline)}</b></p>" if board.headline else ""
    more = f"<details><summary>{count_of(len(rest), 'more row')}</summary>{_html_table(header, rest)}</details>"
    return f"{top}{_html_table(header, lines)}{more if rest else ''}<p>{escape(footer(board))}</p>"


def _html_table(header: list[str], lines: list[list[str]]) -> str:
    head = "".join(f"<th style='text-align:left'>{escape(h)}</th>" for h in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(c)}</td>" for c in x) + "</tr>" for x in lines
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def for_console(board: Leaderboard, options: ConsoleOptions) -> RenderResult:
    """The best rows for a terminal, in two lines a row if it is narrow, and what is said of all of them."""
    yield from answer(board)
    yield short_table(board, width=options.max_width)
    for line in several_in_words(board.several, board.chosen):
        yield Text(line)
    yield Text(footer(board), style="dim")


_STYLES = {"green": "bold green", "amber": "bold yellow", "red": "bold red"}


def answer(board: Leaderboard) -> list[Text]:
    """The decision with its light, in words and in colour; the bare headline of a board that has none."""
    if board.decision is None:
        return [Text(board.headline, style="bold")] if board.headline else []
    found = board.decision
    lines = [Text(f"{found.light_words}.", style=_STYLES[found.light]), Text(found.sentence, style="bold")]
    return lines + [Text(f"! {reason}") for reason in found.reasons] + [Text(note, style="dim") for note in found.notes]


def short_table(
    board: Leaderboard, *, width: int, every: bool = False, split: Split | None = None, all_rows: str = "--all"
) -> Group | Table:
    """The best ten rows, what was chosen and the best single model, with a line on how many more there are.

    Parameters
    ----------
    board : to print.
    width : columns of the terminal; under ``WIDE`` each row takes two lines, so that names are never cut and numbers
        never broken.
    every : all rows.
    split : "oof" or "test"; None for the test once it was opened.
    all_rows : what to type to see the others.
    """
    ranked = board.ranked(split)
    kept = first_names(board, split) | ({r.name for r in ranked} if every else set())
    drawn = _rich_table(board, split, only=kept) if width >= WIDE else Group(*_narrow(board, split, kept, width))
    left = len(ranked) - sum(r.name in kept for r in ranked)
    if not left:
        return drawn
    return Group(drawn, Text(f"{count_of(left, 'more row')}: {all_rows}, or the report.", style="dim"))


def _rich_table(board: Leaderboard, split: Split | None = None, *, only: Collection[str] | None = None) -> Table:
    """The table for a wide terminal, one line a row."""
    header, lines = table(board, split)
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for title in header:
        drawn.add_column(title, no_wrap=title == "name")
    for row, line in zip(board.ranked(split), lines, strict=True):
        if only is None or row.name in only:
            drawn.add_row(*map(Text, line), style=_style(board, row))
    return drawn


def _style(board: Leaderboard, row: LeaderboardRow) -> str:
    return "bold" if row.name == board.ships else "dim" if row.kind in ("reference", "ceiling") else ""


def _narrow(board: Leaderboard, split: Split | None, kept: Collection[str], width: int) -> list[Text]:
    """Header, then name and values on one line, kind and intervals on the next; a long name has a line to itself."""
    header, lines = table(board, split)
    n_shown = len(board.shown_metrics())
    most = max(1, (width - 24) // 18 - 1)  # columns of scores that fit beside the gain
    main = 3 + min(n_shown - 1, 1)  # the deciding metric is the second if there are two
    columns = [*dict.fromkeys([3, main] if most > 1 else [main]), 3 + n_shown]
    parts = {row.name: _parts(line, columns) for row, line in zip(board.ranked(split), lines, strict=True)}
    each = max(18, 1 + max((len(p) for name in kept for c in parts.get(name, ()) for p in c), default=0))
    name_width = max(16, width - each * len(columns) - 1)
    titles = [_two_lines(header[c]) for c in columns]
    out = [
        Text(set_cell_size("" if i else "  name", name_width) + "".join(f"{t[i]:>{each}}" for t in titles))
        for i in (0, 1)
    ]
    out.append(Text("─" * min(width, name_width + each * len(columns)), style="dim"))
    for row, line in zip(board.ranked(split), lines, strict=True):
        if row.name not in kept:
            continue
        cells, first, n, cautions = parts[row.name], f"{line[0] or ' '} {row.name}", line[-2].replace(" ", ""), line[-1]
        counts = "" if len(set(n.split("/"))) == 1 else f", n {n}"  # if some samples have no score
        second = f"    {row.kind}{counts}" + (f", ⚠ {cautions}" if cautions else "")
        if cell_len(first) >= name_width:
            out.append(Text(first, style=_style(board, row)))
            first = ""
        for left, i in ((first, 0), (second, 1)):
            words = set_cell_size(set_cell_size(left, name_width - 1), name_width)
            out.append(Text(words + "".join(f"{c[i]:>{each}}" for c in cells), style=_style(board, row)))
    return out


def _parts(line: list[str], columns: list[int]) -> list[list[str]]:
    """Value, and interval or count under it, of some columns of a line."""
    cells = [line[c].replace(" [", "\n[", 1).replace(" (n ", "\n(n ", 1).split("\n")[:2] for c in columns]
    return [[*c, ""][:2] for c in cells]


def _two_lines(title: str) -> tuple[str, str]:
    """A column title over two lines of at most 17 characters: ``R² Top-20`` and ``pooled control``."""
    first, _, rest = title.partition(", ")
    if not rest and len(title) > 17:
        words = title.split(" ")
        first, rest = " ".join(words[:-2]), " ".join(words[-2:])
    return first[:17], rest.rsplit(", ", 1)[-1][:17]


def _cell_text(cell: ScoreCell | None, main: ScoreCell | None) -> str:
    """Score and interval; the count too if it is not that of the deciding metric, which has its own column."""
    if cell is None:
        return "—"
    other = main is not None and cell.n_valid != main.n_valid
    return f"{number(cell.value)} {interval(cell.ci)}".strip() + (f" (n {cell.n_valid:,})" if other else "")
