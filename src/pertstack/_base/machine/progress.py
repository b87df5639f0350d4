"""Progress on standard error: a bar for a terminal, a line every ten seconds where the output goes elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pertstack._base.machine.streams import Voice, fall_silent
from pertstack._base.shown import shown

T = TypeVar("T")
EVERY = 10.0
"""Seconds between two lines when output is not a terminal."""
_enabled = False


def show_progress(on: bool) -> None:
    """Switch progress on (the command line does) or off (the default: the library is silent)."""
    global _enabled
    _enabled = on


class _Lines(Progress):
    """A progress bar without a bar: while it advances, a line every ``EVERY`` seconds to standard error; and one at the
    end of what had a line."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._began = self._said = time.monotonic()
        self._told: set[TaskID] = set()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now, task = time.monotonic(), self.tasks[self.task_ids.index(task_id)]
        ends = task.finished and task_id in self._told  # whoever read "1 of 2" also reads "2 of 2"
        if ends or now - self._said >= EVERY:
            self._said = now
            (self._told.discard if task.finished else self._told.add)(task_id)
            remark(_line(task.description, task.completed, task.total, now - self._began))


def _line(what: str, done: float, total: float | None, seconds: float) -> str:
    """One line of progress for a log.

    >>> _line("fitting combiners", 21, 84, 35)
    'fitting combiners: 21 of 84 (25 %), 0:35 gone, about 1:45 left'
    """
    if not total:
        return f"{what}: {done:,.0f}, {_clock(seconds)} gone"
    left = f", about {_clock(seconds * (total - done) / done)} left" if done else ""
    return f"{what}: {done:,.0f} of {total:,.0f} ({100 * done / total:.0f} %), {_clock(seconds)} gone{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def progress_bar() -> Progress:
    """A rich progress bar on stderr; lines every ten seconds if stderr is no terminal; silent unless switched on."""
    watched = sys.stderr.isatty()
    kind = _Lines if _enabled and not watched else Progress
    return kind(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Voice(stderr=True),
        disable=not (_enabled and watched),
        transient=True,
        auto_refresh=watched,
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar on standard error.

    Parameters
    ----------
    items : passed on as they are.
    description : before the bar.
    total : how many there are, for items without a length; None for a bar without an end.
    """
    with progress_bar() as bar:
        yield from bar.track(items, description=description, total=total)


def remark(text: str) -> None:
    """One line to standard error, when progress is shown."""
    if _enabled:
        try:
            sys.stderr.write(f"{shown(text)}\n")
            sys.stderr.flush()
        except BrokenPipeError:
            fall_silent(sys.stderr)
