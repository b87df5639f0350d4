"""How much memory does the one pass take, and does its time grow in a straight line? At N = 2, 8 and 20 thousand rows.

    python benchmarks/pass_memory.py       # a minute; part of `make bench`

Each size runs in a process of its own, over rows served from a few in memory, and its anonymous memory is looked at
every 5 ms. Files that were written and mapped are not counted: the system drops their pages at need.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from claims import Claim, machine, table
from reduce import N_GENES, WORKERS, PoolSource, n_bytes

from pertstack.reduce import References, reduce_blocks

SIZES, BUDGETS = (2000, 8000, 20_000), (200_000_000, 1_000_000_000)
STRAIGHT = 0.05  # our own bar for "linear": nowhere further from the line than this share of the longest time


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


def claims(sizes: tuple[int, ...] = SIZES, budgets: tuple[int, ...] = BUDGETS, rounds: int = 1) -> list[Claim]:
    """Peak above the budget, and the time's distance from a straight line; best time of several rounds."""
    found = []
    for budget in budgets:
        seconds, peaks = np.full(len(sizes), np.inf), np.zeros(len(sizes))
        for _ in range(rounds):
            for i, n in enumerate(sizes):
                command = [sys.executable, __file__, "--peak", str(n), str(budget)]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                seconds[i], peaks[i] = min(seconds[i], float(answer[0])), max(peaks[i], float(answer[1]))
        slope, start = np.polyfit(sizes, seconds, 1)
        worst = np.abs(start + slope * np.array(sizes) - seconds).max() / seconds.max()
        mb = f"{budget / 1e6:,.0f} MB"
        each = "; ".join(
            f"N = {n:,} ({n_bytes(n) / 1e9:.1f} GB): {p:,.0f} MB" for n, p in zip(sizes, peaks, strict=True)
        )
        times = ", ".join(f"{s:.1f} s" for s in seconds)
        line = f"{times} at G = {N_GENES:,}: {slope * 1e6:.0f} us a row + {start:.2f} s"
        over = float(peaks.max() - budget / 1e6)
        found += [
            Claim(f"peak above the budget of {mb}", over, "{:.0f} MB", 400, least=False, remark=f"peaks: {each}"),
            Claim(f"time against N, off the line ({mb})", worst, "{:.1%}", STRAIGHT, least=False, remark=line),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one budget")
    parser.add_argument("--peak", type=int, nargs=2, metavar=("N", "BUDGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(*peak_of(*options.peak))
        return
    before = machine()
    found = claims((200, 400, 800), (200_000_000,), 1) if options.quick else claims()
    print(f"{before}\n\n{table(found)}")


if __name__ == "__main__":
    main()
