"""How much memory does the one pass take, and does its time grow in a straight line? At N = 2, 8 and 20 thousand rows.

    python benchmarks/pass_memory.py       # a minute; part of `make bench`

Each size runs in a separate process, over rows served from a few in memory, and its anonymous memory is looked at
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


def peak_of(n: int, budget: int) -> tuple[float, float, float]:
    """Runs in a separate process: wall and CPU seconds, and peak memory (MB) above what was there before the pass."""
    source = PoolSource(n)
    references = References.collect(PoolSource(256))
    reduce_blocks(PoolSource(16), references)
    before = _resident()
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder, watch:
        start, used = time.perf_counter(), time.process_time()
        reduce_blocks(source, references, memory=budget, workers=WORKERS, cache=Path(folder))
        seconds, used = time.perf_counter() - start, time.process_time() - used
    return seconds, used, (watch.peak - before) / 1e6


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
        wall, used, peaks = np.full(len(sizes), np.inf), np.full(len(sizes), np.inf), np.zeros(len(sizes))
        for _ in range(rounds):
            for i, n in enumerate(sizes):
                command = [sys.executable, __file__, "--peak", str(n), str(budget)]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                seconds, cpu, peak = map(float, answer)
                wall[i], used[i], peaks[i] = min(wall[i], seconds), min(used[i], cpu), max(peaks[i], peak)
        mb = f"{budget / 1e6:,.0f} MB"
        each = "; ".join(
            f"N = {n:,} ({n_bytes(n) / 1e9:.1f} GB): {p:,.0f} MB" for n, p in zip(sizes, peaks, strict=True)
        )
        over = float(peaks.max() - budget / 1e6)
        found.append(
            Claim(f"peak above the budget of {mb}", over, "{:.0f} MB", 400, least=False, remark=f"peaks: {each}")
        )
        for name, times, goal in (("wall time", wall, STRAIGHT), ("CPU time", used, None)):
            worst, line = off_the_line(sizes, times)
            what = f"{name} against N, off the line ({mb})"
            found.append(Claim(what, worst, "{:.1%}", goal, least=False, remark=line))
    return found


def off_the_line(sizes: tuple[int, ...], times: np.ndarray) -> tuple[float, str]:
    """Largest distance from the straight line, as a share of the longest time, and the line in words."""
    slope, start = np.polyfit(sizes, times, 1)
    worst = np.abs(start + slope * np.array(sizes) - times).max() / times.max()
    each = ", ".join(f"{s:.1f} s" for s in times)
    return float(worst), f"{each} at N = {sizes}, G = {N_GENES:,}: {slope * 1e6:.0f} us a row + {start:.2f} s"


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
