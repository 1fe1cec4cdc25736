"""Facts about the machine: versions, cores, memory, files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lumbar import __version__
from lumbar.doctor.result import CheckResult, Fact, told
from lumbar.train.telemetry.cgroup import memory_limit_bytes, quota_cores
from lumbar.train.telemetry.cpu import usable_cores

PACKAGES = {
    "torch": "torch",
    "timm": "timm",
    "DALI": "nvidia-dali-cuda120",
    "numba": "numba",
    "pydicom": "pydicom",
    "zarr": "zarr",
    "numpy": "numpy",
    "polars": "polars",
}
"""Packages whose versions are listed, and their distributions."""

CPU_INFO = Path("/proc/cpuinfo")
SHARED_MEMORY = Path("/dev/shm")


def tell_versions() -> CheckResult:
    """Return the versions of lumbar and its most important packages."""
    facts = [
        Fact("lumbar", __version__),
        Fact("Python", platform.python_version()),
        *(Fact(name, _version(package)) for name, package in PACKAGES.items()),
        Fact("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
    ]
    return told(tuple(facts))


def tell_cores_and_memory() -> CheckResult:
    """Return what the machine has, and what of it this process may use."""
    quota, limit = quota_cores(), memory_limit_bytes()
    own = len(os.sched_getaffinity(0))
    facts = [
        Fact("processor", _processor()),
        Fact("cores of the machine", str(os.cpu_count())),
        Fact("cores of this process", f"{own} (affinity)"),
        Fact("quota of the group", "none" if quota is None else f"{quota:g} cores"),
        Fact("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "not set")),
        Fact("cores that count", f"{usable_cores()} (default of --workers)"),
        Fact("memory", f"{memory_bytes() / 1e9:.1f} GB"),
        Fact("limit of the group", "none" if limit is None else f"{limit / 1e9:.1f} GB"),
    ]
    return told(tuple(facts))


def tell_files() -> CheckResult:
    """Return how many files may be open, and the free space for temporary files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    any_number = resource.RLIM_INFINITY
    told_limits = ["any number" if limit == any_number else str(limit) for limit in (soft, hard)]
    facts = [Fact("open files", "{}, at most {}".format(*told_limits))]
    if SHARED_MEMORY.is_dir():
        facts.append(Fact("/dev/shm", _room(SHARED_MEMORY)))
    folder = Path(tempfile.gettempdir())
    facts += [Fact("temporary folder", str(folder)), Fact("its room", _room(folder))]
    return told(tuple(facts))


def memory_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _room(folder: Path) -> str:
    usage = shutil.disk_usage(folder)
    return f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
