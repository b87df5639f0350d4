"""Progress on standard error: a bar where a person watches, silence where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
_enabled = False


def show_progress(on: bool) -> None:
    """Switch bars on (the command line does) or off (the default: importing and calling the library stay silent)."""
    global _enabled
    _enabled = on


def progress_bar() -> Progress:
    """A rich progress bar on stderr; invisible unless switched on and watched by a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), console=console, disable=not (_enabled and sys.stderr.isatty()), transient=True,
    )  # fmt: skip


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar."""
    with progress_bar() as bar:
        yield from bar.track(items, description=description, total=total)
