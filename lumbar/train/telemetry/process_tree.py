"""What this process and everything below it use: CPU time, memory, bytes from storage.

All of it from ``/proc``. DataLoader workers are grandchildren under a fork server, which
`os.times` and `resource.getrusage` would not see while they live.

CPU time and bytes only grow, so differences are right also where processes end meanwhile: what a
process used goes to its parent when that waits for it, and a parent's own figures hold what its
waited-for children used. Lost is what nobody waits for: a process whose parent ended before it
belongs to the tree no longer, and a process that ends while the tree is walked is counted at the
next walk. Memory is that of living processes and may fall.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class TreeUse:
    """What a process and its descendants use.

    Attributes
    ----------
    cpu_seconds
        User and system time, in steps of a clock tick (10 ms) for each process.
    memory_bytes
        Proportional set size (PSS): a page that several processes share counts once. Of a process
        whose PSS may not be read, its resident set size (RSS), which counts shared pages again.
        Both hold the pages of mapped files, which the system takes back when it needs them.
    storage_bytes
        Bytes fetched from block storage; what came from the page cache is not among them. None
        where a process of the tree does not let it be read.
    """

    cpu_seconds: float
    memory_bytes: int
    storage_bytes: int | None


def use_of_tree(root: int | None = None) -> TreeUse:
    """Return what a process and its descendants use, by default ours.

    Reading PSS walks every page table, so it is not for the edge of a window.
    """
    ticks_of = _ticks_of_tree(root)
    return TreeUse(
        cpu_seconds=_seconds(ticks_of),
        memory_bytes=sum(_memory_bytes(_PROC / str(pid)) for pid in ticks_of),
        storage_bytes=_storage_bytes(ticks_of),
    )


def cpu_seconds_of_tree(root: int | None = None) -> float:
    """Return user and system seconds of a process and its descendants, by default ours."""
    return _seconds(_ticks_of_tree(root))


def bytes_read_of_tree(root: int | None = None) -> int | None:
    """Return the bytes that a process and its descendants fetched from storage, by default ours.

    None where a process of the tree does not let it be read.
    """
    return _storage_bytes(_ticks_of_tree(root))


def _ticks_of_tree(root: int | None) -> dict[int, int]:
    """Return the clock ticks of each living process of a tree and of the children it waited for."""
    parent_of, ticks_of = {}, {}
    for pid in _processes():
        try:
            stat = (_PROC / str(pid) / "stat").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        # The name, in parentheses, may hold anything; fields are counted from behind it.
        fields = stat.rpartition(b")")[2].split()
        parent_of[pid] = int(fields[1])
        ticks_of[pid] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    root = os.getpid() if root is None else root
    return {pid: ticks for pid, ticks in ticks_of.items() if _is_below(pid, root, parent_of)}


def _processes() -> Iterator[int]:
    return (int(folder.name) for folder in _PROC.iterdir() if folder.name.isdigit())


def _is_below(pid: int, root: int, parent_of: dict[int, int]) -> bool:
    while pid != root:
        if pid not in parent_of:
            return False
        pid = parent_of[pid]
    return True


def _seconds(ticks_of: dict[int, int]) -> float:
    return sum(ticks_of.values()) / float(_TICKS_PER_SECOND)


def _memory_bytes(process: Path) -> int:
    """Return the PSS of a process, its RSS where that may not be read, 0 where it ended."""
    try:
        for line in (process / "smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return _PAGE_BYTES * int((process / "statm").read_bytes().split()[1])
    except OSError:
        return 0


def _storage_bytes(pids: dict[int, int]) -> int | None:
    """Return ``read_bytes`` of all processes; None where one of them is alive and says nothing."""
    total = 0
    for pid in pids:
        try:
            text = (_PROC / str(pid) / "io").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            if not (_PROC / "self/io").exists():
                return None  # the kernel keeps no such account
            continue
        except OSError:
            return None
        total += int(text.partition(b"\nread_bytes:")[2].split(None, 1)[0])
    return total
