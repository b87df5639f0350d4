"""A verdict that travels: derived again without data, and every edit, deletion, swap or put-back version is named."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

import pertstack as ps
from copies import copied
from fuzz import many, mutated, tried
from pertstack._base.digests import with_own_digest
from pertstack._base.errors import InputError
from pertstack.design.ledger_lines import Entry
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.outputs.bundle_archive import archived, with_manifest
from pertstack.study.outputs.for_the_paper import METHODS, methods_paragraph
from pertstack.study.sealed_results import sealed_verdict
from pertstack.study.steps.bundle import verify_bundle


@pytest.fixture(scope="module")
def bundled(judged_study, tmp_path_factory):
    """(study, bytes of its bundle, bytes of the bundle of an earlier state: the same study with another verdict)."""
    place = tmp_path_factory.mktemp("bundled")
    study = ps.Study.open(copied(judged_study.folder.root, place / "study"))
    first = study.bundle(place / "first.zip").read_bytes()
    study.stack(["mean"])
    study.verdict(exploratory=True)
    return study, study.bundle(place / "second.zip").read_bytes(), first


def members(raw):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {n: archive.read(n) for n in archive.namelist()}


def verify(tmp_path, raw, **options):
    path = tmp_path / "b.zip"
    path.write_bytes(raw)
    return verify_bundle(path, **options)


def errors(found):
    return {f.where for f in found.findings if f.severity == "error"}


def test_the_headline_comes_out_again_without_the_study(bundled, tmp_path):
    study, raw, _ = bundled
    found = verify(tmp_path, raw, expect_head=sealed_verdict(study.folder))
    assert found.is_sound and found.findings == ()
    assert found.headline == study.headline() and found.looks == 2 and found.exploratory
    assert found.ledger_head == sealed_verdict(study.folder)
    held = members(raw)
    assert not [
        n for n in held if "truth" in n or n.startswith("store") or n.endswith(("samples.parquet", "marks.npz"))
    ]
    paragraph = held[METHODS].decode()
    assert study.plan.digest[:12] in paragraph and "opened twice for exploration" in paragraph
    assert "3 base models (mean_treated, perturbation_knn, ridge)" in paragraph and study.headline() in paragraph


def test_the_methods_paragraph_moves_no_cursor(bundled):
    study, _, _ = bundled
    said = methods_paragraph(study.folder, replace(study.leaderboard(), headline="evil\x1b[2J\u202e wins"))
    assert "\\u001b[2J\\u202e wins" in said and "\x1b" not in said


def test_equal_studies_give_equal_bundles(bundled, tmp_path):
    study, raw, _ = bundled
    assert study.bundle(tmp_path / "again.zip").read_bytes() == raw


def mutate(rng, raw, older):
    """One random attack on a bundle: (bytes, the names one of which must be named; empty for the archive itself)."""
    files, old = members(raw), members(older)
    names = sorted(files)
    kind = rng.choice(["byte", "delete", "swap", "put back", "value", "raw byte", "cut", "add"])
    name = str(rng.choice(names))
    if kind == "put back":
        name = str(rng.choice([n for n in names if n in old and old[n] != files[n]]))
        return archived({**files, name: old[name]}), {name}
    if kind == "delete":
        del files[name]
        return archived(files), {name}
    if kind == "swap":
        other = str(rng.choice([n for n in names if n != name and files[n] != files[name]]))
        return archived({**files, name: files[other], other: files[name]}), {name, other}
    if kind == "add":
        return archived({**files, "extra.json": b"{}"}), {"extra.json"}
    if kind == "raw byte":
        at = int(rng.integers(len(raw)))
        return raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :], set()
    if kind == "cut":
        return raw[: int(rng.integers(4, len(raw)))], set()
    content = bytearray(files[name])
    digits = [i for i, c in enumerate(content) if chr(c).isdigit()] if kind == "value" else []
    at = int(rng.choice(digits)) if digits else int(rng.integers(len(content)))
    content[at] = (content[at] - 48 + 1 + int(rng.integers(8))) % 10 + 48 if digits else content[at] ^ 1
    return archived({**files, name: bytes(content)}), {name}


def attack(seeds, bundled, tmp_path):
    _, raw, older = bundled
    for seed in seeds:
        broken, named = mutate(np.random.default_rng(seed), raw, older)
        assert broken != raw
        try:
            found = verify(tmp_path, broken)
        except InputError:
            assert not broken.startswith(b"PK"), seed
            continue
        assert not found.is_sound, seed
        assert not named or named & errors(found), (seed, named, errors(found))


def test_random_edits_are_found_and_named(bundled, tmp_path):
    attack(range(5), bundled, tmp_path)


def test_a_manifest_that_was_edited_or_put_back_is_named_itself(bundled, tmp_path):
    """A digit of a digest in it, or every file, differs, and it is the one that was changed."""
    _, raw, older = bundled
    files = members(raw)
    put_back = {**files, "manifest.json": members(older)["manifest.json"]}
    assert "manifest.json" in errors(verify(tmp_path, archived(put_back)))
    assert "manifest.json" not in errors(verify(tmp_path, archived({**files, "report.html": b"edited"})))
    digest = json.loads(files["manifest.json"])["files"]["report.html"]
    edited = files["manifest.json"].replace(digest.encode(), f"{(int(digest[0], 16) + 1) % 16:x}{digest[1:]}".encode())
    assert "manifest.json" in errors(verify(tmp_path, archived({**files, "manifest.json": edited})))


@pytest.mark.slow
def test_a_hundred_random_edits_are_found_and_named(bundled, tmp_path):
    attack(range(100, 200), bundled, tmp_path)


@pytest.mark.slow
def test_many_mutated_files_of_a_bundle_under_a_new_manifest_are_found(bundled, tmp_path):
    """Not its bytes but its content: JSON values, arrays and tables, which ``verify`` has to read. (``plan.toml`` is
    compared by what it says: a line that states a default may go.)"""
    files = members(bundled[1])
    verify(tmp_path, bundled[1])

    def step(number):
        rng = np.random.default_rng(number)
        name = str(rng.choice(sorted(set(files) - {"manifest.json", "plan.toml"})))
        place = tmp_path / f"m{number}" / name
        place.parent.mkdir(parents=True)
        place.write_bytes(files[name])
        mutated(place, rng)
        changed = place.read_bytes()
        shutil.rmtree(tmp_path / f"m{number}")
        if changed == files[name]:
            return "the same"
        found = verify(tmp_path, archived(with_manifest({**files, name: changed})))
        assert not found.is_sound and json.dumps(found.to_json()).encode(), name
        return name

    failed = [f"mutation {o.number}: {o.said}" for o in tried(step, many()[::5]) if o.kind == "failed"]
    assert not failed, failed


# -- somebody who knows how it is made ---------------------------------------------------------------------------------


def better_scores(content, name, tmp_path):
    """The same table of scores, with one name 0.2 better on everything."""
    path = tmp_path / "scores.npz"
    path.write_bytes(content)
    table = ScoreTable.load(path)
    table.values_by_name[table.names.index(name)] += 0.2
    table.save(path)
    return path.read_bytes()


def test_edited_scores_under_a_new_manifest_are_told_by_the_seal_and_by_the_derivation(bundled, tmp_path):
    files = members(bundled[1])
    scores, name = "results/test_scores.npz", bundled[0].leaderboard().chosen
    found = verify(tmp_path, archived(with_manifest({**files, scores: better_scores(files[scores], name, tmp_path)})))
    assert scores in errors(found), "the seal knows its digest"
    assert "board_not_derived" in {f.code for f in found.findings} and found.headline != bundled[0].headline()


def test_an_edited_board_whose_seal_was_edited_too_is_told_by_the_ledger_and_by_the_derivation(bundled, tmp_path):
    files = members(bundled[1])
    board = json.loads(files["results/leaderboard.json"])
    board["headline"] = "Ship mean: it beats ridge by 0.400."
    text = json.dumps(board, sort_keys=True, indent=2, ensure_ascii=False).encode() + b"\n"
    seal = json.loads(files["seals/verdict.json"])
    seal["files"]["results/leaderboard.json"]["sha256"] = hashlib.sha256(text).hexdigest()
    edited = {**files, "results/leaderboard.json": text, "seals/verdict.json": json.dumps(seal).encode()}
    found = verify(tmp_path, archived(with_manifest(edited)))
    assert {"seals/verdict.json", "results/leaderboard.json"} <= errors(found)
    assert found.headline == bundled[0].headline(), "what is printed is derived, not read"


def rechained(ledger, change):
    """The whole ledger written anew after a change of its entries: every digest fits again."""
    out, previous = [], "0" * 64
    for line in ledger.splitlines():
        e = change(json.loads(line))
        entry = Entry.make(len(out), e["time"], e["who"], kind=e["kind"], facts=e["facts"], previous=previous)
        out.append(json.dumps(entry.to_json(), ensure_ascii=False))
        previous = entry.digest
    return ("\n".join(out) + "\n").encode(), previous


def test_a_ledger_written_anew_with_fewer_looks_is_told_without_and_surely_with_a_noted_digest(bundled, tmp_path):
    study, raw, _ = bundled
    files = members(raw)

    def first(e):
        if e["kind"] == "look":
            e["facts"]["number"] = 1
        return e

    lines = [x for x in files["ledger.jsonl"].splitlines() if b'"plan_changed"' not in x and b'"extra_look"' not in x]
    text, head = rechained(b"\n".join(lines), first)
    witness = json.dumps(with_own_digest({"format": 1, "ledger_head": head})).encode()
    edited = {**files, "ledger.jsonl": text, "seals/head.json": witness}
    found = verify(tmp_path, archived(with_manifest(edited)))
    assert not found.is_sound
    noted = verify(tmp_path, archived(with_manifest(edited)), expect_head=sealed_verdict(study.folder))
    assert "ledger_not_as_noted" in {f.code for f in noted.findings}


def test_a_bundle_is_a_strangers_file(bundled, tmp_path):
    """Names that lead elsewhere, links and bombs are not unpacked."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.txt", "x")
        archive.writestr("ledger.jsonl", b"0" * 50_000_000)
    found = verify(tmp_path, raw.getvalue())
    assert not found.is_sound and not (tmp_path.parent / "evil.txt").exists()
    (tmp_path / "no.zip").write_text("not a zip file")
    with pytest.raises(InputError, match="is no bundle"):
        verify_bundle(tmp_path / "no.zip")


def test_a_study_without_a_verdict_of_what_is_stacked_is_not_bundled(fitted, judged, tmp_path):
    with pytest.raises(InputError, match="no verdict"):
        fitted.bundle(tmp_path / "a.zip")
    judged.stack(["mean"])
    with pytest.raises(InputError, match="no verdict of what is stacked"):
        judged.bundle(tmp_path / "b.zip")
    assert list(tmp_path.glob("*.zip")) == []


def test_a_study_in_the_place_of_its_bundle_is_told_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"is a folder.*pertstack bundle .*pertstack audit"):
        verify_bundle(tmp_path)
