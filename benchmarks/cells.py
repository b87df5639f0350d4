"""Cells of a Perturb-seq screen at the size of a challenge entry: what ``init`` takes, beside a plain read of the file.

    python benchmarks/cells.py make cells.h5ad --cells 360000 --genes 18533 --per-cell 1950
    python benchmarks/cells.py run cells.h5ad

``make`` writes counts of 4,000 different cells again and again (``--by csc``: gene by gene), without holding them.
``run`` times a plain chunked read of the stored arrays, the sums alone and ``pertstack init``, each in a process of its
own, and prints seconds, CPU seconds and peak memory.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import h5py
import numba
import numpy as np
import pandas as pd

BATCH = 4000
ENTRIES = 4_000_000


@numba.njit(cache=False)  # type: ignore[untyped-decorator]
def _fill(rate: Any, seed: int, n: int, indptr: Any, indices: Any, data: Any) -> int:
    """Counts of n cells: gene j is seen with probability ``rate[j]``; one count, or a few more."""
    np.random.seed(seed)
    at = 0
    for i in range(n):
        for j in range(len(rate)):
            u = np.random.random()
            if u < rate[j]:
                indices[at] = j
                data[at] = 1.0 + np.floor(-np.log(1e-9 + u / rate[j]) * 0.7)
                at += 1
        indptr[i + 1] = at
    return at


def _cycled(rate: Any, cells: int, ends: Any) -> int:
    """Entries of that many cells, where the first few are written again and again."""
    room = len(rate) * min(BATCH, cells)
    _fill(rate, 1, min(BATCH, cells), ends, np.empty(room, np.int32), np.empty(room, np.float32))
    whole, rest = divmod(cells, BATCH)
    return int(whole * ends[BATCH] + ends[rest]) if whole else int(ends[cells])


def make(path: Path, *, cells: int, genes: int, per_cell: int, by: str, compression: str | None) -> None:
    """A file of counts: 300 targets and controls in three batches, cells in random order."""
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.4, 1.0, genes)
    for _ in range(30):  # rates below one with the wanted mean
        rate = np.minimum(rate * per_cell / rate.sum(), 0.98)
    names = np.array([f"G{i:05d}" for i in range(genes)], dtype=object)
    codes = rng.integers(0, 301, cells)
    targets = np.array([*names[:300], "non-targeting"], dtype=object)
    batches = np.array(["1", "2", "3"], dtype=object)
    index = pd.Index([f"{i:08d}-1" for i in range(cells)], dtype=object)
    obs = pd.DataFrame(index=index)
    obs["target_gene"] = pd.Categorical(targets[codes])
    obs["batch"] = pd.Categorical(batches[rng.integers(0, 3, cells)])
    shell = anndata.AnnData(obs=obs, var=pd.DataFrame(index=names))
    shell.write_h5ad(path)
    packed = compression is not None or by == "csc"  # otherwise in one piece, as anndata writes it
    options: dict[str, Any] = {"chunks": (250_000,), "maxshape": (None,)} if packed else {}
    if compression in ("zstd", "lz4"):
        import hdf5plugin

        options |= {"compression": hdf5plugin.Zstd() if compression == "zstd" else hdf5plugin.LZ4()}
    elif compression:
        options |= {"compression": compression, "shuffle": True} | (
            {"compression_opts": 1} if compression == "gzip" else {}
        )
    with h5py.File(path, "r+") as file:
        if "X" in file:
            del file["X"]
        x = file.create_group("X")
        shape = np.array([cells, genes])
        x.attrs.update({"encoding-type": f"{by}_matrix", "encoding-version": "0.1.0", "shape": shape})
        first = np.zeros(BATCH + 1, dtype=np.int64)
        n_entries = 0 if packed else _cycled(rate, cells, first)
        data = x.create_dataset("data", (n_entries,), "f4", **options)
        indices = x.create_dataset("indices", (n_entries,), "i4", **options)
        lines, across = (cells, genes) if by == "csr" else (genes, cells)
        if by == "csc":  # the same rates, column by column
            per = rate
        ends = np.zeros(lines + 1, dtype=np.int64)
        step = BATCH if by == "csr" else max(1, 40_000_000 // cells)
        room_i, room_d = np.empty(step * across, np.int32), np.empty(step * across, np.float32)
        for start in range(0, lines, step):
            n = min(step, lines - start)
            indptr = np.zeros(n + 1, dtype=np.int64)
            if by == "csr":
                if start == 0:
                    _fill(rate, 1, n, first, room_i, room_d)
                indptr, k = first[: n + 1], int(first[n])
            else:
                k = 0
                for c in range(n):
                    one = np.zeros(2, dtype=np.int64)
                    row = np.full(cells, per[start + c])
                    k += _fill(row, start + c + 1, 1, one, room_i[k:], room_d[k:])
                    indptr[c + 1] = k
            at = int(ends[start])
            for array, values in ((indices, room_i), (data, room_d)):
                if packed:
                    array.resize((at + k,))
                array[at : at + k] = values[:k]
            ends[start + 1 : start + n + 1] = at + indptr[1:]
        x.create_dataset("indptr", data=ends)
    print(
        f"{path}: {cells:,} cells x {genes:,} genes, {ends[-1]:,} entries ({ends[-1] / cells:,.0f} a cell), "
        f"{by}, {compression or 'not packed'}, {path.stat().st_size / 1e9:.2f} GB"
    )


def read(path: Path) -> None:
    """Every stored value and its place, some millions at a time, and nothing done with them."""
    with h5py.File(path, "r") as file:
        data, indices = file["X/data"], file["X/indices"]
        for start in range(0, data.shape[0], ENTRIES):
            data[start : start + ENTRIES], indices[start : start + ENTRIES]


def summed(path: Path) -> None:
    """The pass over the cells alone: sums of every perturbation and batch."""
    from pertstack.data.readers.open import open_data

    assert open_data(path).treated.source.sums.n_groups  # type: ignore[attr-defined]


def measured(words: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak memory (GB) of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    worker = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    peak = 0
    while worker.poll() is None:
        try:
            status = Path(f"/proc/{worker.pid}/status").read_text()
            peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
        except OSError:
            pass
        time.sleep(0.2)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if worker.returncode:
        raise SystemExit(f"{words} failed")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, cpu, peak * 1024 / 1e9


def run(path: Path) -> None:
    """A plain read, and a study of the file; both twice, the better of each."""
    here = Path(tempfile.mkdtemp(prefix="pertstack-cells-", dir=path.parent))
    me = [sys.executable, __file__]
    steps = {
        "plain read": [*me, "read", str(path)],
        "sums": [*me, "sum", str(path)],
        "init": [sys.executable, "-m", "pertstack", "init", str(here / "study"), "--data", str(path)],
    }
    try:
        for name, words in steps.items():
            times = []
            for _ in range(2):
                shutil.rmtree(here / "study", ignore_errors=True)
                times.append(measured(words))
            took, cpu, peak = min(times)
            print(f"{name}: {took:.0f} s, {cpu:.0f} CPU s, peak {peak:.2f} GB", flush=True)
    finally:
        shutil.rmtree(here)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "read", "sum", "run"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--cells", type=int, default=360_000)
    parser.add_argument("--genes", type=int, default=18_533)
    parser.add_argument("--per-cell", type=int, default=1950)
    parser.add_argument("--by", choices=("csr", "csc"), default="csr")
    parser.add_argument("--compression", choices=("gzip", "lzf", "zstd", "lz4"))
    said = parser.parse_args()
    if said.what == "make":
        make(
            said.path,
            cells=said.cells,
            genes=said.genes,
            per_cell=said.per_cell,
            by=said.by,
            compression=said.compression,
        )
    elif said.what == "read":
        read(said.path)
    elif said.what == "sum":
        summed(said.path)
    else:
        run(said.path)


if __name__ == "__main__":
    main()
