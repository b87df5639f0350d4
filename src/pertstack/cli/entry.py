"""The door: one thin command per step. Results go to standard output, progress and warnings to standard error.

Exit codes: 0 done; 2 wrong usage or bad input; 3 refused for integrity; 1 a defect of ours.
"""

from __future__ import annotations

import errno
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

import pertstack._base.machine.allocator  # noqa: F401  before anything imports pyarrow
from pertstack._base.errors import StackingError
from pertstack._base.files import storage_error
from pertstack._base.machine.progress import show_progress
from pertstack._base.machine.streams import fall_silent, not_written, speak_on_any_terminal
from pertstack._base.version import __version__

from pertstack.cli import making, fitting, steps, answers, evaluate  # isort: skip
from pertstack.cli.terminal import USAGE_ERROR, app, out, say

COMMANDS = (making, fitting, steps, answers, evaluate)
"""The files of commands, imported in the order in which ``--help`` lists them."""

__all__ = ["COMMANDS", "app", "main"]


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        out(f"pertstack {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: our errors become a message and an exit code, never a traceback (unless --debug)."""
    debug = "--debug" in sys.argv
    speak_on_any_terminal()
    show_progress(True)
    if broken := [word for word in sys.argv[1:] if not _is_text(word)]:
        mend = _MEND_LOCALE if _is_narrow() else "Rename the file or folder."
        say(f"Error: {broken[0]!r} is no text in UTF-8, and the ledger keeps what is named. {mend}")
        sys.exit(2)
    try:
        code = _command()(standalone_mode=False)
        if code == 130:  # how typer reports Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        say("Interrupted. What was finished is kept; run the same command again to go on.")
        sys.exit(130)
    except StackingError as error:
        if debug:
            traceback.print_exc()
        say(f"Error: {error if error.args else type(error).__name__}")
        sys.exit(error.exit_code)
    except UnicodeEncodeError as error:
        if debug or not _is_narrow():
            raise
        say(f"Error: {error.object!r} cannot be the name of a file here. {_MEND_LOCALE}")
        sys.exit(2)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, *_NO_SUCH_PLACE}:
            raise
        if debug:
            traceback.print_exc()
        said: object = storage_error(error, Path(str(error.filename or "the study")))
        if _raised_in(error).startswith(("rich.", "click.", "typer.")):  # help, which typer writes
            fall_silent(sys.stdout)
            said = not_written(error)
        if error.errno in _NO_SUCH_PLACE:
            said = f"{str(error.filename)!r} cannot be used: {error.strerror}. Check the path."
        say(f"Error: {said}")
        sys.exit(2)


def _raised_in(error: OSError) -> str:
    """The module from which an error came."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"])


@cache
def _command() -> Any:
    """The commands with their options, made once if several are run in one process."""
    return typer.main.get_command(app)


_NO_SUCH_PLACE = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR})
"""What the system says of a path that somebody named and that leads nowhere."""


_MEND_LOCALE = (
    f"Python writes names of files in {sys.getfilesystemencoding()!r} with these settings. Set the environment "
    f"variable PYTHONUTF8=1, or LC_ALL=C.UTF-8, and run the same command again."
)


def _is_narrow() -> bool:
    """Whether files cannot be given every name, by the settings under which this Python began."""
    return not sys.getfilesystemencoding().startswith("utf")


def _is_text(word: str) -> bool:
    """Whether a word of the command line can be written down: the system hands on any bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True
