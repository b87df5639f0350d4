"""Every file of a study, harmed in every way: the audit names the file, and the row where the file has rows (issue 5).

One study is made once; each test harms it, asks the audit, and puts it back. ``test_tampering.py`` tells the stories;
this is the sweep.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pertstack as ps
from copies import copied
from pertstack._base.digests import with_own_digest
from pertstack._base.files import read_json, write_json
from pertstack._base.findings import Finding
from pertstack._base.fingerprints import fingerprint
from pertstack.cli.entry import app
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.study.audit.audit import audit_study, folder_to_audit

BLOCK = "store/blocks/LINE01.f0.s000.zarr"
FILES = {
    "study.toml": "text",
    "card.json": "text",
    "ledger.jsonl": "text",
    "plan/plan.json": "text",
    "plan/folds.parquet": "bytes",
    "plan/samples.parquet": "bytes",
    "plan/findings.json": "text",
    "plan/references.npz": "bytes",
    "side/features_structure.npz": "bytes",
    "seals/init.json": "file",
    "seals/verdict.json": "file",
    "seals/head.json": "file",
    "store/genes.txt": "text",
    "store/zarr.json": "text",
    "test_truth/genes.txt": "text",
    f"{BLOCK}/zarr.json": "text",
    f"{BLOCK}/obs/zarr.json": "text",
    f"{BLOCK}/obs/_index/c/0": "file",
    f"{BLOCK}/obs/perturbation/codes/c/0": "file",
    f"{BLOCK}/layers/ridge/zarr.json": "file",
    f"{BLOCK}/layers/ridge/c/0/0": "chunk",
    f"{BLOCK}/layers/treated/c/0/0": "chunk",
    f"{BLOCK}/layers/nested.f1.ridge/c/0/0": "chunk",
    "test_truth/blocks/LINE01.test.s000.zarr/layers/treated/c/0/0": "chunk",
    "jobs/planned.json": "file",
    "jobs/ridge/pooled.f0/job.json": "file",
    "jobs/ridge/pooled.f1/log.txt": "text",
    "results/leaderboard.json": "text",
    "results/leaderboard.csv": "text",
    "results/checks.json": "text",
    "results/verdict.json": "text",
    "results/weights.json": "text",
    "results/weights.npz": "bytes",
    "results/oof.json": "text",
    "results/oof_scores.npz": "bytes",
    "results/test_scores.npz": "bytes",
    "results/diversity.json": "text",
    "results/probes.json": "text",
    "results/test_probes.json": "text",
    "results/coverage.json": "text",
    "results/calibration.json": "text",
    "report.html": "text",
    "reduced/*/part.json": "file",
    "reduced/*/sample_mean.npy": "file",
}
"""What a flipped byte must name: ``text`` the line, ``chunk`` the row and its sample, ``bytes`` and ``file`` the file.
(Compressed files cannot be read any more after a flipped byte, so that no row is left to be named.)"""
FAST = [
    "study.toml",
    "ledger.jsonl",
    f"{BLOCK}/layers/ridge/c/0/0",
    f"{BLOCK}/layers/ridge/zarr.json",
    "results/leaderboard.csv",
    "jobs/ridge/pooled.f0/job.json",
    "side/features_structure.npz",
    "report.html",
    "reduced/*/sample_mean.npy",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged study of one cell line, stacked twice, so that there are older results; ``older/`` beside it."""
    folder = tmp_path_factory.mktemp("every")
    config = SimulationConfig(samples=120, genes=20, cell_lines=1, perturbations=24, seed=5)
    simulate_to_file(folder / "world.h5ad", config)
    study = ps.Study.create(folder / "study", data=folder / "world.h5ad", seed=1)
    assert all(r.ok for r in study.cross_fit(["mean_treated", "ridge", "per_gene_linear"], engine="inline"))
    job = study.folder.path("jobs", "ridge", "pooled.f1")  # a job that had something to say
    (job / "log.txt").write_text("epoch 1\nepoch 2\nepoch 3\nepoch 4\n")
    value = read_json(job / "job.json")
    write_json(job / "job.json", with_own_digest({**value, "files": {"log.txt": fingerprint(job / "log.txt")}}))
    study.stack(["mean"])
    copied(study.folder.root, folder / "older")
    study.stack(["mean", "simplex"])
    study.verdict()
    study.report()
    return study.folder.root


def audit(root: Path) -> list[Finding]:
    """Errors and warnings of a deep audit by somebody who comes fresh to the study."""
    return [f for f in audit_study(folder_to_audit(root), deep=True, clean=False) if f.severity != "note"]


def at(root: Path, name: str) -> Path:
    return sorted(root.glob(name))[0]


@contextmanager
def harmed(path: Path, content: bytes | None) -> Iterator[None]:
    """The file holds other content (None: is gone) for a while."""
    before = path.read_bytes()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        yield
    finally:
        path.write_bytes(before)


def naming(findings: list[Finding], path: Path) -> list[Finding]:
    """Findings whose ``where`` is this file (of the ledger: file and line)."""
    return [f for f in findings if f.where == str(path) or re.fullmatch(re.escape(str(path)) + r":\d+", f.where)]


def flipped(raw: bytes) -> tuple[bytes, int]:
    """One bit of a letter or digit in the middle flipped; and where."""
    place = len(raw) // 2
    while raw[place : place + 1].isspace() or raw[place] in b'{}[]",:':
        place += 1
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :], place


def rows_of(found: list[Finding]) -> set[int]:
    """Rows that findings name, counted from 0."""
    lines = {f.numbers["line"] - 1 for f in found if "line" in f.numbers}
    return lines | {r for f in found for r in f.numbers.get("rows", ())}


def test_an_untouched_study_has_nothing_to_say(root):
    assert audit(root) == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in FILES], ids=str)
def test_a_flipped_bit_is_named(root, name):
    path = at(root, name)
    changed, place = flipped(path.read_bytes())
    with harmed(path, changed):
        found = naming(audit(root), path)
    assert any(f.severity == "error" for f in found), found
    if FILES[name] == "text":
        assert path.read_bytes()[:place].count(b"\n") in rows_of(found), found
    if FILES[name] == "chunk":
        row = place // (4 * 20)
        assert rows_of(found) == {row}, found
        store = ps.predictions.PredictionStore.open(root / name.split("/")[0])
        block = next(b for b in store.blocks() if b.id in name)
        assert found[0].examples == (store.sample_ids(block)[row],)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_named(root, name):
    path = at(root, name)
    raw = path.read_bytes()
    with harmed(path, raw[: len(raw) * 2 // 3]):
        found = naming(audit(root), path)
    assert any(f.severity == "error" for f in found), found
    if FILES[name] == "text" and raw.count(b"\n") > 3:
        assert rows_of(found), found
    if FILES[name] == "chunk":
        gone = [r for r in range(raw.__len__() // 80) if (r + 1) * 80 > len(raw) * 2 // 3]
        assert min(rows_of(found)) == gone[0], found


MAY_GO = ("ledger.jsonl", "jobs/planned.json")
"""Without the ledger it is no study; the list of jobs asked for may be deleted, and the next fit writes it anew."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FILES if n not in MAY_GO])
def test_a_file_removed_is_named(root, name):
    with harmed(at(root, name), None):
        found = naming(audit(root), at_name(root, name))
    least = "warning" if name.endswith("part.json") else "error"  # a part without it is nobody's, and made anew
    assert any(f.severity == least for f in found), found


def at_name(root: Path, name: str) -> Path:
    """The path that was harmed; a pattern stands for the first of its files that is gone."""
    if "*" not in name:
        return root / name
    parts = sorted(p for p in root.glob(name.rsplit("/", 1)[0]))
    return next(p / name.rsplit("/", 1)[1] for p in parts if not (p / name.rsplit("/", 1)[1]).exists())


# -- rows permuted, files swapped, older versions put back -----------------------------------------------------------


def permuted(path: Path) -> tuple[bytes, set[int]]:
    """The file with its third and fifth row exchanged, and those rows."""
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        order = np.arange(len(table))
        order[[2, 4]] = order[[4, 2]]
        buffer = io.BytesIO()
        table.iloc[order].to_parquet(buffer)
        return buffer.getvalue(), {2, 4}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k].copy() for k in file.files}
        name = max(arrays, key=lambda k: arrays[k].size if arrays[k].ndim else 0)
        values = arrays[name]
        other = next(i for i in range(1, len(values)) if not np.array_equal(values[0], values[i], equal_nan=True))
        values[[0, other]] = values[[other, 0]]
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue(), set()
    raw = path.read_bytes()
    if not path.suffix:  # a chunk of rows of 20 float32
        return raw[:160] + raw[320:400] + raw[240:320] + raw[160:240] + raw[400:], {2, 4}
    lines = raw.split(b"\n")
    lines[2], lines[4] = lines[4], lines[2]
    return b"\n".join(lines), {2, 4}


@pytest.mark.parametrize(
    "name",
    [
        "plan/folds.parquet",
        "plan/samples.parquet",
        f"{BLOCK}/layers/per_gene_linear/c/0/0",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in [
                "test_truth/blocks/LINE01.test.s000.zarr/layers/treated/c/0/0",
                "results/leaderboard.csv",
                "results/checks.json",
                "results/weights.json",
                "results/weights.npz",
                "results/oof_scores.npz",
                "results/test_scores.npz",
                "side/features_structure.npz",
                "store/genes.txt",
                "ledger.jsonl",
                "study.toml",
            ]
        ),
    ],
)
def test_permuted_rows_are_named(root, name):
    path = at(root, name)
    content, rows = permuted(path)
    with harmed(path, content):
        found = naming(audit(root), path)
    assert any(f.severity == "error" for f in found), found
    assert rows_of(found) >= rows and rows_of(found), found


SWAPS = [
    (f"{BLOCK}/layers/ridge/c/0/0", f"{BLOCK}/layers/per_gene_linear/c/0/0"),
    (f"{BLOCK}/layers/ridge/zarr.json", f"{BLOCK}/layers/nested.f1.ridge/zarr.json"),
    ("store/blocks/LINE01.f1.s000.zarr/layers/ridge/zarr.json", f"{BLOCK}/layers/ridge/zarr.json"),
    ("store/blocks/LINE01.f1.s000.zarr/layers/treated/c/0/0", f"{BLOCK}/layers/treated/c/0/0"),
    ("jobs/ridge/pooled.f0/job.json", "jobs/ridge/pooled.f1/job.json"),
    ("jobs/ridge/pooled.f0+f1/job.json", "jobs/per_gene_linear/pooled.f0+f1/job.json"),
    ("results/oof_scores.npz", "results/test_scores.npz"),
    ("results/leaderboard.json", "results/checks.json"),
    ("plan/folds.parquet", "plan/samples.parquet"),
    ("seals/stack.json", "seals/verdict.json"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), SWAPS)
def test_two_files_swapped_are_both_named(root, one, other):
    first, second = root / one, root / other
    with harmed(first, second.read_bytes()), harmed(second, first.read_bytes()):
        pass
    here, there = first.read_bytes(), second.read_bytes()
    with harmed(first, there), harmed(second, here):
        findings = audit(root)
    for path in (first, second):
        assert any(f.severity == "error" for f in naming(findings, path)), (path, findings)


@pytest.mark.slow
def test_two_reduced_parts_swapped_are_both_named(root):
    one, other = sorted(p for p in (root / "reduced").iterdir() if p.is_dir())[:2]
    aside = one.with_name("aside")
    for a, b in ((one, aside), (other, one), (aside, other)):
        a.rename(b)
    try:
        findings = audit(root)
    finally:
        for a, b in ((one, aside), (other, one), (aside, other)):
            a.rename(b)
    assert naming(findings, one / "part.json") and naming(findings, other / "part.json"), findings


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n == "results/weights.json" else pytest.mark.slow)
        for n in ["results/weights.json", "results/oof.json", "results/weights.npz", "seals/stack.json"]
    ],
)
def test_an_older_version_put_back_is_named_as_what_it_is(root, name):
    with harmed(root / name, (root.parent / "older" / name).read_bytes()):
        found = naming(audit(root), root / name)
    assert any(f.severity == "error" for f in found), found
    if name.startswith("results"):
        assert any(f.code == "results_put_back" for f in found), found


def test_an_older_ledger_put_back_is_named_with_the_first_line_that_is_gone(root):
    older = (root.parent / "older" / "ledger.jsonl").read_bytes()
    with harmed(root / "ledger.jsonl", older):
        findings = audit(root)
    found = naming(findings, root / "ledger.jsonl")
    assert [f.code for f in found] == ["ledger_cut_short"] and rows_of(found) == {older.count(b"\n")}


def test_a_plan_edited_after_its_lock_is_named_with_its_line(root):
    path = root / "plan.toml"
    text = path.read_text()
    with harmed(path, text.replace('"pooled"', '"own"').encode()):
        found = naming(audit(root), path)
    assert [f.code for f in found] == ["locked_plan_edited"] and "'own'" in found[0].message
    assert text.splitlines()[found[0].numbers["rows"][0]].startswith("reference")


def test_a_forged_provenance_is_found_by_the_seal_of_the_stack(root):
    """Somebody edits who was fitted on what, and mends the digest inside the record as well."""
    path = root / BLOCK / "layers/ridge/zarr.json"
    value = json.loads(path.read_text())
    record = value["attributes"]["prediction"]
    record["fitted_on"]["held_out_fold"] = 2
    value["attributes"]["prediction"] = with_own_digest(record)
    with harmed(path, json.dumps(value).encode()):
        found = naming(audit(root), path)
    assert [f.code for f in found] == ["layout_changed"]


def test_the_record_itself_knows_that_it_was_edited(root):
    """Without a seal (nothing is stacked yet) an edit of who was fitted on what is found all the same."""
    path = root / BLOCK / "layers/ridge/zarr.json"
    edited = path.read_text().replace('"held_out_fold": 0', '"held_out_fold": 2')
    with harmed(path, edited.encode()):
        found = naming(audit(root), path)
    assert {f.code for f in found} == {"record_damaged", "layout_changed"}, found


def test_two_edits_at_once_are_both_reported_through_the_command(root):
    """Also when one of them breaks what other checks rest on; and the JSON has the documented keys."""
    board, plan = root / "results/leaderboard.json", root / "plan/folds.parquet"
    with harmed(board, flipped(board.read_bytes())[0]), harmed(plan, plan.read_bytes()[:-50]):
        done = CliRunner().invoke(app, ["audit", str(root), "--json", "--deep"])
    assert done.exit_code == 3
    said = json.loads(done.stdout)
    assert set(said) == {"format", "study", "deep", "worst", "findings"} and said["worst"] == "error"
    for found in said["findings"]:
        assert set(found) == {"severity", "code", "message", "count", "examples", "where", "numbers"}
    places = [f["where"] for f in said["findings"]]
    assert str(board) in places and str(plan) in places


def test_a_study_without_its_choices_can_still_be_audited(root):
    with harmed(root / "study.toml", None):
        done = CliRunner().invoke(app, ["audit", str(root), "--json"])
    assert done.exit_code == 3 and str(root / "study.toml") in [f["where"] for f in json.loads(done.stdout)["findings"]]
