"""CPU time of this process and everything below it, from ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_tree(root: int | None = None) -> float:
    """Return user and system seconds of a process and its living descendants, by default ours.

    DataLoader workers are grandchildren under a fork server, which `os.times` would not see.
    """
    parent_of, ticks_of = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            # The name, in parentheses, may hold anything; fields are counted from behind it.
            fields = stat.rpartition(")")[2].split()
            parent_of[int(folder.name)] = int(fields[1])
            ticks_of[int(folder.name)] = int(fields[11]) + int(fields[12])
    root = os.getpid() if root is None else root
    return sum(ticks for pid, ticks in ticks_of.items() if _is_below(pid, root, parent_of)) / float(
        _TICKS_PER_SECOND
    )


def _is_below(pid: int, root: int, parent_of: dict[int, int]) -> bool:
    while pid != root:
        if pid not in parent_of:
            return False
        pid = parent_of[pid]
    return True
