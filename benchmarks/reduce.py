"""How fast is the one pass? Ratios, measured in one run on this machine; the memory it takes is in ``pass_memory.py``.

    python benchmarks/reduce.py            # under a minute; part of `make bench`
    python benchmarks/reduce.py --quick

Warm: the pass against the rate at which a parallel numba loop sums the same bytes. Cold: against a plain sequential
read of the same files, page cache dropped before each. Metric: R2 Top-20, 40 and 80 of ten models against a scipy
loop. Rounds are interleaved and the best of each is taken, since other work on the machine only slows down.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pandas as pd
from claims import Claim, best_cpu, best_of, machine, table
from scipy import stats

from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.store import PredictionStore
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
        return sample_table(block, self._n[block])

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


def sample_table(block: Block, n: int) -> pd.DataFrame:
    drug = [f"drug_{i % 50}" for i in range(n)]
    index = [f"{block.id}.{i}" for i in range(n)]
    return pd.DataFrame({"perturbation": drug, "cell_line": block.cell_line, "group": drug}, index=index)


@numba.njit(nogil=True, fastmath=True)
def _sum(values):
    total = np.float32(0)
    for i in range(values.shape[0]):  # `for v in values` does not run in vector lanes: six times slower
        total += values[i]
    return total


def n_bytes(n: int) -> int:
    return n * (N_MODELS + 2) * N_GENES * 4


def warm(n: int, rounds: int) -> list[Claim]:
    """The pass over rows in memory against summing the same number of bytes, both with two threads."""
    source = PoolSource(n, n_pool=n)
    references = References.collect(source)
    flat = [values.reshape(-1) for values in source.pool.values()]
    out = np.empty((n, N_GENES), dtype=np.float32)

    def sums() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(_sum, flat))

    def passes() -> None:
        reduce_blocks(source, references, workers=WORKERS)

    def copies() -> None:
        for layer in source.pool:
            source.read(Block("A375", 0), layer, start=0, stop=n, out=out)

    reduce_blocks(PoolSource(16), references)
    sums()
    reduced, summed, copied = best_of(rounds, passes, sums, copies)
    gb = n_bytes(n) / 1e9
    rates = (
        f"pass {gb / reduced:.2f} GB/s, sum {gb / summed:.2f} GB/s, {WORKERS} threads each; copying once, part of the "
        f"pass, {gb / copied:.2f} GB/s with one; {gb:.2f} GB"
    )
    return [Claim("warm: rate of the pass / numba sum of the same bytes", summed / reduced, "{:.1%}", remark=rates)]


def drop_cache(root: Path) -> list[Path]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    for path in files:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def stored(n: int, folder: Path) -> StoreSource:
    """A store of n rows on disk."""
    memory = PoolSource(n)
    store = PredictionStore.create(folder, GENES, plan_digest="p")
    for block in memory.blocks():
        obs = memory.obs(block)
        store.add_block(block, obs)
        for layer in (*MODELS, "treated", "control"):
            fitted = FittedOn.fold_of_plan("p", block.fold) if layer in MODELS else None
            values = memory.read(block, layer, start=0, stop=len(obs))
            store.commit(block, layer, values, sample_ids=list(obs.index), gene_names=GENES, fitted_on=fitted, meta={})
    return StoreSource(store, models=MODELS)


def cold(n: int, rounds: int, folder: Path) -> list[Claim]:
    """The pass over a store on disk against reading its files, page cache dropped before each."""
    source = stored(n, folder / "store")
    references = References.collect(source)
    buffer = bytearray(2**22)

    def reads() -> None:
        for path in files:
            with path.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    def passes() -> None:
        reduce_blocks(source, references, workers=WORKERS)

    files = [p for p in drop_cache(folder / "store") if p.stat().st_size > 2**20]
    passes()  # compiled
    seconds = {"pass": np.inf, "read": np.inf}
    for _ in range(rounds):
        for name, task in (("read", reads), ("pass", passes)):
            drop_cache(folder / "store")
            seconds[name] = min(seconds[name], best_of(1, task)[0])
    passes()
    (cached,) = best_of(min(rounds, 3), passes)
    used, _ = best_cpu(min(rounds, 2), passes)
    gb, ratio = sum(p.stat().st_size for p in files) / 1e9, seconds["read"] / seconds["pass"]
    rates = (
        f"pass {gb / seconds['pass']:.2f} GB/s, read {gb / seconds['read']:.2f} GB/s (4 MiB at a time, one thread); "
        f"{gb:.2f} GB in {len(files)} files"
    )
    return [
        Claim("cold: rate of the pass / plain sequential read", ratio, "{:.1%}", 0.85, remark=rates),
        Claim("the same store from the page cache", gb / cached, "{:.2f} GB/s", remark=f"{used / gb:.2f} s CPU per GB"),
    ]


def metric(n: int, rounds: int) -> list[Claim]:
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
    rates = f"{mine / n * 1e6:,.0f} us a sample, loop {theirs / n * 1e6:,.0f} us (top genes sorted once per sample)"
    return [
        Claim("R2 Top-20/40/80 of ten models / scipy loop", theirs / mine, "{:.0f} times", 15, remark=rates),
        Claim("largest difference between the two", gap, "{:.0e}", 1e-6, least=False),
    ]


def claims(rows: int = 2000, cold_rows: int = 4000, rounds: int = 7, folder: Path | None = None) -> list[Claim]:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        found = cold(cold_rows, rounds, Path(made))
    return [*found, *warm(rows, rounds), *metric(60, rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, one round")
    parser.add_argument("--folder", type=Path, default=None, help="where the store of the cold measurement is written")
    options = parser.parse_args()
    before = machine()
    found = claims(600, 600, 1, options.folder) if options.quick else claims(folder=options.folder)
    print(f"{before}\n\n{table(found)}")


if __name__ == "__main__":
    main()
