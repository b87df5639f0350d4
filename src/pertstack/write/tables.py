"""Tables for the terminal: leaderboard, checks, gain decomposition, as rich ``Table`` objects.

The same words and numbers as in the report; the leaderboard's own short table lives beside it, in
``verdict/board_text.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from shutil import get_terminal_size

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pertstack.data.taken import Taken
from pertstack.verdict.board import Leaderboard
from pertstack.verdict.checks.facts import Check
from pertstack.verdict.gain.parts import Decomposition
from pertstack.verdict.words import interval, metric_label, number

_STATUS_STYLE = {"issue": "bold red", "tip": "yellow", "passed": "green", "not applicable": "dim"}


def leaderboard_table(board: Leaderboard, *, width: int | None = None, every: bool = False) -> Group | Table:
    """The best ten rows (all with ``every``): canonical and deciding metric with intervals, gain over the best single.

    ``width`` in characters (default: the terminal's); below 130 each row takes two lines, so that nothing is cut off.
    """
    return board.short_table(width=width or get_terminal_size().columns, every=every)


def taken_table(lines: Iterable[Taken]) -> Table:
    """What was taken for what, and the option that changes each line."""
    table = Table(title="Taken from the data", title_justify="left")
    for column in ("what", "from", "shows", "to change it"):
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*(Text(t) for t in (line.what, line.source, line.shows, line.mend)))
    return table


def checks_table(checks: Iterable[Check], *, all_of_them: bool = False) -> Table:
    """Issues and tips first; checks that passed or could not run only when asked for, else counted in the caption."""
    listed = list(checks)
    order = list(_STATUS_STYLE)
    shown = [c for c in listed if all_of_them or c.status in ("issue", "tip")]
    table = Table(title="Checks", title_justify="left", caption_justify="left")
    for column in ("#", "check", "", "what it saw"):
        table.add_column(column, justify="right" if column == "#" else "left")
    for check in sorted(shown, key=lambda c: (order.index(c.status), c.number)):
        style = _STATUS_STYLE[check.status]
        table.add_row(str(check.number), check.title, Text(check.status, style=style), Text(check.message))
    counts = {status: sum(c.status == status for c in listed) for status in order}
    table.caption = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    return table


def decomposition_table(found: Decomposition) -> Table:
    """The gain line by line, as differences in units of each metric."""
    table = Table(title=Text(found.headline), title_justify="left")
    for column in ("view", "of", "difference", "interval", "n", "groups"):
        table.add_column(column, justify="right" if column in ("difference", "n", "groups") else "left")
    for part in found.parts:
        d = part.difference
        of = part.level or metric_label(part.metric)
        style = {1: "green", -1: "red", 0: ""}[part.sign]
        table.add_row(part.view, Text(of), number(d.value, sign=True), Text(interval(d.ci, sign=True)), f"{d.n:,}",
                      f"{d.n_groups:,}", style=style)  # fmt: skip
    return table


def facts_table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Any list of records, columns as in the first."""
    table = Table(title=Text(title), title_justify="left")
    for column in rows[0] if rows else ("none",):
        table.add_column(str(column))
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return table
