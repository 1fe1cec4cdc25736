"""What the control groups of Linux let this process have: cores and memory, versions 1 and 2.

A container's limits stand there and nowhere else: the number of processors and the memory that the
system tells are the machine's. A group has what it and all groups above it allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
GROUPS = Path("/proc/self/cgroup")

UNLIMITED_BYTES = 2**62
"""From here on a limit of version 1 is none: its default is the greatest whole page."""


def quota_cores() -> float | None:
    """Return how many cores' time this process may spend together with its group; None: no limit.

    From ``cpu.max`` (version 2), or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (version 1).
    """
    quotas = [cores for folder in _folders("cpu") if (cores := _quota(folder)) is not None]
    return min(quotas, default=None)


def memory_limit_bytes() -> int | None:
    """Return how much memory this process may take together with its group; None: no limit.

    From ``memory.max`` (version 2) or ``memory.limit_in_bytes`` (version 1).
    """
    limits = []
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [value for value in _numbers(folder / name) if value < UNLIMITED_BYTES]
    return min(limits, default=None)


def _quota(folder: Path) -> float | None:
    numbers = _numbers(folder / "cpu.max")
    if not numbers:
        numbers = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
    # Without a limit the quota is "max", which is no number, or -1.
    if len(numbers) != 2 or min(numbers) <= 0:
        return None
    quota_us, period_us = numbers
    return quota_us / period_us


def _numbers(file: Path) -> list[int]:
    """Return the whole numbers of a file; none where there is no such file."""
    try:
        words = file.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words if word.lstrip("-").isdecimal()]


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it, for a controller.

    In a container the group's path may be one that cannot be seen from within; what is mounted is
    then the group itself.
    """
    for mounted_group, mount_point in _mounts(controller):
        for path in _paths(controller):
            inside = path.removeprefix(mounted_group.rstrip("/")).strip("/")
            folder = mount_point / inside
            while folder != mount_point:
                yield folder
                folder = folder.parent
        yield mount_point


def _mounts(controller: str) -> Iterator[tuple[str, Path]]:
    """Yield (group, folder) of each mounted tree that may hold a controller (proc(5))."""
    for line in _lines(MOUNTS):
        place, _, kind = line.partition(" - ")
        fields, (filesystem, _, *options) = place.split(), kind.split() or ["", ""]
        names = options[0].split(",") if options else []
        if filesystem == "cgroup2" or (filesystem == "cgroup" and controller in names):
            yield fields[3], Path(fields[4])


def _paths(controller: str) -> Iterator[str]:
    """Yield the paths of this process's groups, of version 2 and of a controller (cgroups(7))."""
    for line in _lines(GROUPS):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controller in controllers.split(","):
            yield path


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
