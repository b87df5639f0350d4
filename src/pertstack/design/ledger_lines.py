"""Lines of a ledger: an entry with its digest, how it stands in the file, and what is wrong with lines of no chain.

Which lines are written, and when, is up to ``design/ledger.py``.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_json, digest_or_none
from pertstack._base.errors import CorruptionError
from pertstack._base.findings import Finding
from pertstack._base.shown import spelt_out

START = "0" * 64
TORN = "torn_line"
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
        body = self.to_json()
        del body["digest"]
        return digest_or_none(body) == self.digest


def entries_of(path: Path, lines: list[bytes]) -> tuple[Entry, ...]:
    """The entries of lines that form a chain; the first break is an error."""
    problems = [f for f in check_lines(path, lines) if f.severity == "error"]
    if problems:
        raise CorruptionError(problems[0].message)
    return tuple(e for e in map(parse_line, lines) if e is not None)


def split_lines(raw: bytes) -> tuple[list[bytes], bytes]:
    """Whole lines, and what follows the last line end (b"" when nothing does)."""
    *lines, rest = raw.split(b"\n")
    return lines, rest


def parse_line(line: bytes) -> Entry | None:
    """The entry of a line, or None when it is not one. The bytes are those that were written: JSON has many spellings
    of one value, and a key that is there twice shows a reader something else than the digest was taken of."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != set(_FIELDS) or not isinstance(value["facts"], dict):
        return None
    texts = [value[name] for name in _FIELDS if name not in ("index", "facts")]
    if type(value["index"]) is not int or not all(isinstance(t, str) for t in texts):
        return None
    entry = Entry(**value)
    try:
        return entry if line_of(entry) == line + b"\n" else None
    except ValueError:  # NaN, half a character
        return None


def check_lines(path: Path, lines: list[bytes]) -> list[Finding]:
    """Findings for every line that is no entry, was changed, or does not follow the one before."""
    findings: list[Finding] = []
    previous, index = START, 0
    for number, line in enumerate(lines, start=1):
        entry = parse_line(line)
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


def check_times(path: Path, entries: list[Entry]) -> list[Finding]:
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
    note = parse_line(following)
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


def end_of(entries: Iterable[Entry]) -> str:
    last = START
    for entry in entries:
        last = entry.digest
    return last


def line_of(entry: Entry) -> bytes:
    return json.dumps(entry.to_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def stamp_of(time: datetime | None) -> str:
    """ISO time in UTC; a time without zone is taken as UTC."""
    moment = datetime.now(UTC) if time is None else time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def user_name() -> str:
    try:
        return spelt_out(getpass.getuser())
    except (KeyError, OSError, ImportError):
        return "unknown"
