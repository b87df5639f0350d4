"""The ledger of a study: what was done, in append-only lines that each carry the digest of the line before.

A line is on the disk before ``append`` returns, so whoever writes "look" first and opens the test afterwards cannot
look without a trace. Changing, removing or reordering lines breaks the chain and ``verify`` names the line; cutting
off the end is found by the heads that results keep. What the kinds of entries mean is up to those who write
them.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_json, own_digest_fits, with_own_digest
from pertstack._base.errors import CorruptionError, InputError, StackingError
from pertstack._base.files import fsync_directory, read_json, storage_error, write_json
from pertstack._base.findings import Finding

START = "0" * 64
LOOK, TORN = "look", "torn_line"
SKEW = timedelta(minutes=10)
"""By how much the clocks of two machines that share a study may differ."""
_FIELDS = ("index", "time", "who", "kind", "facts", "previous", "digest")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger. ``digest`` covers all other fields, ``previous`` is the digest of the entry before."""

    index: int
    time: str  # ISO 8601, UTC
    who: str
    kind: str
    facts: Mapping[str, Any]
    previous: str
    digest: str

    @classmethod
    def make(cls, index: int, time: str, who: str, *, kind: str, facts: Mapping[str, Any], previous: str) -> Entry:
        """An entry with its digest.

        Parameters
        ----------
        index : from 0.
        time : UTC, ISO 8601.
        who : the user.
        kind : what was done.
        facts : plain JSON.
        previous : digest of the entry before.
        """
        body = {"index": index, "time": time, "who": who, "kind": kind, "facts": dict(facts), "previous": previous}
        return cls(index, time, who, kind=kind, facts=dict(facts), previous=previous, digest=digest_json(body))

    def to_json(self) -> dict[str, Any]:
        return {name: dict(self.facts) if name == "facts" else getattr(self, name) for name in _FIELDS}

    @property
    def is_sound(self) -> bool:
        """Whether the fields are the ones the digest was taken of."""
        again = Entry.make(self.index, self.time, self.who, kind=self.kind, facts=self.facts, previous=self.previous)
        return again.digest == self.digest


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
            with _locked(path) as fd:
                lines, torn = _split(path.read_bytes())
                entries = self._sound(lines)
                stamp = _stamp(time)
                by = _who() if who is None else who
                addition = b""
                whole = _parse(torn) if torn else None
                if whole is not None and whole.is_sound and whole.previous == _head(entries):
                    entries.append(whole)  # only its line end was lost
                    addition = b"\n"
                elif torn:
                    addition = b"\n"
                    note = {"line": len(lines) + 1, "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
                    entries.append(Entry.make(len(entries), stamp, by, kind=TORN, facts=note, previous=_head(entries)))
                    addition += _line(entries[-1])
                entry = Entry.make(len(entries), stamp, by, kind=kind, facts=facts, previous=_head(entries))
                _write(fd, addition + _line(entry))
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
        lines, _ = _split(self._bytes())
        return _entries(Path(self.path), lines)

    def require_whole(self) -> None:
        """Refuse to go on with a ledger whose chain or end is broken.

        Raises
        ------
        CorruptionError
            A line was changed, or the end that was remembered is gone.
        """
        lines, _ = _split(self._bytes())
        self._sound(lines)

    def _sound(self, lines: list[bytes]) -> list[Entry]:
        """Entries of a chain that holds and has the end that was remembered."""
        entries = list(_entries(Path(self.path), lines))
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
        return _head(self.entries())

    def verify(self, heads: Iterable[str] = ()) -> list[Finding]:
        """What is wrong with the ledger: one finding per bad line, none when all is well.

        Parameters
        ----------
        heads : iterable of str
            Digests that results say the ledger ended with when they were made; each must be in the chain.
        """
        path = Path(self.path)
        lines, torn = _split(self._bytes())
        findings = _check(path, lines)
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
        findings += _times(path, [e for e in map(_parse, lines) if e is not None])
        known = {START, *(e.digest for e in map(_parse, lines) if e is not None)}
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
        wanted = head.strip().casefold()
        if len(wanted) < 12:
            raise InputError(f"{head!r} is too short. Give at least the first 12 characters of a digest of the ledger.")
        if any(e.digest.startswith(wanted) for e in self.entries()):
            return []
        text = f"{self.path} has no entry {wanted[:12]}, which was noted as its end: the study is an older copy, was "
        text += "written anew, or the digest is of another study."
        return [Finding("error", "ledger_not_as_noted", text, where=str(self.path), numbers={"head": wanted})]

    def _bytes(self) -> bytes:
        path = Path(self.path)
        return path.read_bytes() if path.exists() else b""


def _entries(path: Path, lines: list[bytes]) -> tuple[Entry, ...]:
    """The entries of lines that form a chain; the first break is an error."""
    problems = [f for f in _check(path, lines) if f.severity == "error"]
    if problems:
        raise CorruptionError(problems[0].message)
    return tuple(e for e in map(_parse, lines) if e is not None)


def _split(raw: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines, and what follows the last line end (b"" when nothing does)."""
    *lines, rest = raw.split(b"\n")
    return lines, rest


def _parse(line: bytes) -> Entry | None:
    """The entry of a line, or None when it is not one."""
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != set(_FIELDS) or not isinstance(value["facts"], dict):
        return None
    texts = [value[name] for name in _FIELDS if name not in ("index", "facts")]
    if type(value["index"]) is not int or not all(isinstance(t, str) for t in texts):
        return None
    return Entry(**value)


def _check(path: Path, lines: list[bytes]) -> list[Finding]:
    """Findings for every line that is no entry, was changed, or does not follow the one before."""
    findings: list[Finding] = []
    previous, index = START, 0
    for number, line in enumerate(lines, start=1):
        entry = _parse(line)
        if entry is None:
            findings.append(_unreadable(path, number, line, lines[number] if number < len(lines) else b""))
            continue
        why = ""
        if not entry.is_sound:
            why = "was changed after it was written (its digest does not fit)"
        elif entry.previous != previous or entry.index != index:
            why = "does not follow the line before (lines were removed, added or reordered)"
        if why:
            findings.append(
                Finding(
                    "error",
                    "ledger_tampered",
                    f"{path} line {number} ({entry.kind} of {entry.time}) {why}. The ledger is the record of looks and "
                    f"withdrawals, so nothing after this line can be trusted. Restore it from a copy.",
                    where=f"{path}:{number}",
                    numbers={"line": number, "index": entry.index},
                )
            )
        previous, index = entry.digest, entry.index + 1
    return findings


def _times(path: Path, entries: list[Entry]) -> list[Finding]:
    """One finding when lines are dated before the line above them: a clock that was set back, or another machine's."""
    found = [(e, at) for e, at in zip(entries[1:], entries, strict=False) if _moment(e) < _moment(at) - SKEW]
    if not found:
        return []
    entry, before = found[0]
    text = f"{path} line {entry.index + 1} ({entry.kind}) is dated {entry.time}, and the line before it {before.time}: "
    text += "a clock was set back, or two machines differ. Lines are in the order in which they were written; their "
    text += "dates are what the machine said."
    labels = tuple(f"line {e.index + 1}" for e, _ in found)
    return [Finding("warning", "ledger_times", text, count=len(found), examples=labels[:10], where=str(path))]


def _moment(entry: Entry) -> datetime:
    try:
        found = datetime.fromisoformat(entry.time)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _unreadable(path: Path, number: int, line: bytes, following: bytes) -> Finding:
    """A line that is no entry: a torn one when the next entry names it with its digest, else damage."""
    note = _parse(following)
    facts = note.facts if note is not None and note.kind == TORN else {}
    if facts.get("sha256") == hashlib.sha256(line).hexdigest() and facts.get("line") == number:
        message = (
            f"{path} line {number} was torn by a crash while it was written; the next entry names it. Nothing to do."
        )
        return Finding("warning", "ledger_torn_line", message, where=f"{path}:{number}", numbers={"line": number})
    return Finding(
        "error",
        "ledger_unreadable",
        f"{path} line {number} is not a ledger entry ({len(line)} bytes). Somebody wrote into the file, or the disk "
        f"damaged it. Restore it from a copy.",
        where=f"{path}:{number}",
        numbers={"line": number},
    )


def _head(entries: Iterable[Entry]) -> str:
    last = START
    for entry in entries:
        last = entry.digest
    return last


def _line(entry: Entry) -> bytes:
    return json.dumps(entry.to_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _stamp(time: datetime | None) -> str:
    """ISO time in UTC; a time without zone is taken as UTC."""
    moment = datetime.now(UTC) if time is None else time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


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
