"""What this process and everything below it use: CPU time, memory, bytes from storage.

DataLoader workers are grandchildren under a fork server, which `os.times` and `resource.getrusage`
would not see while they live.

CPU time and bytes only grow, so differences are right also where processes end meanwhile: what a
process used goes to its parent when that waits for it, and a parent's own figures hold what its
waited-for children used. Not counted are children that nobody waits for: a process whose parent
ended before it belongs to the tree no longer, and a process that ends while the tree is walked is
counted at the next walk. Memory is that of living processes and may fall.
"""

from __future__ import annotations

import psutil


def cpu_seconds_of_tree(root: int | None = None) -> float:
    """Return user and system seconds of a process and its descendants, by default ours.

    In steps of a clock tick (10 ms) for each process.
    """
    seconds = 0.0
    for process in _tree(root):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def memory_of_tree(root: int | None = None) -> int:
    """Return the bytes of memory of a process and its descendants, by default ours.

    Proportional set size (PSS): a page that several processes share counts once. Of a process whose
    PSS may not be read, its resident set size (RSS), which counts shared pages again. Both hold the
    pages of mapped files, which the system takes back when it needs them. Reading PSS walks every
    page table, so it is not for the edge of a window.
    """
    return sum(map(_memory_bytes, _tree(root)))


def bytes_read_of_tree(root: int | None = None) -> int | None:
    """Return the bytes that a process and its descendants fetched from storage, by default ours.

    What came from the page cache is not among them. None where the kernel keeps no such account, or
    a process of the tree does not let it be read.
    """
    total = 0
    for process in _tree(root):
        try:
            total += process.io_counters().read_bytes
        except psutil.NoSuchProcess:
            continue
        except (psutil.AccessDenied, AttributeError, RuntimeError, ValueError):
            return None
    return total


def _tree(root: int | None) -> list[psutil.Process]:
    """Return a process and its descendants; none where it has ended."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory_bytes(process: psutil.Process) -> int:
    """Return the PSS of a process, its RSS where that may not be read, 0 where it ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
    except (psutil.AccessDenied, AttributeError):
        pass
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
