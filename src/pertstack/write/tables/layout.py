"""Tables for the terminal: the leaderboard, and what was taken from the data, as rich ``Table`` objects.

The same words and numbers as in the report; the leaderboard's own short table lives beside it, in
``verdict/boards/text.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from shutil import get_terminal_size

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pertstack.data.taken import Taken
from pertstack.verdict.boards.board import Leaderboard


def leaderboard_table(
    board: Leaderboard, *, width: int | None = None, every: bool = False, all_rows: str = "--all"
) -> Group | Table:
    """The best ten rows: canonical and deciding metric with intervals, gain over the best single.

    Parameters
    ----------
    board : to print.
    width : in characters, None for the terminal's; below 130 each row takes two lines, so that nothing is cut off.
    every : all rows.
    all_rows : what to type to see the others.
    """
    return board.short_table(width=width or get_terminal_size().columns, every=every, all_rows=all_rows)


NARROW = 72
"""Columns under which a table of four breaks every word."""


def taken_table(lines: Iterable[Taken], *, width: int | None = None) -> Group | Table:
    """What was taken for what, and the option that changes each line; ``width`` in characters, None: the terminal's.

    Under ``NARROW`` columns a line each, with the option below it.
    """
    width = width or get_terminal_size().columns
    lines = list(lines)
    if width < NARROW:
        return Group(Text("Taken from the data (below each line, how to change it)"), *_taken_lines(lines))
    table = Table(title="Taken from the data", title_justify="left")
    options = [word for line in lines for word in line.mend.split()]  # to be copied: never broken
    for column in ("what", "from", "shows"):
        table.add_column(column, overflow="fold")
    longest = max([12, *map(len, options)])
    table.add_column("to change it", width=longest if width < 100 else None, min_width=longest)
    for line in lines:
        table.add_row(*(Text(t) for t in (line.what, line.source, line.shows, line.mend)))
    return table


def _taken_lines(lines: Iterable[Taken]) -> Iterator[Text]:
    for line in lines:
        yield Text(f"{line.what}: {'; '.join(filter(None, (line.source, line.shows)))}")
        if line.mend:
            yield Text(f"    {line.mend}", style="dim")


def asked_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """What was known at fit time of scored rows and of those that will be predicted."""
    table = Table(title="Known at fit time: scored out of fold, and asked for", title_justify="left")
    columns = ("known at fit time", "level", "scored", "asked", "differs")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[column]) for column in columns))
    return table
