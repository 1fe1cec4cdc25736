"""Check the limits of a process: open files, space for temporary files, shared memory."""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path

from lumbar.cache.store import SPARE_FILES
from lumbar.doctor.result import CheckResult, failed, not_measured, passed

LEAST_OPEN_FILES = 2 * SPARE_FILES
"""Each memory-mapped series holds one; `SPARE_FILES` are for everything else."""

LEAST_FREE_BYTES = 10**9
"""More than the temporary files of `lumbar predict` and `lumbar bench`."""

LEAST_SHARED_BYTES = 60 * 2**20
"""Containers have 64 MiB by default. NCCL needs a part of that per GPU. DataLoaders in
`lumbar bench` need more and check it themselves; the reader needs none."""

SHARED_MEMORY = Path("/dev/shm")

WRITTEN = b"lumbar" * 2**18
"""A test of writing: 1.5 MiB."""


def check_open_files() -> CheckResult:
    """Compare the hard limit of open files with `LEAST_OPEN_FILES`; the soft one is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"at most {_number(hard)} ({_number(soft)} unless raised)"
    if hard == resource.RLIM_INFINITY or hard >= LEAST_OPEN_FILES:
        return passed(found)
    return failed(
        f"{found}; expected {LEAST_OPEN_FILES} or more",
        "raise the hard limit: nofile in /etc/security/limits.conf, LimitNOFILE= of a service, or "
        "--ulimit nofile=65536 of a container",
    )


def check_temporary_folder() -> CheckResult:
    """Write to the temporary folder, read it back, and check its free space."""
    cure = "free some room, or name another folder in the environment variable TMPDIR"
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free
        with tempfile.NamedTemporaryFile(dir=folder, prefix="lumbar-doctor-") as file:
            file.write(WRITTEN)
            file.flush()
            if Path(file.name).read_bytes() != WRITTEN:
                return failed(f"{folder}: other bytes are read than were written", cure)
    except OSError as error:
        return failed(f"cannot write: {error.strerror or error}", cure)
    found = f"{free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        return failed(f"{found}; expected {LEAST_FREE_BYTES / 1e9:.0f} GB or more", cure)
    return passed(found)


def check_shared_memory() -> CheckResult:
    """Compare the size of ``/dev/shm`` with `LEAST_SHARED_BYTES`."""
    if not SHARED_MEMORY.is_dir():
        return not_measured(f"no {SHARED_MEMORY}")
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{free / 1e6:.0f} MB free"
    if free >= LEAST_SHARED_BYTES:
        return passed(found)
    return failed(
        f"{found}; expected {LEAST_SHARED_BYTES / 1e6:.0f} MB or more",
        "stop what fills it, or start the container with --shm-size=1g or --ipc=host",
    )


def _number(limit: int) -> str:
    return "any number" if limit == resource.RLIM_INFINITY else str(limit)
