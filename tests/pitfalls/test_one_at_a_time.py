"""One lock for everything that writes: also for the commands that mainly take answers away, and for the cleaner."""

from __future__ import annotations

import multiprocessing
import shutil

import anndata
import pytest

import pertstack as ps
import pertstack.study.folder
from pertstack._base.errors import CorruptionError
from pertstack.data import SimulationConfig, simulate_to_file
from pertstack.study.audit.audit import audit_study

FORK = multiprocessing.get_context("fork")


def first_said(study, command) -> str:
    """What a command in a separate process does while another holds the study's lock: "waits", or "ends"."""
    told, answer = FORK.Pipe(duplex=False)

    def go() -> None:
        pertstack.study.folder.remark = lambda _: answer.send("waits")
        command()
        answer.send("ends")

    child = FORK.Process(target=go)
    with study.folder.writing():
        child.start()
        assert told.poll(120)
        said = told.recv()
    if said == "waits":
        assert told.poll(120) and told.recv() == "ends", "the command did not go on when the lock was free"
    child.join(10)
    return said


@pytest.fixture
def new_file(tmp_path):
    """Twelve new samples of the world that the study is from."""
    path = tmp_path / "new.h5ad"
    simulate_to_file(path, SimulationConfig(samples=12, genes=40, cell_lines=2, perturbations=6, seed=3))
    data = anndata.read_h5ad(path)
    data.obs.index = [f"new{i}" for i in range(data.n_obs)]
    data.obs["sample_id"] = data.obs.index
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("command", ["predict", "export", "audit"])
def test_commands_that_also_write_wait_for_the_lock(judged, new_file, tmp_path, command):
    root = judged.folder.root
    shutil.rmtree(judged.folder.path("reduced"))  # so that taking answers away has sums to write
    steps = {
        "predict": lambda: ps.Study.open(root).predict(new_file, tmp_path / "out.h5ad"),
        "export": lambda: ps.Study.open(root).export(tmp_path / "out.h5ad"),
        "audit": lambda: ps.Study.open(root).audit(clean=True),
    }
    assert first_said(judged, steps[command]) == "waits"


def test_an_audit_that_only_looks_waits_for_nobody(judged):
    root = judged.folder.root
    assert first_said(judged, lambda: ps.Study.open(root).audit()) == "ends"


def test_the_cleaner_takes_what_killed_writers_left_and_nothing_else(judged):
    folder = judged.folder
    before = sorted(p for p in folder.root.rglob("*") if p.is_file())
    aside = folder.path("reduced", ".abc.x1.part")
    aside.mkdir()
    (aside / "gram.npy").write_bytes(b"half")
    for name in (".leaderboard.json.q.part", ".verdict.json.r.part"):
        (folder.results / name).write_bytes(b"{")
    folder.path("seals", ".head.json.s.part").write_bytes(b"{")
    folder.path("results", "theirs.part").write_text("a file of the user's")
    assert not [f for f in judged.audit(clean=True) if f.severity == "error"]
    folder.path("results", "theirs.part").unlink()
    assert sorted(p for p in folder.root.rglob("*") if p.is_file()) == before


def test_the_cleaner_also_works_on_a_study_whose_ledger_is_cut_and_says_so(judged):
    path = judged.folder.path("ledger.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    found = audit_study(judged.folder, deep=False, clean=True)
    assert "ledger_cut_short" in {f.code for f in found}
    with pytest.raises(CorruptionError, match="with which it ended before"):
        judged.export(path.with_name("out.h5ad"))
