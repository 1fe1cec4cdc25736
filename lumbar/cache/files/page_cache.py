"""Files that are to come from storage the next time, not from memory: for measuring."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def forget_files(paths: Iterable[Path]) -> None:
    """Ask the system to drop files from its page cache.

    It drops no page that it has yet to write, so what was written just now goes to storage first.
    Pages that a process has mapped stay. A file that cannot be opened is left: who reads it says
    what is wrong with it.
    """
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
