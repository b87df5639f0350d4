"""What goes wrong first for a new user: a message with values and the mend, the right exit code, nothing lost."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import anndata
import numpy as np
import pytest

from copies import copied
from interrupts import interrupt, start
from pertstack._base.digests import with_own_digest

from .conftest import PERTSTACK, pertstack


def refused(done, code: int, *words: str) -> None:
    """A refusal is one message on stderr, no traceback, the code, and every expected word."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def changed(world: Path, path: Path, change) -> Path:
    data = anndata.read_h5ad(world)
    data = change(data) or data
    data.write_h5ad(path)
    return path


def test_wrong_path(tmp_path: Path):
    refused(pertstack("init", tmp_path / "s", "--data", tmp_path / "no.h5ad"), 2, "no.h5ad", "does not exist")
    assert not (tmp_path / "s").exists()


def test_unreadable_file(tmp_path: Path):
    (tmp_path / "broken.h5ad").write_bytes(b"this is no hdf5 file")
    refused(pertstack("init", tmp_path / "s", "--data", tmp_path / "broken.h5ad"), 2, "broken.h5ad")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("word", ["a" * 300, "a/" * 3000, "x\udcff.h5ad"])
def test_a_path_that_leads_nowhere_or_is_no_text_is_no_traceback(word, monkeypatch, capsys):
    """Bytes that are no UTF-8 ended `add`, `export` and `withdraw` in the ledger."""
    from pertstack.cli.entry import main

    monkeypatch.setattr("sys.argv", ["pertstack", "status", word])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("Error: ") and ("Check the path" in said or "UTF-8" in said)


def test_no_study(tmp_path: Path):
    for command in ("status", "stack", "verdict", "report", "audit", "run", "reduce"):
        refused(pertstack(command, tmp_path / "none"), 2, "does not exist", "pertstack init")
    refused(pertstack("status", tmp_path), 2, "not a study")


def test_a_study_that_already_exists(study: Path, world: Path):
    before = sorted(p.name for p in study.iterdir())
    refused(pertstack("init", study, "--data", world), 2, "already is a study")
    assert sorted(p.name for p in study.iterdir()) == before


def test_missing_column_names_the_near_one(world: Path, tmp_path: Path):
    def rename(data):
        data.obs = data.obs.rename(columns={"cell_line": "cel_lin", "perturbation": "treatment_x"})

    path = changed(world, tmp_path / "renamed.h5ad", rename)
    refused(pertstack("init", tmp_path / "s", "--data", path), 2, "--map")
    done = pertstack("init", tmp_path / "s", "--data", path, "--map", "cell_line=cel_lin,perturbation=treatment_x")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("nan", lambda d: d.X.__setitem__((3, 4), np.nan), ("1 ", "finite")),
        ("no_control", lambda d: d.layers.__delitem__("control"), ("control",)),
        ("same", lambda d: d.layers.__setitem__("control", np.asarray(d.X).copy()), ("identical",)),
        ("counts", lambda d: setattr(d, "X", np.random.default_rng(0).poisson(50, d.shape).astype(float)), ("count",)),
    ],
)
def test_bad_values(name, change, words, world: Path, tmp_path: Path):
    path = changed(world, tmp_path / f"{name}.h5ad", lambda d: change(d) and None)
    refused(pertstack("init", tmp_path / "s", "--data", path), 2, *words)
    assert not (tmp_path / "s").exists()


def test_too_few_groups(world: Path, tmp_path: Path):
    refused(pertstack("init", tmp_path / "s", "--data", world, "--group", "cell_line", "--folds", 3), 2, "group")


def test_unknown_model_and_combiner_show_near_names(study: Path, tmp_path: Path):
    refused(pertstack("fit", study, "--models", "rigde"), 2, "rigde", "ridge")
    copy = copied(study, tmp_path / "copy")
    refused(pertstack("stack", copy, "--combiners", "simplx"), 2, "simplx", "simplex")
    refused(pertstack("plan", copy, "--primary", "r2_topp20"), 2, "r2_topp20")


def test_usage_errors(study: Path):
    refused(pertstack("frobnicate"), 2, "frobnicate")
    refused(pertstack("fit", study), 2, "--models")
    refused(pertstack("reduce", study, "--memory", "lots"), 2, "lots")
    refused(
        pertstack("reduce", study, "--memory", "1 kB"), 2, "--memory 1 kB does not hold one sample", "--memory '500 MB'"
    )


def test_corrupted_choices(study: Path, tmp_path: Path):
    copy = copied(study, tmp_path / "copy")
    (copy / "study.toml").write_text("format = [")
    refused(pertstack("status", copy), 3, "study.toml")


def test_verdict_before_there_is_anything_to_judge(world: Path, tmp_path: Path):
    assert pertstack("init", tmp_path / "s", "--data", world).returncode == 0
    refused(pertstack("verdict", tmp_path / "s"), 2, "pertstack fit")
    refused(pertstack("stack", tmp_path / "s"), 2, "pertstack fit")
    refused(pertstack("report", tmp_path / "s"), 2, "pertstack")


def test_a_fit_that_took_another_time_is_the_same_fit_and_one_of_another_seed_is_not(study: Path, tmp_path: Path):
    """Interrupted between two blocks a job is fitted again: its record has other seconds than the first block's."""
    copy = copied(study, tmp_path / "s")
    path = sorted(copy.glob("jobs/ridge/*/job.json"))[0]
    for name, change, code in (("fit_seconds", 1.0, 0), ("seed", 1, 3)):
        value = json.loads(path.read_text())
        value["record"][name] += change
        path.write_text(json.dumps(with_own_digest(value)))
        said = pertstack("audit", copy)
        assert said.returncode == code and ("'seed' differ" in said.stdout) == bool(code), said.stdout


def test_an_interrupted_fit_keeps_what_is_done(world: Path, tmp_path: Path):
    """Ctrl-C: one sentence, exit 130, no worker left; the same command goes on from there."""
    assert pertstack("init", tmp_path / "s", "--data", world).returncode == 0
    models = ["--models", "ridge,mlp,perturbation_knn", "--no-nested"]
    words = [str(PERTSTACK), "fit", str(tmp_path / "s"), *models, "--workers", "1"]
    running = start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "s" / "jobs").glob("*/*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    interrupt(running)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130 and "Interrupted" in said and "Traceback" not in said, said
    again = pertstack("fit", tmp_path / "s", *models)
    assert again.returncode == 0 and " 0 failed" in again.stdout, again.stderr
    assert not again.stdout.startswith("12 jobs done"), "nothing was kept"
    assert pertstack("audit", tmp_path / "s", "--deep").returncode == 0
