"""Child processes that can be interrupted, also when the tests themselves were started in the background.

A shell without job control starts background commands with SIGINT ignored, and children inherit that.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from typing import Any


def start(words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a command that heeds SIGINT whatever its parent does."""
    return subprocess.Popen(words, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def interrupt(process: subprocess.Popen[Any]) -> None:
    """Ctrl-C for one process."""
    process.send_signal(signal.SIGINT)
