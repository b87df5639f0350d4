"""Mutations of files, and a child process in which each is tried: no traceback, no hang, no gigabyte.

``mutated`` knows the packing of a file: half of the mutations of a gzip file or of a member of a zip archive are made
inside and packed again with the right checksums, a JSON file is changed as a tree, an HDF5 file through h5py.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import os
import resource
import select
import signal
import sys
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pertstack._base.errors import StackingError

SECONDS, MEMORY = 20, 10**9
WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**12,
    1e308,
    "",
    "soon",
    "nan",
    "../../x",
    "\x1b[31m",
    "=1+1",
    [],
    {},
    [[]],
    "\ud800",
    "@9999@",
)
LONG = "9" * 5000
"""A number of which Python makes none; in the place of ``"@9999@"``."""
WORDS = (
    b"nan",
    b"inf",
    b"-1e999",
    b'"',
    b"",
    b"\x00",
    b"=cmd",
    b"9" * 40,
    LONG.encode(),
    b'"\\ud800"',
    b"\xff\xfe",
    b"\n\n",
    b",,,,",
    b"1e5,x",
    b"\xef\xbb\xbf",
)


def many() -> range:
    """The mutations of ``make test-all``: five hundred, or ``FUZZ=n``, or a piece of them, ``FUZZ=100:200``."""
    first, _, last = os.environ.get("FUZZ", "500").rpartition(":")
    return range(int(first or 0), int(last))


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation: ``read``, ``refused`` (in words, with them), or ``failed``."""

    number: int
    kind: str
    said: str


def tried(step: Callable[[int], object], numbers: Sequence[int]) -> list[Outcome]:
    """Go through a step for every number, in children that end at 20 s of work."""
    left, found = list(numbers), []
    while left:
        batch = _child(step, left)
        found += batch
        left = left[len(batch) :]
    return found


def _child(step: Callable[[int], object], numbers: Sequence[int]) -> list[Outcome]:
    """Outcomes up to the one at which the child ended, if it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _go_through(step, numbers, writing)
        finally:
            os._exit(0)
    os.close(writing)
    raw, waited = b"", 0
    with os.fdopen(reading, "rb", buffering=0) as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], 15 * SECONDS)
            if not ready:
                os.kill(child, signal.SIGKILL)
                raw += b""
                waited = 1
                break
            piece = stream.read(65536)
            if not piece:
                break
            raw += piece
    _, status = os.waitpid(child, 0)
    found = [Outcome(*json.loads(line)) for line in raw.decode().splitlines()]
    if len(found) < len(numbers):
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
        why = "no answer" if waited else f"the process ended with {ended}"
        found.append(Outcome(numbers[len(found)], "failed", why))
    return found


def _go_through(step: Callable[[int], object], numbers: Sequence[int], writing: int) -> None:
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 3 * MEMORY, now + 3 * MEMORY))
    for number in numbers:
        before = _most_memory()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # seconds of work: a busy machine is no hang
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        try:
            said, kind = str(step(number)), "read"
        except StackingError as refusal:
            said, kind = str(refusal), "refused"
        except BaseException as error:  # noqa: BLE001 (that is what is looked for)
            where = traceback.extract_tb(sys.exc_info()[2])
            places = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "pertstack" in f.filename][-3:]
            said, kind = f"{type(error).__name__}: {error} ({' < '.join(reversed(places))})", "failed"
        signal.setitimer(signal.ITIMER_PROF, 0)
        if (more := _most_memory() - before) > MEMORY:
            kind, said = "failed", f"{more:,} bytes of memory: {said}"
        os.write(writing, json.dumps([number, kind, said[:3000]]).encode() + b"\n")


def _most_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- mutations ---------------------------------------------------------------------------------------------------------


def mutated(path: Path, rng: np.random.Generator) -> bool:
    """Change a file, or one file of a folder, in one place; whether it was packed again with the right checksums."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return mutated(files[int(rng.integers(len(files)))], rng)
    raw, name = path.read_bytes(), path.name
    inside = rng.random() < 0.5
    if inside and name.endswith(".gz"):
        path.write_bytes(gzip.compress(_text(gzip.decompress(raw), rng), 1))
    elif inside and zipfile.is_zipfile(io.BytesIO(raw)):
        path.write_bytes(_zip(raw, rng))
    elif inside and name.endswith((".json", ".zarray", ".zattrs", ".zgroup")):
        path.write_text(json.dumps(tree(json.loads(raw), rng)).replace('"@9999@"', LONG))
    elif inside and raw.startswith(b"\x89HDF"):
        _hdf5(path, rng)
    elif inside and name.endswith((".csv", ".tsv", ".toml", ".jsonl")):
        path.write_bytes(_text(raw, rng))
    else:
        path.write_bytes(_bytes(raw, rng))
        return False
    return True


def _bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    at, n = int(rng.integers(max(1, len(raw)))), int(rng.integers(1, 64))
    junk = rng.bytes(n)
    kind = int(rng.integers(8))
    if kind == 0:
        return raw[:at]
    if kind == 1:
        return raw[:at] + junk + raw[at + n :]
    if kind == 2:
        return raw[:at] + raw[at + n :]
    if kind == 3:
        return raw[:at] + junk + raw[at:]
    if kind == 4:
        return raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :] if raw else junk
    if kind == 5:  # a number that declares a size
        number = int(rng.choice(np.array([10**6, 10**9, 10**12, 2**31 - 1, 2**62])))
        return raw[: at - at % 4] + number.to_bytes(8, "little") + raw[at - at % 4 + 8 :]
    if kind == 6:
        return raw[:at] + bytes(n) + raw[at + n :]
    return raw[:at] + raw[at : at + 512] + raw[at:]


def _text(raw: bytes, rng: np.random.Generator) -> bytes:
    """A cell, a line or a few bytes."""
    kind = int(rng.integers(4))
    lines = raw.split(b"\n")
    at = int(rng.integers(len(lines)))
    if kind == 0:
        return _bytes(raw, rng)
    if kind == 1:
        lines[at : at + 1] = [lines[at]] * int(rng.integers(0, 3))
    else:
        mark = b"\t" if b"\t" in lines[at] else b"," if b"," in lines[at] else b" "
        cells = lines[at].split(mark)
        cells[int(rng.integers(len(cells)))] = WORDS[int(rng.integers(len(WORDS)))]
        lines[at] = mark.join(cells)
    return b"\n".join(lines)


def _zip(raw: bytes, rng: np.random.Generator) -> bytes:
    """One member changed, left out or doubled; checksums right again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen, kind = int(rng.integers(len(names))), int(rng.integers(5))
        for i, name in enumerate(names):
            content = old.read(name)
            if i == chosen and kind == 0:
                continue
            if i == chosen and kind == 1:
                name = "other.npy"
            if i == chosen and kind > 1:
                head = content[:128]
                content = _bytes(head, rng) + content[128:] if kind == 2 else _bytes(content, rng)
            new.writestr(name, content)
    return out.getvalue()


def tree(value: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one part exchanged, taken out, or put where it does not belong."""
    places: list[tuple[Any, Any]] = []

    def walk(at: Any) -> None:
        for key, inner in at.items() if isinstance(at, dict) else enumerate(at):
            places.append((at, key))
            if isinstance(inner, dict | list):
                walk(inner)

    value = json.loads(json.dumps(value))
    if isinstance(value, dict | list):
        walk(value)
    if not places or rng.random() < 0.03:
        return WEIRD[int(rng.integers(len(WEIRD)))]
    at, key = places[int(rng.integers(len(places)))]
    if rng.random() < 0.15:
        del at[key]
    else:
        at[key] = WEIRD[int(rng.integers(len(WEIRD)))]
    return value


def _hdf5(path: Path, rng: np.random.Generator) -> None:
    """One object of the file is gone, of another type or length, declares 10^12 values, or points to itself."""
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        name = names[int(rng.integers(len(names)))]
        at = file[name]
        kind = int(rng.integers(9))
        if kind == 0:
            del file[name]
        elif kind in (1, 2) and at.attrs:
            attribute = sorted(at.attrs)[int(rng.integers(len(at.attrs)))]
            at.attrs[attribute] = rng.choice(
                np.array(["dataframe", "categorical", "csr_matrix", "", "x"], dtype=object)
            )
        elif kind == 3:
            del file[name]
            declared = int(rng.choice(np.array([3 * 10**8, 10**12])))
            file.create_dataset(name, (declared,), "f4", chunks=(10**6,), compression="gzip")
        elif kind == 4:
            del file[name]
            file[name] = h5py.SoftLink(f"/{name}")
        elif kind == 5:
            del file[name]
            file[name] = h5py.ExternalLink("/etc/hostname", "/")
        elif kind == 6 and isinstance(at, h5py.Dataset) and at.ndim:
            values = at[()][: max(0, len(at) - int(rng.integers(1, 3)))]
            del file[name]
            file[name] = values
        elif kind == 7 and isinstance(at, h5py.Dataset):
            shape = at.shape
            del file[name]
            file[name] = rng.choice(np.array([np.nan, 1e308, -1.0]), shape)
        else:
            del file[name]
            file[name] = "text"
