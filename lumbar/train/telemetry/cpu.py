"""The cores of this process: their number, and how busy they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lumbar.train.telemetry.cgroup import quota_cores

PROC_STAT = Path("/proc/stat")


def usable_cores() -> int:
    """Return the number of cores for this process, at least 1.

    Its affinity, limited by the quota of its control group, divided by the processes that
    ``torchrun`` started on this machine (``LOCAL_WORLD_SIZE``). Rounded down: a thread without
    quota left holds up all threads that wait for it.
    """
    cores = len(os.sched_getaffinity(0))
    quota = quota_cores()
    if quota is not None:
        cores = min(cores, int(quota))
    return max(cores // local_world_size(), 1)


def local_world_size() -> int:
    """Return how many processes ``torchrun`` started on this machine; 1 without it."""
    named = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(named), 1) if named.isdecimal() else 1


class BusyCores:
    """The busy share of some cores of the machine, from ``/proc/stat``.

    Not from the control group, which counts only its own processes: a core is busy whoever uses it.
    Time that a quota takes from a container is not included.
    """

    def __init__(self, cores: Iterable[int]) -> None:
        self._names = {f"cpu{core}".encode() for core in cores}
        self._before = self._ticks()

    def percent(self) -> float | None:
        """Return the busy share since the last call; None within a clock tick (10 ms) of it.

        ``idle`` and ``iowait`` are idle; time stolen by a hypervisor is busy.
        """
        idle, total = self._ticks()
        idle_before, total_before = self._before
        if total <= total_before:
            return None
        self._before = idle, total
        # The kernel's idle times may decrease a little (proc(5)).
        share = (idle - idle_before) / (total - total_before)
        return 100 * (1 - min(max(share, 0.0), 1.0))

    def _ticks(self) -> tuple[int, int]:
        """Return the idle ticks and all ticks of the cores together."""
        idle = total = 0
        for line in PROC_STAT.read_bytes().splitlines():
            name, *values = line.split()
            if name in self._names:
                ticks = [int(value) for value in values[:8]]  # guests are part of user and nice
                idle += ticks[3] + ticks[4]
                total += sum(ticks)
            elif not name.startswith(b"cpu"):  # the processors come first
                break
        return idle, total
