"""The ledger of a study: what was done, in append-only lines that each carry the digest of the line before.

A line is on the disk before ``append`` returns, so whoever writes "look" first and opens the test afterwards cannot
look without a trace. Changing, removing or reordering lines breaks the chain and ``verify`` names the line; cutting
off the end is found by the heads that results keep. What the kinds of entries mean is up to those who write
them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pertstack._base.digests import own_digest_fits, with_own_digest
from pertstack._base.errors import CorruptionError, InputError, StackingError
from pertstack._base.files import fsync_directory, read_json, require_plain, storage_error, write_json
from pertstack._base.findings import Finding
from pertstack.design.ledger_lines import (
    START,
    TORN,
    Entry,
    check_lines,
    check_times,
    end_of,
    entries_of,
    line_of,
    parse_line,
    split_lines,
    stamp_of,
    user_name,
)

LOOK = "look"


def noted_digest(head: str) -> str:
    """A digest of a ledger as somebody noted it, in lower case.

    Raises
    ------
    InputError
        It is no such digest, or fewer than its first 12 characters: nothing could be told by it.
    """
    if not re.fullmatch("[0-9a-f]{12,64}", wanted := head.strip().casefold()):
        raise InputError(
            f"{head!r} is no digest of a ledger. Give at least the first 12 characters of one, as `verdict` and the "
            f"report print it: 12 to 64 of 0-9 and a-f."
        )
    return wanted


@dataclass(frozen=True)
class Ledger:
    """The ledger in one file of JSON lines; a file that does not exist yet is an empty ledger.

    ``witness`` is a small file beside it that holds the last digest. It is written with every entry and asked before
    the next one, so that a ledger that was cut cannot be continued.
    """

    path: Path
    witness: Path | None = None

    def begin(self, kind: str, **facts: Any) -> Entry:
        """The first entry of a new ledger, whose end is remembered from here on."""
        assert self.witness is not None and not Path(self.path).exists()
        entry = Ledger(self.path).append(kind, **facts)
        write_json(self.witness, with_own_digest({"format": 1, "ledger_head": entry.digest}))
        return entry

    def append(self, kind: str, *, time: datetime | None = None, who: str | None = None, **facts: Any) -> Entry:
        """Add an entry; it is on the disk when this returns.

        A torn last line (a crash while it was written) is kept, closed, and named in a separate entry first.

        Parameters
        ----------
        kind : what was done, such as "look"; not empty.
        time : None for now.
        who : None for the user of this process.
        **facts : plain JSON values.

        Raises
        ------
        CorruptionError
            The chain does not hold up to here, or its end is not the one that was remembered: adding to a broken
            ledger would hide the break.
        StorageError
            The disk refuses.
        """
        if not kind:
            raise InputError("A ledger entry needs a kind, such as 'look' or 'model_withdrawn'.")
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            require_plain(path)
            with _locked(path) as fd:
                lines, torn = split_lines(path.read_bytes())
                entries = self._sound(lines)
                stamp = stamp_of(time)
                by = user_name() if who is None else who
                addition = b""
                whole = parse_line(torn) if torn else None
                if whole is not None and whole.is_sound and whole.previous == end_of(entries):
                    entries.append(whole)  # only its line end was lost
                    addition = b"\n"
                elif torn:
                    addition = b"\n"
                    note = {"line": len(lines) + 1, "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
                    entries.append(Entry.make(len(entries), stamp, by, kind=TORN, facts=note, previous=end_of(entries)))
                    addition += line_of(entries[-1])
                entry = Entry.make(len(entries), stamp, by, kind=kind, facts=facts, previous=end_of(entries))
                _write(fd, addition + line_of(entry))
                fsync_directory(path.parent)
                if self.witness is not None:
                    write_json(self.witness, with_own_digest({"format": 1, "ledger_head": entry.digest}))
        except OSError as error:
            raise storage_error(error, path) from error
        return entry

    def entries(self) -> tuple[Entry, ...]:
        """All whole entries in order (a torn line is none: ``verify`` reports it). The end is not asked for here.

        Raises
        ------
        CorruptionError
            The chain is broken; names the line.
        """
        lines, _ = split_lines(self._bytes())
        return entries_of(Path(self.path), lines)

    def require_whole(self) -> None:
        """Refuse to go on with a ledger whose chain or end is broken.

        Raises
        ------
        CorruptionError
            A line was changed, or the end that was remembered is gone.
        """
        lines, _ = split_lines(self._bytes())
        self._sound(lines)

    def _sound(self, lines: list[bytes]) -> list[Entry]:
        """Entries of a chain that holds and has the end that was remembered."""
        entries = list(entries_of(Path(self.path), lines))
        if self.witness is None:
            return entries
        head = self._remembered()
        if head not in {e.digest for e in entries}:
            raise CorruptionError(
                f"{self.path} has no entry {head[:12]}, with which it ended before: entries were removed from its end, "
                f"or it was replaced. Going on would hide that, so nothing was changed. Restore {self.path} from a "
                "copy."
            )
        return entries

    def _remembered(self) -> str:
        assert self.witness is not None
        try:
            value = read_json(self.witness)
            if isinstance(value, dict) and own_digest_fits(value):
                return str(value["ledger_head"])
        except (StackingError, KeyError):
            pass
        raise CorruptionError(
            f"{self.witness} is gone or damaged. It remembers the end of {self.path}, so that a ledger that was cut "
            "is not continued. Restore it from a copy."
        )

    def of_kind(self, kind: str) -> tuple[Entry, ...]:
        """Entries of one kind, in order."""
        return tuple(e for e in self.entries() if e.kind == kind)

    def looks(self) -> int:
        """How often the held-out test was opened."""
        return len(self.of_kind(LOOK))

    @property
    def head(self) -> str:
        """Digest of the last entry: kept in results, so that a ledger cut short later is found."""
        return end_of(self.entries())

    def verify(self, heads: Iterable[str] = ()) -> list[Finding]:
        """What is wrong with the ledger: one finding per bad line, none when all is well.

        Parameters
        ----------
        heads : iterable of str
            Digests that results say the ledger ended with when they were made; each must be in the chain.
        """
        path = Path(self.path)
        lines, torn = split_lines(self._bytes())
        findings = check_lines(path, lines)
        if torn:
            findings.append(
                Finding(
                    "warning",
                    "ledger_torn_line",
                    f"{path} line {len(lines) + 1} is torn after {len(torn)} bytes: the program or the machine "
                    f"stopped while it was written, so what it was to record did not happen. It is kept, and the next "
                    f"entry will name it.",
                    where=f"{path}:{len(lines) + 1}",
                    numbers={"line": len(lines) + 1, "bytes": len(torn)},
                )
            )
        findings += check_times(path, [e for e in map(parse_line, lines) if e is not None])
        known = {START, *(e.digest for e in map(parse_line, lines) if e is not None)}
        for head in sorted(set(heads) - known):
            findings.append(
                Finding(
                    "error",
                    "ledger_cut_short",
                    f"{path} has no entry {head[:12]}, with which it ended when results were written. Entries were "
                    "removed from its end, or it was replaced. Restore it from a copy; counts of looks cannot be "
                    "trusted until then.",
                    where=str(path),
                    numbers={"head": head},
                )
            )
        return findings

    def expected(self, head: str) -> list[Finding]:
        """A finding when a digest that was written down elsewhere (at least its first 12 characters) is in no entry."""
        wanted = noted_digest(head)
        if any(e.digest.startswith(wanted) for e in self.entries()):
            return []
        text = f"{self.path} has no entry {wanted[:12]}, which was noted as its end: the study is an older copy, was "
        text += "written anew, or the digest is of another study."
        return [Finding("error", "ledger_not_as_noted", text, where=str(self.path), numbers={"head": wanted})]

    def _bytes(self) -> bytes:
        path = Path(self.path)
        require_plain(path)
        return path.read_bytes() if path.exists() else b""


def _write(fd: int, content: bytes) -> None:
    """Write all bytes and wait until the disk has them."""
    while content:
        content = content[os.write(fd, content) :]
    os.fsync(fd)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open for appending with an exclusive lock, so that two processes cannot fork the chain."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)
