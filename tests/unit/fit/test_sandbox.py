"""What somebody else's program may see, use and leave behind. Shell scripts, since a Python start costs a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, ModelFailedError
from pertstack.fit.external.card import load_card
from pertstack.fit.external.exchange import _read
from pertstack.fit.external.model import run_program, sandbox
from pertstack.fit.external.sandbox import Limits

ON_DISK = True
linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
CARD = 'format = 1\nname = "mine"\n[run]\ncommand = ["sh", "-c", "{}"]\n'


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with a secret, and a job's folder in it."""
    root = tmp_path / "study"
    (root / "jobs" / "mine" / "pooled.f0").mkdir(parents=True)
    (root / "test_truth").mkdir()
    (root / "study.toml").touch()
    (root / "test_truth" / "rows").write_text("TRUTH")
    (root / "ledger.jsonl").write_text("")
    return root


@pytest.fixture
def unboxed(monkeypatch):
    monkeypatch.setattr(sandbox, "_bubblewrap", lambda: None)


def exchange(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "exchange"
    folder.mkdir(exist_ok=True)
    return folder, tmp_path / "log"


def sh(tmp_path: Path, script: str, hidden: tuple[Path, ...] = (), **limits) -> tuple[int, str]:
    folder, log = exchange(tmp_path)
    log.write_text("")
    chosen = Limits(**{"seconds": 20, **limits})
    return sandbox.run(["/bin/sh", "-c", script], folder, log, limits=chosen, hidden=hidden), log.read_text()


def test_only_listed_variables_are_passed_on(tmp_path, unboxed, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open sesame")
    monkeypatch.setenv("LC_ALL", "C")
    code, said = sh(tmp_path, "env")
    names = {line.split("=", 1)[0] for line in said.splitlines()}
    assert code == 0 and "sesame" not in said
    assert names <= {
        *sandbox.PASSED,
        "LC_ALL",
        "HOME",
        "TMPDIR",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUTF8",
        "PWD",
        "OLDPWD",
        "_",
        "SHLVL",
    }
    assert f"HOME={tmp_path / 'exchange'}" in said and "PYTHONUTF8=1" in said  # what we wrote for it is in UTF-8


def test_the_log_stops_growing_and_keeps_both_ends(tmp_path, unboxed):
    """It was 1.58 GB once."""
    code, said = sh(tmp_path, "echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert code == 0 and len(said) < sandbox.LOG_HEAD + 2 * 2**16 + sandbox.LOG_TAIL
    assert said.startswith("first\n") and said.endswith("last\n") and "bytes were not kept]" in said


def test_a_file_larger_than_allowed_and_memory_beyond_the_limit_end_the_program(tmp_path, unboxed):
    code, _ = sh(tmp_path, "head -c 3000000 /dev/zero > big", file_size=10**6)
    assert code != 0 and (tmp_path / "exchange" / "big").stat().st_size <= 10**6
    code, said = sh(tmp_path, "head -c 400000000 /dev/zero | tail -n 1 > /dev/null", memory=10**8)
    assert code != 0 or "memory exhausted" in said


@pytest.mark.parametrize("how", ["", pytest.param("setsid ", marks=linux)], ids=["child", "server"])
def test_what_a_program_started_ends_with_it(tmp_path, unboxed, how):
    """A server that leaves the process group as well."""
    code, said = sh(tmp_path, f"{how}sleep 300 >/dev/null 2>&1 & echo $!; sleep 0.3")
    assert code == 0
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(said), 0)
            subprocess.run(["sleep", "0.05"], check=True)


def test_links_are_not_followed(tmp_path):
    secret, folder = tmp_path / "secret.npz", tmp_path / "exchange"
    secret.write_bytes(b"")
    folder.mkdir()
    card = tmp_path / "card.toml"
    card.write_text('format = 1\nname = "mine"\n[run]\ncommand = ["true"]\n')
    for link in (Path.symlink_to, Path.hardlink_to):
        target = folder / "predictions.npz"
        link(target, secret)
        with pytest.raises(ModelFailedError, match=r"predictions\.npz' as a link"):
            _read(folder, load_card(card))
        kept = tmp_path / "kept"
        assert sandbox.plain_file(target) is False
        target.unlink()
    (folder / "out").symlink_to("/etc")
    (folder / "file").write_text("mine")
    sandbox.keep(folder, kept)
    assert sorted(p.name for p in kept.iterdir()) == ["file"]


@pytest.mark.parametrize("how", ["external", "soft", "virtual", "storage"])
def test_links_within_an_answer_are_not_followed(tmp_path, how):
    """A program in the box named the measured values, and they were read for it outside of the box."""
    h5py, anndata = pytest.importorskip("h5py"), pytest.importorskip("anndata")
    folder, _ = exchange(tmp_path)
    card = tmp_path / "card.toml"
    card.write_text(CARD.format("true"))
    names = {"obs": pd.DataFrame(index=["a", "b"]), "var": pd.DataFrame(index=["g", "h"])}
    for path in (tmp_path / "secret.h5ad", folder / "predictions.h5ad"):
        anndata.AnnData(X=np.ones((2, 2), np.float32), **names).write_h5ad(path)
    assert _read(folder, load_card(card))[0].shape == (2, 2)
    with h5py.File(folder / "predictions.h5ad", "a") as file:
        del file["X"]
        if how == "external":
            file["X"] = h5py.ExternalLink("../secret.h5ad", "X")
        elif how == "soft":
            file["e"], file["X"] = h5py.ExternalLink("../secret.h5ad", "/"), h5py.SoftLink("/e/X")
        elif how == "virtual":
            layout = h5py.VirtualLayout((2, 2), np.float32)
            layout[:] = h5py.VirtualSource(tmp_path / "secret.h5ad", "X", (2, 2))
            file.create_virtual_dataset("X", layout)
        else:
            file.create_dataset("X", (2, 2), np.float32, external=[(str(tmp_path / "secret.h5ad"), 0, 16)])
    with pytest.raises(ModelFailedError, match=r"/(X|e) lies in another file, which is not followed"):
        _read(folder, load_card(card))


@pytest.mark.parametrize("script", ["../other.py", "/etc/passwd", "link.py"])
def test_a_script_outside_the_cards_folder_is_refused(tmp_path, script):
    (tmp_path / "other.py").write_text("")
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.py").symlink_to(tmp_path / "other.py")
    (home / "mine.toml").write_text(f'format = 1\nname = "mine"\n[run]\nscript = "{script}"\n')
    with pytest.raises(InputError, match=r"outside the card's folder.*Put the script beside the card"):
        load_card(home / "mine.toml")


def test_a_program_runs_outside_the_study(study, tmp_path, unboxed):
    """It read ten test rows from ../../../../test_truth."""
    from pertstack.fit.external.model import ExternalModel
    from references.fit_world import make_rows, split_by_perturbation

    card = tmp_path / "mine.toml"
    card.write_text(
        'format = 1\nname = "mine"\n[run]\ncommand = ["sh", "-c", "pwd; cat ../../../../test_truth/rows"]\n'
    )
    model = ExternalModel(str(card))
    model.folder = study / "jobs" / "mine" / "pooled.f0"
    fit, held = split_by_perturbation(make_rows(n_perturbations=8, n_genes=6), 2)
    with pytest.raises(ModelFailedError):
        model.fit(fit, rng=np.random.default_rng(0)).predict(held.without_treated())
    said = (model.folder / "external.log").read_text()
    assert "TRUTH" not in said and str(study) not in said.splitlines()[1]
    assert model.notes == {"sandbox": sandbox.LIMITED}
    assert (model.folder / "exchange" / "task.json").exists()  # kept for a look


@pytest.mark.skipif(sandbox._bubblewrap() is None, reason="bubblewrap is not usable here")
def test_in_bubblewrap_the_study_is_out_of_sight_and_nothing_else_can_be_written(study, tmp_path):
    folder, log = exchange(tmp_path)
    log = study / "jobs" / "mine" / "pooled.f0" / "external.log"
    log.write_text("")
    (tmp_path / "screen.csv").write_text("TRUTH")
    (study / "study.toml").write_text(f'data = "{tmp_path / "screen.csv"}"')
    (study / "report.html").write_text("TRUTH")
    card = tmp_path / "mine.toml"
    tries = [
        f"cat {study}/test_truth/rows {study}/report.html {tmp_path}/screen.csv",
        f"grep -c data {study}/study.toml && printf TR%s UTH",
        f"echo x >> {study}/ledger.jsonl",
        f"touch {tmp_path}/here",
        "echo x > mine",
    ]
    card.write_text(
        f'format = 1\nname = "mine"\n[run]\ncommand = ["sh", "-c", "{"; ".join(tries)}; ls /sys/class/net"]\n'
    )
    run_program(load_card(card), "", folder, log=log)
    said = log.read_text()
    assert "TRUTH" not in said and (study / "ledger.jsonl").read_text() == "" and not (tmp_path / "here").exists()
    assert (folder / "mine").read_text() == "x\n" and sandbox.kind() == sandbox.BOXED


@pytest.mark.skipif(sandbox._bubblewrap() is None, reason="bubblewrap is not usable here")
def test_a_card_in_shared_memory_finds_its_own_files_and_nothing_else_there(study):
    """Shared memory is empty in the box, so the script of the card was not found."""
    with tempfile.TemporaryDirectory(dir=sandbox.SHARED, prefix="pertstack-test-") as home:
        cards, folder = Path(home, "cards"), Path(home, "exchange")
        cards.mkdir()
        folder.mkdir()
        moved = Path(shutil.move(study, cards / "study"))
        Path(home, "other").write_text("OTHER")
        (cards / "helper.txt").write_text("HELPER")
        card, script = cards / "mine.toml", cards / "mine.sh"
        tries = (
            f"cat {cards}/helper.txt; cat {home}/other {moved}/test_truth/rows; echo x > {cards}/here; echo x > mine"
        )
        script.write_text(f"{tries}; echo x > {sandbox.SHARED}/own && echo WRITES\n")
        card.write_text('format = 1\nname = "mine"\n[run]\ncommand = ["sh", "{card}/mine.sh"]\n')
        log = moved / "jobs" / "mine" / "pooled.f0" / "external.log"
        log.write_text("")
        run_program(load_card(card), "", folder, log=log)
        said = log.read_text()
        assert "HELPER" in said and "WRITES" in said and "OTHER" not in said and "TRUTH" not in said
        assert (folder / "mine").read_text() == "x\n" and not (cards / "here").exists()
        assert not (sandbox.SHARED / "own").exists()
