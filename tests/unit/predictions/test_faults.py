"""Whatever happens during a commit, readers see complete predictions only, earlier ones still verify, and a retry
succeeds."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pertstack._base.errors import ConflictError, StackingError, StorageError
from pertstack.design.blocks import Block
from pertstack.predictions import PredictionStore
from pertstack.predictions.store.files import durable
from references.small_store import World, make_world

LINE, OTHER = Block("A375", 0), Block("A375", 1)
CALLS = ("open", "write", "fsync", "rename", "mkdir", "close", "posix_fallocate")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks and counts system calls as Linux has them")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store")


def instrument(at: int, action: Callable[[str], None]) -> list[str]:
    """Wrap the os-level calls; before the ``at``-th of them ``action`` runs. Returns the growing list of calls."""
    seen: list[str] = []

    def wrap(name: str, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) - 1 == at:
                action(name)
            return real(*args, **options)

        return call

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))
    return seen


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 (a forked test must never come back)
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def check_intact(world: World, model: str, seed: int, *, audit: bool = True) -> bool:
    """Everything visible is right to the last bit; whether ``model`` is visible."""
    store = PredictionStore.open(world.store.root)
    assert not audit or [f for f in store.verify(deep=True) if f.severity == "error"] == []
    np.testing.assert_array_equal(store.read(LINE, "before", verify=True), world.prediction(LINE, 1))
    if store.status(LINE, model) != "committed":
        return False
    np.testing.assert_array_equal(store.read(LINE, model, verify=True), world.prediction(LINE, seed))
    return True


def count_calls(world: World) -> int:
    """System calls of one commit, counted in a separate process."""
    reader, writer = os.pipe()

    def work() -> None:
        seen = instrument(-1, lambda name: None)
        world.commit(LINE, "counted", seed=2)
        n = len(seen)
        os.write(writer, str(n).encode())

    assert in_child(work) == 0
    return int(os.read(reader, 20))


def test_a_writer_killed_at_any_system_call_leaves_nothing_half_visible(world: World) -> None:
    world.commit(LINE, "before", seed=1)
    n = count_calls(world)
    assert n > 15
    outcomes = []
    for at in range(n):
        model = f"m{at}"

        def work(model: str = model, at: int = at) -> None:
            instrument(at, lambda name: os.kill(os.getpid(), signal.SIGKILL))
            world.commit(LINE, model, seed=2)

        assert os.WTERMSIG(in_child(work)) == signal.SIGKILL
        outcomes.append(check_intact(world, model, seed=2, audit=False))
        world.commit(LINE, model, seed=2)
        assert check_intact(world, model, seed=2, audit=False)
    assert check_intact(world, "m0", seed=2)
    assert not outcomes[0] and outcomes == sorted(outcomes), "visible from one call on, and not before"
    assert any(f.code == "orphaned_staging" for f in world.store.verify())
    world.store.gc()
    assert not list((world.store.root / "staging").iterdir())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["disk full", "input/output error"])
def test_a_failing_system_call_is_told_and_leaves_nothing(world: World, error: int) -> None:
    """Each call of a commit fails once. Either the commit is refused as a whole, or the call did not matter."""
    world.commit(LINE, "before", seed=1)
    refused = 0
    for at in range(count_calls(world)):
        model = f"m{at}"

        def fail(name: str) -> None:
            raise OSError(error, os.strerror(error))

        def work(model: str = model, at: int = at) -> None:
            instrument(at, fail)
            try:
                world.commit(LINE, model, seed=2)
            except StorageError as told:
                assert error != errno.ENOSPC or "disk is full" in str(told)
                os._exit(7)

        status = os.waitstatus_to_exitcode(in_child(work))
        assert status in (0, 7), (at, status)
        refused += status == 7
        visible = check_intact(world, model, seed=2, audit=False)
        assert visible or status == 7, "acknowledged, but lost"
        world.commit(LINE, model, seed=2)
    assert refused > 10 and check_intact(world, "m0", seed=2)


def _commit_for_ever(world: World, worker: int) -> None:
    for i in range(100_000):
        world.commit(LINE, f"w{worker}.{i}", seed=i)


def kill_at_random(world: World, kills: int, seed: int) -> None:
    """Each writer is killed after none, one or two commits, at a random moment of the next, however fast we are."""
    rng = np.random.default_rng(seed)
    world.commit(LINE, "first.0", seed=0)  # loads what a commit needs
    began = time.perf_counter()
    world.commit(LINE, "second.0", seed=0)
    step = time.perf_counter() - began
    for kill in range(kills):
        wanted, patience = int(rng.integers(0, 3)), time.monotonic() + 60
        pid = os.fork()
        if pid == 0:
            os.setpgrp()
            _commit_for_ever(world, kill)
            os._exit(0)
        while wanted and f"w{kill}.{wanted - 1}" not in PredictionStore.open(world.store.root).models():
            assert time.monotonic() < patience, "a writer does not get on"
            time.sleep(step / 10)
        time.sleep(float(rng.uniform(0, 1.5 * step)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    store = PredictionStore.open(world.store.root)
    assert [f for f in store.verify(deep=True) if f.severity == "error"] == []
    names = store.models()
    for name in names:
        seed_of = int(name.rsplit(".", 1)[1])
        np.testing.assert_array_equal(store.read(LINE, name, verify=True), world.prediction(LINE, seed_of))
    assert len(names) > kills / 3
    world.commit(OTHER, names[0])
    store.gc()
    assert not list((store.root / "staging").iterdir())


def test_writers_killed_at_random_moments(world: World, real_fsync: None) -> None:
    kill_at_random(world, kills=10, seed=0)


@pytest.mark.slow
def test_writers_killed_a_hundred_times(world: World, real_fsync: None) -> None:
    kill_at_random(world, kills=100, seed=1)


def _race(args: tuple[str, int, bool]) -> list[tuple[str, str]]:
    """One of eight processes: the same parts as the others, with the same or with other values."""
    root, worker, same = args
    store = PredictionStore.open(root)
    rng = np.random.default_rng(3)
    done = []
    for part in rng.permutation(12):
        block = store.blocks("development")[part % 2]
        ids, genes = store.sample_ids(block), list(store.gene_names)
        seed = int(part) if same else 1000 * worker + int(part)
        values = np.random.default_rng(seed).normal(size=(len(ids), len(genes)))
        fitted = durable_fitted(store, block)
        try:
            store.commit(block, f"m{part}", values, sample_ids=ids, gene_names=genes, fitted_on=fitted)
            done.append((f"m{part}", "won"))
        except ConflictError:
            done.append((f"m{part}", "conflict"))
    return done


def durable_fitted(store: PredictionStore, block: Block) -> Any:
    from pertstack.design.provenance import FittedOn

    return FittedOn.fold_of_plan(store.plan_digest or "", block.fold)


@pytest.mark.parametrize("same", [True, False], ids=["same predictions", "other predictions"])
def test_eight_processes_commit_at_once(world: World, same: bool) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        outcomes = pool.map(_race, [(str(world.store.root), w, same) for w in range(8)], chunksize=1)
    store = PredictionStore.open(world.store.root)
    assert [f for f in store.verify(deep=True) if f.severity != "note"] == []
    assert len(store.models()) == 12
    for model in store.models():
        told = [o for worker in outcomes for name, o in worker if name == model]
        assert told.count("won") == (8 if same else 1), (model, told)


def test_a_full_disk_is_told_and_a_retry_succeeds(world: World) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the kernel refuses to let a file grow."""
    world.commit(LINE, "before", seed=1)

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        try:
            world.commit(LINE, "m", seed=2)
        except StorageError:
            os._exit(0 if not list((world.store.root / "staging").iterdir()) else 3)
        os._exit(2)

    assert os.waitstatus_to_exitcode(in_child(work)) == 0
    assert not check_intact(world, "m", seed=2)
    world.commit(LINE, "m", seed=2)
    assert check_intact(world, "m", seed=2)


def test_a_lost_answer_to_the_rename_is_no_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On network file systems a rename can succeed and still report an error; the record tells who was there."""
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        real(source, target)
        raise OSError(errno.EIO, "answer lost")

    monkeypatch.setattr(os, "rename", rename)
    record = world.commit(LINE, "m")
    monkeypatch.undo()
    assert world.store.record(LINE, "m") == record


def test_a_file_system_that_overwrites_folders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "publish", lambda staged, target: True)
    with pytest.raises(StorageError, match="lets a folder be renamed onto another"):
        PredictionStore.create(tmp_path / "s", ["g"])


def test_staging_of_a_living_writer_is_left_alone(world: World) -> None:
    with durable.staging(world.store.root) as folder:
        (folder / "x").write_bytes(b"1")
        assert world.store.gc() == []
        assert [f.code for f in world.store.verify()] == ["live_staging"]
        assert world.store.gc(lease_seconds=-1) == [folder]


def test_an_abandoned_writer_leaves_nothing(world: World) -> None:
    writer = world.store.writer(LINE, "m", gene_names=world.genes, fitted_on=world.fitted(LINE))
    with pytest.raises(RuntimeError), writer:
        writer.append(world.prediction(LINE)[:2], world.obs[LINE].index[:2])
        raise RuntimeError("the job died")
    assert not list((world.store.root / "staging").iterdir())
    writer = world.store.writer(LINE, "m", gene_names=world.genes, fitted_on=world.fitted(LINE))
    with writer, pytest.raises(StackingError, match="never passed"):
        writer.append(world.prediction(LINE)[:2], world.obs[LINE].index[:2])
        writer.commit()
    assert world.store.status(LINE, "m") == "missing"


FULL_DISK = """
import shutil, sys
from pathlib import Path
import numpy as np, pandas as pd
from pertstack._base.errors import StorageError
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore

root, block = Path(sys.argv[1]) / "store", Block("A", 0)
store = PredictionStore.create(root, [f"g{i}" for i in range(100)], "p")
store.add_block(block, pd.DataFrame({"perturbation": ["a"] * 200}, index=[f"s{i}" for i in range(200)]))

def commit(i):
    values = np.full((200, 100), i, np.float32)
    store.commit(block, f"m{i}", values, sample_ids=store.sample_ids(block), gene_names=store.gene_names,
                 fitted_on=FittedOn.fold_of_plan("p", 0))

accepted, refused = [], []
for i in range(40):
    try:
        commit(i)
        accepted.append(i)
    except StorageError as error:
        assert "disk is full" in str(error), error
        refused.append(i)
assert accepted and refused, (accepted, refused)
assert store.models() == sorted(f"m{i}" for i in accepted)
assert store.verify(deep=True) == [] and not list((root / "staging").iterdir())
for i in accepted:
    assert (store.read(block, f"m{i}", verify=True) == i).all()
(Path(sys.argv[1]) / "ballast").unlink()
commit(refused[0])
assert (store.read(block, f"m{refused[0]}", verify=True) == refused[0]).all()
print(len(accepted), "accepted", len(refused), "refused")
"""


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A tmpfs of 2 MB in a mount namespace of its own, where that is allowed."""
    command = (
        f"mount -t tmpfs -o size=2m tmpfs {tmp_path} && head -c 300000 /dev/zero > {tmp_path}/ballast"
        f' && exec "$0" -W ignore -c "$1" {tmp_path}'
    )
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    allowed = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True)
    if allowed.returncode:
        pytest.skip("mounting a tmpfs is not allowed here; the limit on file size stands in for it above")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable, FULL_DISK], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout
