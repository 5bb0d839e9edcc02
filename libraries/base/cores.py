"""How many cores there are to work with."""

import os
from pathlib import Path


def usable_cores(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores this process may use; fewer than the machine's under `taskset`, or in a container with a `limit`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        microseconds, period = map(int, limit.read_text(encoding="ascii").split())  # "max 100000" where there is none
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, round(microseconds / period)))
