"""Copies of a study for tests that harm it: contents only, a fifth of the work of ``shutil.copytree``.

A small study is some two thousand files and folders, and hundreds of tests copy one. Times and rights are left behind.
"""

from __future__ import annotations

import os
from pathlib import Path


def copied(source: str | Path, to: str | Path) -> Path:
    """Everything in a folder under another path, whose parents are made; the new folder."""
    Path(to).mkdir(parents=True)
    with os.scandir(source) as entries:
        for entry in entries:
            place = os.path.join(to, entry.name)  # noqa: PTH118 - thousands of Path objects cost more than the copy
            if entry.is_dir():
                copied(entry.path, place)
            else:
                _copy_file(entry.path, place)
    return Path(to)


def _copy_file(source: str, to: str) -> None:
    reading = os.open(source, os.O_RDONLY)
    writing = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        while part := os.read(reading, 1 << 24):
            written = os.write(writing, part)
            assert written == len(part), to
    finally:
        os.close(reading)
        os.close(writing)
