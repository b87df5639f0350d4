"""A child process reads a stranger's file first: a hang, a crash and a gigabyte end it and not this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from pertstack._base.errors import InputError
from pertstack._base.machine.progress import show_progress
from pertstack._base.reading import tried_first as module
from pertstack._base.reading.tables import read_table
from pertstack._base.reading.tried_first import tried_first
from pertstack._base.reading.walk_hdf5 import walk
from pertstack.predictions.importers.readers.opening import open_file

HERE = "test_tried_first"


def fine(path: Path) -> None:
    path.with_name("read").write_text(f"{path.read_text()} in {os.getpid()}")


def refused(path: Path) -> None:
    raise ValueError("the reader says what is wrong")


def hang(path: Path) -> None:
    while True:
        pass


def sleep(path: Path) -> None:
    time.sleep(60)


def crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def greedy(path: Path) -> None:
    np.ones(5 * 10**8)


def said_in_words(path: Path) -> None:
    raise OSError("Unable to allocate chunk")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(module, "_fine", set())
    path = tmp_path / "theirs.bin"
    path.write_text("content")
    return path


def test_a_good_file_is_read_in_another_process_and_only_once(file, monkeypatch):
    tried_first(file, f"{HERE}:fine")
    content, _, process = file.with_name("read").read_text().partition(" in ")
    assert content == "content" and int(process) != os.getpid()
    file.with_name("read").unlink()
    tried_first(file, f"{HERE}:fine")
    assert not file.with_name("read").exists()
    file.write_text("changed")
    tried_first(file, f"{HERE}:fine")
    assert file.with_name("read").exists()


def test_what_the_reader_refuses_is_left_to_it(file):
    tried_first(file, f"{HERE}:refused")
    tried_first(file.with_name("not there"), f"{HERE}:fine")


@pytest.mark.parametrize(
    "reader, said",
    [
        ("hang", "did not come back within 1 seconds of work"),
        ("crash", "crashed on it .signal 11"),
        ("greedy", "more than 1 GB of memory"),
        ("said_in_words", "more than 1 GB of memory"),
    ],
)
def test_a_hang_a_crash_and_a_gigabyte_are_refused_in_words(file, monkeypatch, reader, said):
    monkeypatch.setattr(module, "SECONDS", 1)
    for _ in range(2):  # a refusal is not remembered as fine
        with pytest.raises(InputError, match=rf"theirs.bin cannot be read.*{said}"):
            tried_first(file, f"{HERE}:{reader}")


def test_a_child_that_waits_for_ever_is_ended_by_the_clock(file, monkeypatch):
    with monkeypatch.context() as hurry, pytest.raises(InputError, match="did not come back"):
        hurry.setattr(module, "WAITING", 0.4)
        tried_first(file, f"{HERE}:sleep")
    apart = module._APART._process
    assert apart is not None and apart.poll() is not None
    assert _living(apart.pid) == []  # nor does the child live on
    tried_first(file, f"{HERE}:fine")
    assert file.with_name("read").exists()


def _living(group: int) -> list[str]:
    """Processes of a group that are more than an entry in the table."""
    rows = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [row for row in rows if row.split()[0] == str(group) and row.split()[1][0] != "Z"]


def test_a_path_among_the_folders_of_modules_is_no_hindrance(file, monkeypatch):
    """Scripts append a Path, which Python takes and JSON does not."""
    monkeypatch.setattr("sys.path", [*sys.path, Path(file.parent)])
    tried_first(file, f"{HERE}:fine")
    assert file.with_name("read").exists()


def test_one_process_reads_all_files_each_in_a_child_of_its_own(file):
    processes = set()
    for name in ("a", "b"):
        path = file.with_name(name)
        path.write_text(name)
        tried_first(path, f"{HERE}:fine")
        apart = module._APART._process
        content, _, process = file.with_name("read").read_text().partition(" in ")
        assert content == name
        processes |= {process, str(apart and apart.pid)}
    assert len(processes) == 3, "one that waits, two that read"


def test_a_fork_of_this_process_asks_a_process_of_its_own(file):
    tried_first(file, f"{HERE}:fine")
    ours = module._APART._process
    file.write_text("changed")
    child = os.fork()
    if child == 0:
        tried_first(file, f"{HERE}:fine")
        os._exit(0 if module._APART._process is not ours else 1)
    assert os.waitpid(child, 0)[1] == 0 and ours is not None and ours.poll() is None


def test_what_a_file_may_take_grows_with_it():
    assert module.memory_of(0) == 10**9 and module.memory_of(10**10) > 10**11


def test_a_walk_goes_through_every_part_and_passes_over_broken_ones(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/b/texts"] = np.array(["x", "y"], dtype=object)
        file["a/numbers"] = np.arange(30.0).reshape(10, 3)
        file["alone"], file["nothing"] = 3, h5py.Empty("f4")
        file["a/round"] = h5py.SoftLink("/a")
        file["gone"], file["outside"] = h5py.SoftLink("/not here"), h5py.ExternalLink("other.h5", "/")
        file.create_dataset("hollow", (10**12,), "f4", chunks=(10**6,))
        file.create_dataset("texts of nothing", (10**12,), h5py.string_dtype(), chunks=(10**4,))
        file.create_dataset("one row", (1, 10**11), "f4", chunks=(1, 10**6))
        file["a"].attrs["kind"] = "x"
    walk(path)


def test_no_file_of_another_is_tried(tmp_path, monkeypatch):
    """A folder (zarr) is not."""
    monkeypatch.setattr(module, "_APART", None)
    tried_first(tmp_path, f"{HERE}:fine")


@pytest.mark.parametrize("reader", [lambda p: list(open_file(p).chunks()), read_table], ids=["add", "side table"])
def test_forged_offsets_of_texts_are_not_followed(tmp_path, reader):
    """pyarrow reads a text from wherever its offset says, unless it is asked to look first."""
    path = tmp_path / "theirs.feather"
    pa.feather.write_feather(pa.table({"sample_id": ["a", "bb", "ccc"], "G0": [1.0, 2.0, 3.0]}), path, "uncompressed")
    raw = path.read_bytes()
    offsets = np.array([0, 1, 3, 6], dtype="<i4").tobytes()
    assert raw.count(offsets) == 1
    path.write_bytes(raw.replace(offsets, np.array([0, -(10**9), 10**9, 6], dtype="<i4").tobytes()))
    with pytest.raises(InputError, match=r"(?i)theirs\.feather.*offset"):
        reader(path)


def test_a_batch_that_asks_for_a_terabyte_is_refused_in_the_child(tmp_path):
    """The unpacked length of a compressed buffer stands before it, and room is made for it first."""
    path = tmp_path / "theirs.feather"
    table = pa.table({"sample_id": [str(i) for i in range(5000)], "G0": np.zeros(5000)})
    pa.feather.write_feather(table, path, "zstd")
    raw, told = path.read_bytes(), (8 * 5000).to_bytes(8, "little")
    at = raw.index(told)
    path.write_bytes(raw[:at] + (10**12).to_bytes(8, "little") + raw[at + 8 :])
    with pytest.raises(InputError, match=r"theirs.feather cannot be read: it asks for more than 1 GB"):
        open_file(path)


def test_a_child_that_does_not_start_is_said_and_not_taken_for_a_look(file, capsys):
    show_progress(True)
    try:
        tried_first(file, "no_such_module_anywhere:read")
    finally:
        show_progress(False)
    assert "could not be tried in a process apart" in capsys.readouterr().err and not module._fine
