"""How busy the cores are that this process may run on, with all that runs on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PROC_STAT = Path("/proc/stat")


class BusyCores:
    """The busy share of some cores of the machine, from ``/proc/stat``.

    Not from the control group: that one counts its own processes alone, and a core that a stranger
    has taken is as busy for us as one of our own. What a quota takes from a container is not seen.
    """

    def __init__(self, cores: Iterable[int]) -> None:
        self._names = {f"cpu{core}".encode() for core in cores}
        self._before = self._ticks()

    def percent(self) -> float | None:
        """Return the busy share since the last call; None within a clock tick (10 ms) of it.

        Idle is what ``/proc/stat`` calls idle or iowait; time stolen by a hypervisor is busy.
        """
        idle, total = self._ticks()
        idle_before, total_before = self._before
        if total <= total_before:
            return None
        self._before = idle, total
        # The kernel's idle times may fall a little (proc(5)).
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
