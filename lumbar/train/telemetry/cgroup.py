"""Limits of cores and memory from Linux control groups, versions 1 and 2.

They are the only place for a container's limits: the system reports the machine's processors and
memory. The limit of a group is the least of its own and of all groups above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
GROUPS = Path("/proc/self/cgroup")

UNLIMITED_BYTES = 2**62
"""Greater limits of version 1 mean none: the default is the greatest multiple of a page."""


def quota_cores() -> float | None:
    """Return the limit of this process's group in cores; None without one.

    From ``cpu.max`` (version 2), or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (version 1).
    """
    quotas = [cores for folder in _folders("cpu") if (cores := _quota(folder)) is not None]
    return min(quotas, default=None)


def memory_limit_bytes() -> int | None:
    """Return the memory limit of this process's group; None without one.

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
    # Without a limit the quota is "max", which is not a number, or -1.
    if len(numbers) != 2 or min(numbers) <= 0:
        return None
    quota_us, period_us = numbers
    return quota_us / period_us


def _numbers(file: Path) -> list[int]:
    """Return the integers of a file; none if there is no such file."""
    try:
        words = file.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words if word.lstrip("-").isdecimal()]


def _folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of the groups above it, for a controller.

    In a container the group's path may not exist; the mounted folder is then the group itself.
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
