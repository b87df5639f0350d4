"""Every promise of speed and memory in one run: found, goal, reached or not. `make bench`.

    python benchmarks/bench.py             # under four minutes on two quiet cores
    python benchmarks/bench.py --quick     # a few percent of the size: does it run? its ratios mean little

The store's own ratios (commit, read, add) are in ``store.py``, which `make bench` runs first.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import direct
import greedy
import pass_memory
import reduce
import stack
from claims import Claim, machine, table

PARTS = ("reduce", "stack", "greedy", "direct", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--folder", type=Path, default=None, help="where the store of the cold measurement is written")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these")
    options = parser.parse_args()
    before, start = machine(), time.perf_counter()
    quick, folder = options.quick, options.folder
    parts: dict[str, Callable[[], list[Claim]]] = {
        "reduce": lambda: reduce.claims(600, 600, 1, folder) if quick else reduce.claims(folder=folder),
        "stack": lambda: stack.claims(quick),
        "greedy": lambda: greedy.claims(quick),
        "direct": lambda: direct.claims(quick),
        "memory": lambda: pass_memory.claims((200, 400, 800), (200_000_000,), 1) if quick else pass_memory.claims(),
    }
    found: list[Claim] = []
    for name in options.parts:
        some = parts[name]()
        found += some
        print(*(c.line() for c in some), sep="\n", file=sys.stderr, flush=True)  # so that one sees it move
    print(f"Before: {before}.  \nAfter {time.perf_counter() - start:.0f} s: {machine()}.\n\n{table(found)}")


if __name__ == "__main__":
    main()
