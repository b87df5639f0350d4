"""How random examples are drawn: the same ones each time in `make test`, thousands of new ones in `make laws`.

And no test waits for what it does not test. A study is flushed thousands of times against a power cut, which no test
has; processes that tests start flush as they would for a user. One local worker is this process, see
``in_this_process.py``. The folder of a test that passed is removed beside the next test. What was loaded before the
first test is not gone through again by the garbage collector. Folders of tests are in memory where there is room,
since a study is two thousand small files; programs in a box see no memory files, so their modules say
``ON_DISK = True``.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from in_this_process import jobs_in_this_process
from undrawn import undrawn_figure

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "gate")
FSYNC = os.fsync
LAW_EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "2000"))

MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 10**9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # the temporary files of commands stay on the disk

settings.register_profile("gate", derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "laws",
    deadline=None,
    max_examples=LAW_EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(PROFILE)


@pytest.fixture(scope="session", autouse=True)
def _no_flush() -> Iterator[None]:
    """``os.fsync`` does nothing, unless a test asks for ``real_fsync``."""
    os.fsync = lambda fd: None  # type: ignore[assignment]
    yield
    os.fsync = FSYNC


@pytest.fixture(scope="session", autouse=True)
def _removed_beside_the_next_test() -> Iterator[None]:
    """pytest removes the folder of a test that passed, thousands of small files, before it goes on; ``rm`` needs half
    the work for them, and no test waits for it."""
    if shutil.which("rm") is None:
        yield
        return
    turn, waiting, running = count(), list[Path](), list[subprocess.Popen[bytes]]()

    def remove_what_waits() -> None:
        if waiting and not (running and running[-1].poll() is None):
            running[:] = [subprocess.Popen(["rm", "-rf", *map(str, waiting)], stderr=subprocess.DEVNULL)]
            waiting.clear()

    def remove(path: Path, ignore_errors: bool) -> None:
        try:
            waiting.append(path.rename(path.with_name(f"gone-{next(turn)}")))
        except OSError:
            shutil.rmtree(path, ignore_errors=ignore_errors)
        remove_what_waits()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("_pytest.tmpdir.rmtree", remove)
        yield
    while waiting or running:
        if running:
            running.pop().wait()
        remove_what_waits()


@pytest.fixture(scope="module", autouse=True)
def _one_worker_is_this_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Unless the module says ``OWN_PROCESSES = True``."""
    if getattr(request.module, "OWN_PROCESSES", False):
        yield
        return
    with jobs_in_this_process():
        yield


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On the disk if the module says ``ON_DISK = True``."""
    if not getattr(request.module, "ON_DISK", False):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="pertstack-test-") as folder:
        yield Path(folder)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for this where the words of a report matter and its figures do not."""
    monkeypatch.setattr("pertstack.write.report.to_svg", undrawn_figure)


@pytest.fixture
def real_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for this where the real fsync matters."""
    monkeypatch.setattr(os, "fsync", FSYNC)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `make laws` every law draws ``LAW_EXAMPLES`` examples, whatever number its decorator names for the gate."""
    if PROFILE != "laws":
        return
    for item in items:
        law = getattr(item, "obj", None)
        own = getattr(law, "_hypothesis_internal_use_settings", None)
        if own is not None:
            target = getattr(law, "__func__", law)
            target._hypothesis_internal_use_settings = settings(own, max_examples=max(own.max_examples, LAW_EXAMPLES))
