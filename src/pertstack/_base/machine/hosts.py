"""Which machine this is, how many processors it lends, and whether a process of it still runs: how files left by
killed processes are recognised."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from pathlib import Path


def host_name() -> str:
    """This host as staging folders name it: the boot and the process namespace count, so containers are told apart."""
    facts = [socket.gethostname(), platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id",):
        if Path(source).exists():
            facts.append(Path(source).read_text(encoding="ascii").strip())
    if os.path.exists("/proc/self/ns/pid"):  # noqa: PTH110 (a magic link)
        facts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115
    short = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
    return f"{socket.gethostname().split('.')[0][:40].replace('-', '_') or 'host'}_{short}"


def processors(most: int = 4) -> int:
    """Processors that this process may use, at most so many."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(most, there)


def alive(pid: int) -> bool:
    """Whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
