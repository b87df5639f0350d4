"""``pertstack audit --json`` on a study somebody laid hands on: it names the exact file and row (issue 5)."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import pertstack as ps
from pertstack.cli.entry import app


def findings(study: ps.Study, *options: str) -> list[dict]:
    """What the command prints; its exit code must say the same."""
    done = CliRunner().invoke(app, ["audit", str(study.folder.root), "--json", *options])
    found = json.loads(done.stdout)["findings"]
    assert done.exit_code == (3 if any(f["severity"] == "error" for f in found) else 0), done.output
    return found


def audit(study: ps.Study, *options: str) -> list[dict]:
    """Errors that the command finds."""
    return [f for f in findings(study, *options) if f["severity"] == "error"]


def only(errors: list[dict], code: str) -> dict:
    matching = [f for f in errors if f["code"] == code]
    assert len(matching) == 1, errors
    return matching[0]


def test_an_untouched_study_has_no_error(judged):
    assert audit(judged, "--deep") == []


def test_a_ledger_line_edited(judged):
    path = judged.folder.path("ledger.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"look"' in line)
    lines[at] = lines[at].replace('"number": 1', '"number": 0')
    path.write_text("".join(lines))
    found = only(audit(judged), "ledger_tampered")
    assert found["where"].endswith(f"ledger.jsonl:{at + 1}") and found["numbers"]["line"] == at + 1


def test_a_ledger_cut_before_the_look(judged):
    path = judged.folder.path("ledger.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"kind": "look"' in line)
    path.write_text("".join(lines[:at]))
    found = only(audit(judged), "ledger_cut_short")
    assert found["where"].endswith("ledger.jsonl") and "counts of looks cannot be trusted" in found["message"]


def chunk_of(study: ps.Study, store: str = "store", model: str = "ridge") -> Path:
    return next(p for p in sorted(study.folder.path(store).rglob("c/*/*")) if model in str(p) and p.is_file())


def test_one_bit_of_a_chunk_flipped(judged):
    path = chunk_of(judged)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    errors = audit(judged, "--deep")
    assert len(errors) >= 1 and any(
        str(path.parent.parent.name) in e["where"] or path.name in e["where"] for e in errors
    )
    assert any(str(path.relative_to(judged.folder.path("store"))) in e["where"] + e["message"] for e in errors), errors


def test_a_chunk_truncated(judged):
    path = chunk_of(judged)
    path.write_bytes(path.read_bytes()[:-10])
    errors = audit(judged)
    assert any(str(path.relative_to(judged.folder.path("store"))) in e["where"] + e["message"] for e in errors), errors


def test_the_truth_of_the_test_changed(judged):
    path = chunk_of(judged, "test_truth", "treated")
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)
    errors = audit(judged, "--deep")
    assert any(str(path.relative_to(judged.folder.path("test_truth"))) in e["where"] + e["message"] for e in errors)


def test_a_record_swapped_between_blocks(judged):
    """The predictions of fold 0 stand where those of fold 1 belong, each sound in itself."""
    folders = sorted(p.parent for p in judged.folder.path("store").rglob("zarr.json") if p.parent.name == "ridge")
    first, second = folders[0], folders[1]
    (first / "zarr.json").rename(first / "kept")
    (second / "zarr.json").rename(first / "zarr.json")
    (first / "kept").rename(second / "zarr.json")
    errors = audit(judged)
    said = " ".join(e["where"] + e["message"] for e in errors)
    for folder in (first, second):
        assert str(folder.relative_to(judged.folder.path("store"))) in said, errors
    assert said.count("does not belong here") >= 2, "the record itself says so, not only the files around it"


def test_the_fold_table_edited(judged):
    """A test sample becomes a development sample, the facts inside the file stay: its digest and the seal both see."""
    path = judged.folder.path("plan", "folds.parquet")
    before = pq.read_table(path)
    table = before.to_pandas()
    row = table.index[table["role"] == "test"][0]
    table.loc[row, ["role", "fold"]] = ["development", 0]
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(before.schema.metadata), path
    )
    errors = audit(judged)
    assert "are not the ones with digest" in only(errors, "fold_plan")["message"]
    sealed = next(e for e in errors if e["code"] == "layout_changed" and e["where"] == str(path))
    assert sealed["numbers"]["rows"] == [row] and table["sample_id"][row] in sealed["examples"][0]


def test_the_sample_table_permuted(judged):
    """The metadata of two samples of different cell lines exchange their places."""
    path = judged.folder.path("plan", "samples.parquet")
    table = pd.read_parquet(path)
    a = table.index[0]
    b = table.index[(table["cell_line"] != table.loc[a, "cell_line"]).to_numpy()][0]
    rows = table.loc[[b, a]].to_numpy()
    table.loc[[a, b]] = rows
    table.to_parquet(path)
    errors = audit(judged)
    found = only(errors, "samples_edited")
    assert "samples.parquet" in found["where"] and a in str(found["examples"]) and b in str(found["examples"]), errors


def test_a_perturbation_renamed_in_the_sample_table(judged):
    path = judged.folder.path("plan", "samples.parquet")
    table = pd.read_parquet(path)
    table.loc[table.index[5], "perturbation"] = "something else"
    table.to_parquet(path)
    errors = audit(judged)
    found = only(errors, "samples_edited")
    assert "samples.parquet" in found["where"] and found["examples"] == [f"{table.index[5]} (perturbation)"], errors
    sealed = next(e for e in errors if e["code"] == "layout_changed" and "samples.parquet" in e["where"])
    assert sealed["numbers"]["rows"] == [5]


def test_results_of_another_plan(judged):
    path = judged.folder.results / "leaderboard.json"
    board = json.loads(path.read_text())
    path.write_text(json.dumps({**board, "plan_digest": "0" * 64}))
    found = only(audit(judged), "results_of_another_plan")
    assert found["where"].endswith("leaderboard.json") and "000000000000" in found["message"]


def test_a_number_of_the_leaderboard_edited(judged):
    path = judged.folder.results / "leaderboard.json"
    board = json.loads(path.read_text())
    board["rows"][0]["scores"][f"{board['primary_metric']}@{board['reference']}"]["value"] += 0.05
    path.write_text(json.dumps(board))
    found = only(audit(judged), "results_edited")
    assert found["where"].endswith("leaderboard.json")


@pytest.mark.parametrize("name", ["verdict.json", "leaderboard.json"])
def test_a_result_removed_is_not_a_study_that_never_looked(judged, name):
    (judged.folder.results / name).unlink()
    errors = audit(judged)
    assert any(name in e["where"] and "look" in e["message"] for e in errors), errors


def test_stale_results_are_named(judged):
    """Weights were learned again on other predictions; the board on disk is of the old ones."""
    judged.withdraw("ridge", "wrong folds")
    judged.stack(["mean"])
    found = [f for f in findings(judged) if f["code"] == "results_stale"]
    assert len(found) == 1 and found[0]["where"].endswith("leaderboard.json") and found[0]["severity"] == "warning"
