"""Standard output and error in every encoding, and when whoever read them has gone.

Work goes on where nobody listens any more (``pertstack run ... | head -1``): what it finds is on disk, and the exit
code stays that of the work.
"""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from pertstack._base.errors import StorageError
from pertstack._base.shown import json_escape

_PLAIN = str.maketrans("−–—⁻²¹×·…▸●◐○✓⚠★─━│┃±", "----21x.~>#%o+!*--||~")
"""Our own signs, each as one that every terminal has."""


class Voice(Console):
    """A console that falls silent when its reader has gone, and says when its output cannot be written."""

    def on_broken_pipe(self) -> None:
        fall_silent(self.file)  # type: ignore[arg-type]

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich has it. Where the output goes to a full disk, StorageError says that it is not the study."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            fall_silent(self.file)  # type: ignore[arg-type]
            if not self.stderr:  # else nobody is left to be told
                raise not_written(error) from None


def not_written(error: OSError) -> StorageError:
    """Says that the output of a command cannot be written, rather than the study."""
    return StorageError(
        error.errno or 0,
        f"Cannot write the output of this command: {error.strerror or error}. What was finished is kept in the study. "
        f"Run the same command again with its output elsewhere.",
    )


def fall_silent(stream: TextIO) -> None:
    """What is still written to a stream goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def takes_all(stream: TextIO) -> bool:
    """Whether every character can be written to a stream."""
    encoding: str | None = stream.encoding  # None of a text in memory
    return encoding is None or codecs.lookup(encoding).name.startswith("utf")


def speak_on_any_terminal() -> None:
    """Show what the encoding of this process's output lacks instead of failing on it.

    Our signs become plain ones, all else is spelt out as in JSON: ``R2``, ``-0.07`` and ``\\u03b2`` in ASCII. A stream
    that was closed before we began goes nowhere.
    """
    codecs.register_error("pertstack", _in_other_signs)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):  # what a notebook and a test put in their place takes any text
            stream.reconfigure(errors="pertstack")


def _in_other_signs(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(c if c.isascii() else json_escape(c) for c in plain), error.end
