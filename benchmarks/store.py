"""Speed of the prediction store as ratios to plain file work on the same disk, and memory of `add`, in one run.

    python benchmarks/store.py            a minute or two, about 1.5 GB of disk
    python benchmarks/store.py --full     the sizes of issue 3: add on 20,000 x 10,716, about 6 GB of disk

Ratios are taken from interleaved rounds (medians), so that a slow disk or a busy machine weighs on both sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather

from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore
from pertstack.predictions.importers import add_predictions
from pertstack.predictions.store.files.layout import array_folder

GENES = 10_716


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def world(root: Path, n_blocks: int, rows: int, genes: int) -> tuple[PredictionStore, list[Block]]:
    store = PredictionStore.create(root, [f"g{i}" for i in range(genes)], "p")
    blocks = [Block(f"line{i}", i % 3) for i in range(n_blocks)]
    for block in blocks:
        obs = pd.DataFrame({"perturbation": "a"}, index=[f"{block.id}:{i}" for i in range(rows)])
        store.add_block(block, obs)
    return store, blocks


def commit(store: PredictionStore, block: Block, model: str, values: np.ndarray) -> None:
    fitted = None if model in ("treated", "control") else FittedOn.fold_of_plan("p", block.fold)
    ids = store.sample_ids(block)
    store.commit(block, model, values, sample_ids=ids, gene_names=store.gene_names, fitted_on=fitted)


def plain_write(folder: Path, values: np.ndarray, rows: int) -> None:
    """The same bytes in as many files, each written and flushed, and the folder flushed."""
    folder.mkdir(parents=True)
    for i in range(0, len(values), rows):
        with (folder / str(i)).open("wb", buffering=0) as stream:
            view = memoryview(values[i : i + rows].reshape(-1).view(np.uint8).data)
            while len(view):
                view = view[stream.write(view) :]
            os.fsync(stream.fileno())
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def bench_throughput(home: Path, n_models: int, rows: int, rounds: int) -> dict[str, float]:
    store, blocks = world(home / "store", 2, rows, GENES)
    rng = np.random.default_rng(0)
    base = rng.normal(8, 2, (rows, GENES)).astype(np.float32)
    commits, plain = [], []
    for m in range(n_models):
        for block in blocks:
            base += np.float32(0.125)
            commits.append(seconds(lambda b=block, m=m, v=base: commit(store, b, f"m{m}", v)))
            grid = store.record(block, f"m{m}").grid
            plain.append(seconds(lambda b=block, m=m, v=base, r=grid.rows: plain_write(home / f"p{m}.{b.id}", v, r)))
    n_bytes = base.nbytes
    found = {
        "commit GB/s": n_bytes / statistics.median(commits) / 1e9,
        "plain write + fsync GB/s": n_bytes / statistics.median(plain) / 1e9,
        "commit / plain write": statistics.median(p / c for p, c in zip(plain, commits, strict=True)),
    }
    for folder in home.glob("p*"):
        shutil.rmtree(folder)
    parts = [(b, f"m{m}") for b in blocks for m in range(n_models)]
    files = [f for b, m in parts for f in sorted((array_folder(store.root, b, m) / "c").rglob("0")) if f.is_file()]
    out = np.zeros((rows, GENES), np.float32)
    buffer = memoryview(bytearray(max(f.stat().st_size for f in files)))

    def stream(verify: bool) -> None:
        for block, model in parts:
            store.read(block, model, out=out, verify=verify)

    def sequential() -> None:
        for file in files:
            with file.open("rb", buffering=0) as raw:
                done = 0
                while got := raw.readinto(buffer[done:]):
                    done += got

    total = sum(f.stat().st_size for f in files)
    for heat in ("warm", "cold"):
        times: dict[str, list[float]] = {"plain": [], "store": [], "verified": []}
        sequential()
        for _ in range(rounds):
            for name, work in (
                ("plain", sequential),
                ("store", lambda: stream(False)),
                ("verified", lambda: stream(True)),
            ):
                if heat == "cold":
                    drop(files)
                times[name].append(seconds(work))
        for name in times:
            found[f"{heat} read {name} GB/s"] = total / statistics.median(times[name]) / 1e9
        for name in ("store", "verified"):
            pairs = zip(times["plain"], times[name], strict=True)
            found[f"{heat} read {name} / plain"] = statistics.median(p / s for p, s in pairs)
    return found


def drop(files: list[Path]) -> None:
    """Ask the kernel to forget these files' pages."""
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def bench_many(home: Path) -> dict[str, float]:
    """27 blocks x 10 models = 270 committed predictions; opened as a new process would."""
    store, blocks = world(home / "many", 27, 12, 200)
    values = np.zeros((12, 200), np.float32)
    for block in blocks:
        for model in range(10):
            commit(store, block, f"model {model}", values)
    found = {}
    for name, work in (
        ("open and list 270 predictions s", lambda s: s.models()),
        ("status of 270 predictions s", lambda s: s.status_table()),
        ("read 270 records s", lambda s: s.records()),
        ("audit of 270 predictions s", lambda s: s.verify()),
    ):
        times = [seconds(lambda w=work: w(PredictionStore.open(store.root))) for _ in range(3)]
        found[name] = statistics.median(times)
    return found


FORMATS = ("npz", "h5ad", "parquet", "arrow", "csv")


def bench_add(home: Path, rows: int, formats: tuple[str, ...] = FORMATS) -> dict[str, float]:
    """Peak memory (whole process, imports included) and time of adding one file."""
    store, blocks = world(home / "add", 4, rows // 4, GENES)
    rng = np.random.default_rng(1)
    control = rng.normal(8, 2, (rows // 4, GENES)).astype(np.float32)
    ids, parts = [], []
    for block in blocks:
        commit(store, block, "control", control)
        commit(store, block, "treated", control + np.float32(0.5))
        ids += store.sample_ids(block)
        parts.append(control + np.float32(0.25))
    genes = [str(g) for g in store.gene_names]
    frame = pd.DataFrame(np.concatenate(parts), index=ids, columns=genes)
    del parts
    order = rng.permutation(len(ids))
    frame = frame.iloc[order]
    write_files(home, frame, formats)
    del frame, control
    found = {"rows of the added file": float(rows)}
    for name in formats:
        told = json.loads(
            subprocess.run(
                [sys.executable, __file__, "--child", str(store.root), str(home / f"p.{name}"), name],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},  # as the command line sets it
            ).stdout
        )
        found[f"add .{name} peak MB"] = told["peak"]
        found[f"add .{name} s"] = told["seconds"]
    return found


def write_files(home: Path, frame: pd.DataFrame, formats: tuple[str, ...]) -> None:
    import anndata

    values = frame.to_numpy()
    if "npz" in formats:
        names = {"sample_ids": np.array(frame.index, str), "gene_names": np.array(frame.columns, str)}
        np.savez(home / "p.npz", predictions=np.ascontiguousarray(values), **names)
    if "h5ad" in formats:
        anndata.AnnData(frame).write_h5ad(home / "p.h5ad")
    if "parquet" in formats:
        frame.to_parquet(home / "p.parquet")
    if "arrow" in formats:
        pa.feather.write_feather(pa.Table.from_pandas(frame), home / "p.arrow", compression="lz4")
    if "csv" in formats:
        with (home / "p.csv").open("w") as out:
            out.write("," + ",".join(frame.columns) + "\n")
            for name, row in zip(frame.index, values, strict=True):
                out.write(f"{name}," + ",".join([f"{v:.6g}" for v in row.tolist()]) + "\n")


def child(root: str, path: str, name: str) -> None:
    took = seconds(lambda: add_predictions(PredictionStore.open(root), name, path, fitted_on="p", scale="treated"))
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1000  # not ru_maxrss, which a parent leaves behind
    print(json.dumps({"peak": peak, "seconds": took}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    with tempfile.TemporaryDirectory(prefix="pertstack-bench-", dir=os.environ.get("PERTSTACK_BENCH")) as folder:
        home = Path(folder)
        found = bench_throughput(home, 4, 2000 if options.full else 1024, 5)
        shutil.rmtree(home / "store")
        found |= bench_many(home)
        found |= bench_add(home, 20_000 if options.full else 4000)
    for name, value in found.items():
        print(f"{name:42s} {value:10.3f}")


if __name__ == "__main__":
    main()
