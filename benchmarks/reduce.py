"""How fast is the one pass, and how much memory does it take? Ratios, measured in one run on this machine.

    make bench                                                 # or
    python benchmarks/reduce.py --rows 2000 --out docs/benchmarks-reduce.md

Warm: the pass against the rate at which a parallel numba loop sums the same bytes. Cold: against a plain sequential
read of the same files, page cache dropped before each. Memory: peak of a process of its own against the budget.
Metric: R2 Top-20, 40 and 80 of ten models against a scipy loop. Rounds are interleaved and the best of each is
taken, since other work on the machine only slows down.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pandas as pd
from scipy import stats

from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store import PredictionStore
from pertstack.predictions.store_source import StoreSource
from pertstack.reduce import References, parse_metrics, reduce_blocks
from pertstack.reduce.metrics import TruthRows

N_GENES, N_MODELS, WORKERS = 10_716, 10, 2
MODELS = tuple(f"model_{m}" for m in range(N_MODELS))
GENES = np.array([f"gene_{g}" for g in range(N_GENES)], dtype=object)


class PoolSource:
    """Any number of rows served from a few in memory, in blocks of at most 5,000 rows: a big source that costs
    nothing.
    """

    def __init__(self, n: int, n_pool: int = 256) -> None:
        rng = np.random.default_rng(0)
        base = rng.normal(7, 2, N_GENES).astype(np.float32)
        self.n_pool = min(n, n_pool)
        layers = (*MODELS, "treated", "control")
        self.pool = {x: base + rng.standard_normal((self.n_pool, N_GENES), dtype=np.float32) for x in layers}
        cuts = [*range(0, n, 20_000), n]
        self._n = {Block("A375", i): b - a for i, (a, b) in enumerate(pairwise(cuts))}
        self.gene_names, self.models = GENES, MODELS

    def blocks(self) -> list[Block]:
        return list(self._n)

    def obs(self, block: Block) -> pd.DataFrame:
        return table(block, self._n[block])

    def read(self, block, layer, start, stop, out=None):
        out = np.empty((stop - start, N_GENES), dtype=np.float32) if out is None else out
        at = 0
        while at < stop - start:
            first = (start + at) % self.n_pool
            some = min(self.n_pool - first, stop - start - at)
            out[at : at + some] = self.pool[layer][first : first + some]
            at += some
        return out

    def sound(self, block, model):
        return np.ones(self._n[block], dtype=bool)

    def genes_of(self, block, model):
        return np.ones(N_GENES, dtype=bool)

    def layer_digest(self, block, layer):
        return f"{block.id} {layer}"


def table(block: Block, n: int) -> pd.DataFrame:
    drug = [f"drug_{i % 50}" for i in range(n)]
    index = [f"{block.id}.{i}" for i in range(n)]
    return pd.DataFrame({"perturbation": drug, "cell_line": block.cell_line, "group": drug}, index=index)


@numba.njit(nogil=True, fastmath=True)
def _sum(values):
    total = np.float32(0)
    for v in values:
        total += v
    return total


def best_of(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Seconds of each task, best of several interleaved rounds."""
    seconds = [np.inf] * len(tasks)
    for _ in range(rounds):
        for i, task in enumerate(tasks):
            start = time.perf_counter()
            task()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds


def n_bytes(n: int) -> int:
    return n * (N_MODELS + 2) * N_GENES * 4


def warm(n: int, rounds: int) -> list[str]:
    """The pass over rows in memory against summing the same number of bytes, both with two threads."""
    source = PoolSource(n, n_pool=n)
    references = References.collect(source)
    flat = [values.reshape(-1) for values in source.pool.values()]

    def sums() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(_sum, flat))

    def passes() -> None:
        reduce_blocks(source, references, workers=WORKERS)

    def copies() -> None:
        out = np.empty((n, N_GENES), dtype=np.float32)
        for layer in source.pool:
            source.read(Block("A375", 0), layer, 0, n, out[:n])

    reduce_blocks(PoolSource(16), references)
    sums()
    reduced, summed, copied = best_of(rounds, passes, sums, copies)
    gb = n_bytes(n) / 1e9
    return [
        f"| warm: the pass | {gb / reduced:.2f} GB/s | {gb:.2f} GB in memory, {WORKERS} workers |",
        f"| warm: numba sum of the same bytes | {gb / summed:.2f} GB/s | {WORKERS} threads |",
        f"| warm: copying the same bytes once | {gb / copied:.2f} GB/s | one thread; part of the pass |",
        f"| **warm ratio** | **{summed / reduced:.1%}** | goal: 10 % |",
    ]


def drop_cache(root: Path) -> list[Path]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    for path in files:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def cold(n: int, rounds: int, folder: Path) -> list[str]:
    """The pass over a store on disk against reading its files, page cache dropped before each."""
    memory = PoolSource(n)
    store = PredictionStore.create(folder / "store", GENES, plan_digest="p")
    for block in memory.blocks():
        obs = memory.obs(block)
        store.add_block(block, obs)
        for layer in (*MODELS, "treated", "control"):
            fitted = FittedOn.fold_of_plan("p", block.fold) if layer in MODELS else None
            values = memory.read(block, layer, 0, len(obs))
            store.commit(block, layer, values, sample_ids=list(obs.index), gene_names=GENES, fitted_on=fitted, meta={})
    source = StoreSource(store, models=MODELS)
    references = References.collect(source)
    buffer = bytearray(2**22)

    def reads() -> None:
        for path in files:
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    files = [p for p in drop_cache(folder / "store") if p.stat().st_size > 2**20]
    seconds = {"pass": np.inf, "read": np.inf}
    for _ in range(rounds):
        for name, task in (("read", reads), ("pass", lambda: reduce_blocks(source, references, workers=WORKERS))):
            drop_cache(folder / "store")
            seconds[name] = min(seconds[name], best_of(1, task)[0])
    (cached,) = best_of(rounds, lambda: reduce_blocks(source, references, workers=WORKERS))
    gb = sum(p.stat().st_size for p in files) / 1e9
    return [
        f"| cold: the pass | {gb / seconds['pass']:.2f} GB/s | {gb:.2f} GB in {len(files)} files of a store |",
        f"| cold: plain sequential read | {gb / seconds['read']:.2f} GB/s | 4 MiB at a time, one thread |",
        f"| **cold ratio** | **{seconds['read'] / seconds['pass']:.1%}** | goal: 85 % |",
        f"| the same store from the page cache | {gb / cached:.2f} GB/s | |",
    ]


def peak_of(n: int, budget: int) -> tuple[float, float]:
    """Runs in a process of its own: seconds, and peak memory (MB) above what was there before the pass."""
    source = PoolSource(n)
    references = References.collect(PoolSource(256))
    reduce_blocks(PoolSource(16), references)
    before = _resident()
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder, watch:
        start = time.perf_counter()
        reduce_blocks(source, references, memory=budget, workers=WORKERS, cache=Path(folder))
        seconds = time.perf_counter() - start
    return seconds, (watch.peak - before) / 1e6


def _resident() -> int:
    """Anonymous memory of this process in bytes; pages of mapped result files are not counted, the system drops them
    at need.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Watch(threading.Thread):
    """Looks at the memory every 5 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._done = 0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, _resident())

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def memory(sizes: list[int], budgets: list[int]) -> list[str]:
    lines, times = [], []
    for budget in budgets:
        for n in sizes:
            command = [sys.executable, __file__, "--peak", str(n), str(budget)]
            seconds, peak = map(
                float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            )
            verdict = "within" if peak <= budget / 1e6 + 400 else "ABOVE"
            lines.append(
                f"| N = {n:,}, budget {budget / 1e6:,.0f} MB | peak {peak:,.0f} MB, {seconds:.1f} s "
                f"| {n_bytes(n) / 1e9:.1f} GB of input; {verdict} budget + 400 MB |"
            )
            times.append((budget, n, seconds))
    for budget in budgets:
        n, s = np.array([(n, s) for b, n, s in times if b == budget]).T
        slope, start = np.polyfit(n, s, 1)
        worst = np.abs(start + slope * n - s).max() / s.max()
        lines.append(
            f"| time against N, budget {budget / 1e6:,.0f} MB | {slope * 1e6:.0f} us a row + {start:.2f} s "
            f"| straight line, off by at most {worst:.1%} of the longest |"
        )
    return lines


def metric(n: int, rounds: int) -> list[str]:
    """R2 Top-20, 40, 80 of ten models against a loop with scipy.stats.pearsonr, one thread each."""
    source = PoolSource(n, n_pool=n)
    metrics = parse_metrics(["r2_top20", "r2_top40", "r2_top80"])
    treated, control = source.pool["treated"], source.pool["control"]
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        truth = TruthRows(treated, {"own": control}, metrics)
        found["ours"] = np.stack([truth.score(source.pool[m])[0] for m in MODELS])

    def loop() -> None:
        values = np.empty((N_MODELS, 3, n))
        for i in range(n):
            t = treated[i].astype(float) - control[i]
            order = np.argsort(-np.abs(t), kind="stable")
            for m, name in enumerate(MODELS):
                p = source.pool[name][i].astype(float) - control[i]
                for j, k in enumerate((20, 40, 80)):
                    values[m, j, i] = stats.pearsonr(t[order[:k]], p[order[:k]]).statistic ** 2
        found["loop"] = values

    ours()
    mine, theirs = best_of(rounds, ours, loop)
    gap = np.abs(found["ours"] - found["loop"]).max()
    return [
        f"| R2 Top-20, 40, 80 of ten models | {mine / n * 1e6:,.0f} us a sample | one thread |",
        f"| the same with a scipy loop | {theirs / n * 1e6:,.0f} us a sample | top genes sorted once per sample |",
        f"| **metric ratio** | **{theirs / mine:.0f} times** | goal: 15; largest difference {gap:.1e} (goal 1e-6) |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="rows of the warm and cold measurements")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[2000, 8000, 20_000], help="N of the memory measurement"
    )
    parser.add_argument("--budgets", type=int, nargs="+", default=[200_000_000, 1_000_000_000], help="bytes")
    parser.add_argument("--folder", type=Path, default=None, help="where the store of the cold measurement is written")
    parser.add_argument("--out", type=Path, default=None, help="also write the table here")
    parser.add_argument("--peak", type=int, nargs=2, metavar=("N", "BUDGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(*peak_of(*options.peak))
        return
    load = os.getloadavg()[0]
    lines = metric(60, options.rounds) + warm(options.rows, options.rounds)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        lines += cold(options.rows, options.rounds, Path(folder))
    lines += memory(options.sizes, options.budgets)
    head = [
        "# The one pass: speed and memory, as found",
        "",
        f"`python benchmarks/reduce.py {' '.join(sys.argv[1:])}`",
        "",
        f"{N_MODELS} models, {N_GENES:,} genes, float32; {os.cpu_count()} cores ({platform.machine()}), load average "
        f"{load:.1f} before the run; numpy {np.__version__}, numba {numba.__version__}. Ratios were taken in one run.",
        "",
        "| what | found | remarks |",
        "|---|---|---|",
    ]
    text = "\n".join([*head, *lines, ""])
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
