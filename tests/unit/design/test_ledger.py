"""The ledger finds what was done to it: changed, removed, reordered, torn, cut short."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pertstack._base.errors import CorruptionError
from pertstack.design.ledger import Ledger
from pertstack.design.ledger_lines import START, TORN, Entry

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    book = Ledger(tmp_path / "ledger.jsonl")
    for i in range(5):
        book.append("look" if i % 2 else "note", time=NOON, who="ada", n=i)
    return book


def lines_of(book: Ledger) -> list[str]:
    return book.path.read_text().splitlines()


def test_entries_come_back_and_chain(ledger: Ledger) -> None:
    entries = ledger.entries()
    assert [e.facts["n"] for e in entries] == list(range(5))
    assert [e.index for e in entries] == list(range(5))
    assert [e.previous for e in entries] == [START, *(e.digest for e in entries[:-1])]
    assert (entries[0].time, entries[0].who) == ("2026-01-02T12:00:00+00:00", "ada")
    assert ledger.looks() == 2
    assert ledger.verify(heads=[e.digest for e in entries]) == []
    assert Ledger(ledger.path.parent / "none.jsonl").entries() == ()


def test_the_digest_is_sha256_of_the_sorted_json_of_the_other_fields(ledger: Ledger) -> None:
    value = json.loads(lines_of(ledger)[3])
    digest = value.pop("digest")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def tampered(lines: list[str], how: str) -> tuple[list[str], int]:
    """Changed lines, and the number of the line where it shows."""
    if how == "change":
        return [*lines[:2], lines[2].replace('"n": 2', '"n": 7'), *lines[3:]], 3
    if how == "remove":
        return [*lines[:2], *lines[3:]], 3
    if how == "swap":
        return [lines[0], lines[2], lines[1], *lines[3:]], 2
    if how == "repeat":
        return [*lines[:3], lines[2], *lines[3:]], 4
    if how == "garble":
        return [*lines[:3], lines[3][:40], *lines[4:]], 4
    value = json.loads(lines[1])
    value["facts"] = {"n": 9}
    value["digest"] = Ledger.__module__
    return [lines[0], json.dumps(value), *lines[2:]], 2


@pytest.mark.parametrize("how", ["change", "remove", "swap", "repeat", "garble", "forge"])
def test_tampering_names_the_line(ledger: Ledger, how: str) -> None:
    changed, line = tampered(lines_of(ledger), how)
    ledger.path.write_text("\n".join(changed) + "\n")
    findings = ledger.verify()
    assert findings[0].severity == "error"
    assert findings[0].numbers["line"] == line
    assert f"line {line}" in findings[0].message
    with pytest.raises(CorruptionError, match=f"line {line}"):
        ledger.append("note")
    with pytest.raises(CorruptionError, match=f"line {line}"):
        ledger.looks()


def test_a_ledger_cut_short_is_found_by_the_heads_that_results_keep(ledger: Ledger) -> None:
    head = ledger.head
    ledger.path.write_text("\n".join(lines_of(ledger)[:3]) + "\n")
    assert ledger.verify() == []
    (finding,) = ledger.verify(heads=[head])
    assert finding.code == "ledger_cut_short"


@pytest.mark.parametrize("keep", [1, 40, -2])
def test_a_torn_last_line_is_reported_kept_and_named(ledger: Ledger, keep: int) -> None:
    raw = ledger.path.read_bytes()
    last = raw.splitlines()[-1]
    ledger.path.write_bytes(raw[: -len(last) - 1] + last[:keep])
    (finding,) = ledger.verify()
    assert (finding.severity, finding.code, finding.numbers["line"]) == ("warning", "ledger_torn_line", 5)
    assert len(ledger.entries()) == 4
    ledger.append("note", time=NOON, who="ada", n=9)
    kinds = [e.kind for e in ledger.entries()]
    assert kinds == ["note", "look", "note", "look", TORN, "note"]
    assert last[:keep] in ledger.path.read_bytes()
    assert [f.severity for f in ledger.verify()] == ["warning"]
    ledger.append("note", n=10)
    assert len(ledger.entries()) == 7


def test_a_line_that_only_lost_its_end_counts(ledger: Ledger) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes()[:-1])
    assert [f.code for f in ledger.verify()] == ["ledger_torn_line"]
    ledger.append("note", n=9)
    assert [e.facts["n"] for e in ledger.entries()] == [0, 1, 2, 3, 4, 9]
    assert ledger.verify() == []


def test_a_forged_torn_line_does_not_hide_damage(ledger: Ledger) -> None:
    """Damage followed by a note that names another digest stays an error."""
    ledger.path.write_bytes(ledger.path.read_bytes() + b'{"torn')
    ledger.append("note", n=9)
    lines = lines_of(ledger)
    lines[5] = '{"torm'
    ledger.path.write_text("\n".join(lines) + "\n")
    assert ledger.verify()[0].code == "ledger_unreadable"


def test_threads_do_not_fork_the_chain(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: book.append("note", n=n), range(40)))
    assert book.verify() == []
    assert sorted(e.facts["n"] for e in book.entries()) == list(range(40))


# -- the end that is remembered ----------------------------------------------------------------------------------------


@pytest.fixture
def witnessed(tmp_path: Path) -> Ledger:
    book = Ledger(tmp_path / "ledger.jsonl", tmp_path / "seals" / "head.json")
    book.begin("study_created", who="ada")
    for i in range(4):
        book.append("look", who="ada", n=i)
    return book


@pytest.mark.parametrize("keep", [0, 1, 3, 4])
def test_a_cut_ledger_is_not_continued(witnessed: Ledger, keep: int) -> None:
    """The attack: cut before the look, then let an ordinary command write the next line and the new end."""
    witnessed.path.write_text("".join(f"{line}\n" for line in lines_of(witnessed)[:keep]))
    before = (witnessed.path.read_bytes(), witnessed.witness.read_bytes())
    for call in (witnessed.require_whole, lambda: witnessed.append("note")):
        with pytest.raises(CorruptionError, match="with which it ended before"):
            call()
    assert (witnessed.path.read_bytes(), witnessed.witness.read_bytes()) == before


@pytest.mark.parametrize("keep", [0, 1, 2, 5])
def test_nor_without_its_witness(witnessed: Ledger, keep: int) -> None:
    witnessed.path.write_text("".join(f"{line}\n" for line in lines_of(witnessed)[:keep]))
    for harm in (lambda p: p.write_text("{}"), lambda p: p.unlink()):
        harm(witnessed.witness)
        with pytest.raises(CorruptionError, match=r"head.json is gone or damaged"):
            witnessed.append("note")


def test_a_crash_between_the_line_and_its_witness_is_no_cut(witnessed: Ledger) -> None:
    """The witness lags one line behind then; the chain holds it still."""
    before = witnessed.witness.read_bytes()
    witnessed.append("note")
    witnessed.witness.write_bytes(before)
    witnessed.append("note")
    assert len(witnessed.entries()) == 7 and witnessed.head in witnessed.witness.read_text()
    assert json.loads(witnessed.witness.read_text())["format"] == 1


@pytest.mark.parametrize("value", ["[]", "7", "{}", '{"index": 5}', "null"])
def test_json_that_is_no_entry_is_named_wherever_it_is(ledger: Ledger, value: str) -> None:
    lines = lines_of(ledger)
    facts = json.dumps({**json.loads(lines[2]), "facts": [1]})
    for wrong, line in ((value, 3), (value, 6), (facts, 3)):
        ledger.path.write_text("\n".join([*lines[: line - 1], wrong, *lines[line:]]) + "\n")
        assert (ledger.verify()[0].code, ledger.verify()[0].numbers["line"]) == ("ledger_unreadable", line)


@pytest.mark.parametrize(
    "spell",
    [
        lambda line: line + b"\r",
        lambda line: line + b" ",
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line.decode().encode("utf-16-le"),
        lambda line: line.replace(b'"kind"', b'"k\\u0069nd"'),
        lambda line: line.replace(b'"kind": ', b'"kind": "nothing of note", "kind": '),
        lambda line: line.replace(b'{"n": ', b'{"n": 7, "n": '),
    ],
)
def test_a_line_in_another_spelling_was_edited(ledger: Ledger, spell) -> None:
    """JSON takes the last of two equal keys, and a reader sees the first."""
    lines = ledger.path.read_bytes().splitlines()
    changed = spell(lines[2])
    assert json.loads(changed) == json.loads(lines[2]) and changed != lines[2]
    ledger.path.write_bytes(b"\n".join([*lines[:2], changed, *lines[3:]]) + b"\n")
    assert (ledger.verify()[0].code, ledger.verify()[0].numbers["line"]) == ("ledger_unreadable", 3)
    with pytest.raises(CorruptionError, match="line 3"):
        ledger.append("note")


def test_a_user_whose_name_is_no_text_is_spelt_out(ledger: Ledger, monkeypatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada\udcff\x1b")
    assert ledger.append("note").who == r"ada\udcff\u001b"
    assert ledger.verify() == []


def test_only_an_entry_about_a_torn_line_excuses_one(ledger: Ledger) -> None:
    """Facts like those of such an entry under another kind are somebody's."""
    ledger.path.write_bytes(ledger.path.read_bytes() + b'{"torn')
    ledger.append("note", n=9)
    lines = lines_of(ledger)
    entry = json.loads(lines[6])
    assert entry["kind"] == TORN
    forged = Entry.make(5, entry["time"], entry["who"], kind="note", facts=entry["facts"], previous=entry["previous"])
    ledger.path.write_text("\n".join([*lines[:6], json.dumps(forged.to_json())]) + "\n")
    assert ledger.verify()[0].code == "ledger_unreadable"
