"""What is written for others is there whole or not at all, and what a killed command left is removed by the next."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import tempfile

import anndata
import pytest

import pertstack as ps
import pertstack.study.steps.init
from copies import copied
from faults import run_with_fault
from pertstack._base.errors import InputError, StorageError
from pertstack._base.files import leftovers, whole
from pertstack._base.machine import scratch

KINDS = {"h5ad": "out.h5ad", "zarr": "out.zarr", "npz": "preds.npz", "cell-eval": "pairs"}


def test_a_folder_or_file_appears_at_the_end_and_never_when_something_went_wrong(tmp_path):
    place = tmp_path / "deep" / "out"
    with whole(place) as part:
        part.mkdir()
        (part / "a").write_text("1")
        assert not place.exists()
    assert [p.name for p in place.parent.iterdir()] == ["out"] and (place / "a").read_text() == "1"
    with pytest.raises(StorageError, match="disk is full"), whole(tmp_path / "b") as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(StorageError, match="disk is full"), whole(tmp_path / "b") as part:  # as h5py says it
        part.write_text("half")
        raise OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')")
    with pytest.raises(KeyError), whole(tmp_path / "b") as part:
        part.write_text("half")
        raise KeyError("b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]


def killed_within(path):
    child = os.fork()
    if child == 0:
        with whole(path) as part:
            part.mkdir()
            (part / "truth").write_text("secret")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    killed_within(tmp_path / "S")
    (left,) = leftovers(tmp_path)
    (tmp_path / ".S.notes.part").write_text("the user's own")
    (tmp_path / ".my-file.part").write_text("the user's own")
    with whole(tmp_path / "T") as mine, whole(tmp_path / "S") as part:
        mine.write_text("x")
        assert not left.exists() and mine.exists()
        part.write_text("y")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".S.notes.part", ".my-file.part", "S", "T"]


def test_what_a_killed_init_leaves_can_hold_the_truth_and_is_known_as_left_by_the_dead(world_file, tmp_path):
    child = os.fork()
    if child == 0:
        pertstack.study.steps.init.seal_init = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        ps.Study.create(tmp_path / "S", data=world_file, seed=1)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert (left / "test_truth").is_dir() and leftovers(tmp_path) == [left]


def export_killed(study, place, kind: str, at: int | None, fault="kill") -> int:
    root, out = study.folder.root, place / KINDS[kind]
    models = ["ridge", "mean_treated"] if kind == "npz" else ["ridge"] if kind == "zarr" else None
    to = kind if kind == "cell-eval" else "auto"
    return run_with_fault(lambda: ps.Study.open(root).export(out, to=to, models=models), place, at=at, fault=fault)


def content(path):
    return (
        {p.relative_to(path).as_posix(): p.stat().st_size for p in path.rglob("*") if p.is_file()}
        if path.is_dir()
        else path.stat().st_size
    )


@pytest.mark.parametrize("kind", ["zarr", "cell-eval"])
def test_an_export_that_was_killed_is_not_there_and_the_next_one_is_whole(judged, tmp_path, kind):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    n = export_killed(judged, tmp_path / "whole", kind, None)
    place = KINDS[kind] if kind != "npz" else "preds"
    for at in (n // 2, n):
        assert export_killed(judged, tmp_path / "cut", kind, at) == -1
        assert not (tmp_path / "cut" / place).exists(), at
    assert export_killed(judged, tmp_path / "cut", kind, None) > 0
    assert [p.name for p in (tmp_path / "cut").iterdir()] == [place]
    assert content(tmp_path / "cut" / place).keys() == content(tmp_path / "whole" / place).keys()
    if kind == "zarr":
        anndata.read_zarr(tmp_path / "cut" / place)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "full"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_an_export_survives_a_fault_at_every_call(judged, tmp_path, kind, fault):
    """A zarr store is a thousand files written aside, which nothing reads: every eighth call, and the last twenty."""
    (tmp_path / "whole").mkdir()
    n = export_killed(judged, tmp_path / "whole", kind, None)
    place = KINDS[kind] if kind != "npz" else "preds"
    seen = set()
    for at in range(1, n + 1) if kind != "zarr" else [*range(1, n - 20, 8), *range(n - 20, n + 1)]:
        cut = tmp_path / "cut"
        cut.mkdir()
        export_killed(judged, cut, kind, at, fault)
        left = tuple(sorted(re.sub(r"\d+\.part$", "part", p.name) for p in cut.iterdir()))
        if (cut / place).exists():  # the fault came after the last rename: what is there is whole
            assert content(cut / place) == content(tmp_path / "whole" / place), at
        elif left not in seen:  # what lies in a file or folder that was written aside is read by nothing
            assert export_killed(judged, cut, kind, None) > 0, at
            seen.add(left)
        else:
            assert [p for p in cut.iterdir() if p not in leftovers(cut)] == [], at
            shutil.rmtree(cut)
            continue
        assert [p for p in cut.iterdir() if p not in leftovers(cut)] == [cut / place], at
        shutil.rmtree(cut)
    assert seen


def test_npz_of_several_models_do_not_fall_into_a_folder_that_is_there(judged, tmp_path):
    (tmp_path / "preds").mkdir()
    with pytest.raises(InputError, match="exists already"):
        judged.export(tmp_path / "preds.npz")


# -- predictions of new samples ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicting(judged_study, world_file, tmp_path_factory):
    """A judged study, its sums made, and new samples."""
    place = tmp_path_factory.mktemp("predicting")
    data = anndata.read_h5ad(world_file)[judged_study.plan.sample_ids("test")[:5]].copy()
    data.X = None
    data.write_h5ad(place / "new.h5ad")
    return ps.Study.open(copied(judged_study.folder.root, place / "study")), place / "new.h5ad"


def predicted_with_fault(predicting, place, at: int | None, fault="kill") -> int:
    """``predict`` with its output, and what it writes on the way, below ``place``."""
    study, new = predicting

    def step():
        (place / "scratch").mkdir(exist_ok=True)
        tempfile.tempdir = str(place / "scratch")
        ps.Study.open(study.folder.root).predict(new, place / "out" / "p.h5ad", use="mean_treated")

    return run_with_fault(step, place, at=at, fault=fault)


def predicted_at(predicting, tmp_path, points, fault) -> None:
    for at in points:
        place = tmp_path / f"{fault}{at}"
        place.mkdir()
        said = predicted_with_fault(predicting, place, at, fault)
        out = place / "out"
        there = sorted(p.name for p in out.iterdir() if p not in leftovers(out)) if out.is_dir() else []
        if there:  # the fault came after the rename: what is there is whole
            assert there == ["p.h5ad"] and anndata.read_h5ad(out / "p.h5ad").shape == (5, 40), at
        else:
            assert said == (-1 if fault == "kill" else -2), at
            assert predicted_with_fault(predicting, place, None) > 0, at
            assert [p.name for p in out.iterdir()] == ["p.h5ad"], at
        shutil.rmtree(place)


@pytest.mark.parametrize("fault", ["kill", pytest.param("full", marks=pytest.mark.slow)])
def test_predictions_are_there_whole_or_not_at_all(predicting, tmp_path, fault):
    (tmp_path / "whole").mkdir()
    n = predicted_with_fault(predicting, tmp_path / "whole", None)
    assert anndata.read_h5ad(tmp_path / "whole" / "out" / "p.h5ad").shape == (5, 40)
    predicted_at(predicting, tmp_path, (n // 2 if fault == "full" else n - 4,), fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "full"])
def test_predictions_survive_a_fault_at_every_call(predicting, tmp_path, fault):
    (tmp_path / "whole").mkdir()
    n = predicted_with_fault(predicting, tmp_path / "whole", None)
    predicted_at(predicting, tmp_path, range(1, n + 1), fault)


def test_predictions_are_written_as_h5ad_and_a_name_that_says_otherwise_is_refused(predicting, tmp_path):
    study, new = predicting
    for name in ("p.parquet", "p.zarr", "p"):
        with pytest.raises(InputError, match=r"\.h5ad"):
            study.predict(new, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_predictions_take_the_place_of_nothing(predicting, tmp_path):
    """Typed twice by mistake, the name of the new samples was that of their predictions, and they were gone."""
    study, new = predicting
    before = new.read_bytes()
    with pytest.raises(InputError, match=r"new\.h5ad exists already"):
        study.predict(new, new, use="mean_treated")
    assert new.read_bytes() == before


def test_room_for_predictions_is_reserved_before_it_is_written_to(predicting, tmp_path, monkeypatch):
    """A map of a file with holes ended the process by a signal (bus error) when the disk of TMPDIR was full."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    study, new = predicting
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="disk is full"):
        study.predict(new, tmp_path / "p.h5ad", use="mean_treated")
    assert list(tmp_path.iterdir()) == []
