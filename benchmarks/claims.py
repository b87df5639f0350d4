"""What a benchmark claims: a number as found, its goal, and whether it was reached. Shared by the speed benchmarks.

``bench.py`` puts the claims of all of them into one table; each script prints its own.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np


@dataclass(frozen=True)
class Claim:
    """One line of the table. ``goal`` None: told for the record, nothing was promised."""

    what: str
    found: float
    unit: str  # a format with one place, such as "{:.1%}" or "{:.0f} times"
    goal: float | None = None
    least: bool = True  # the goal is a least value; else a largest one
    remark: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.found >= self.goal if self.least else self.found <= self.goal

    def line(self) -> str:
        found = self.unit.format(self.found)
        if self.goal is None:
            return f"| {self.what} | {found} | | | {self.remark} |"
        sign, verdict = ("≥" if self.least else "≤"), ("reached" if self.reached else "NOT REACHED")
        return f"| **{self.what}** | **{found}** | {sign} {self.unit.format(self.goal)} | {verdict} | {self.remark} |"


def table(claims: Sequence[Claim]) -> str:
    """All lines, and how many goals were reached."""
    head = ["| what | found | goal | | remarks |", "|---|---|---|---|---|"]
    goals = [c for c in claims if c.goal is not None]
    missed = [c.what for c in goals if not c.reached]
    end = f"{len(goals) - len(missed)} of {len(goals)} goals reached" + (
        f"; not: {'; '.join(missed)}." if missed else "."
    )
    return "\n".join([*head, *(c.line() for c in claims), "", end, ""])


def machine() -> str:
    """Where and under what load the numbers were found; call before and after."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), load average {load} (1, 5, 15 min); "
        f"numpy {np.__version__}, numba {numba.__version__}"
    )


def cpu(task: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, all threads and the system's share, and the answer."""
    start = time.process_time()
    answer = task()
    return time.process_time() - start, answer


def best_cpu(rounds: int, task: Callable[[], Any]) -> tuple[float, Any]:
    """As ``cpu``, the least of several rounds: other work on the machine only adds."""
    found = [cpu(task) for _ in range(rounds)]
    return min(seconds for seconds, _ in found), found[-1][1]


def best_of(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Wall seconds of each task, best of several interleaved rounds."""
    seconds = [np.inf] * len(tasks)
    for _ in range(rounds):
        for i, task in enumerate(tasks):
            start = time.perf_counter()
            task()
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds
