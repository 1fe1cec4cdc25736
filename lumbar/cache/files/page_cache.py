"""Drop files from the page cache, so that a measurement reads them from storage."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def forget_files(paths: Iterable[Path]) -> None:
    """Ask the system to drop files from its page cache.

    Unwritten pages cannot be dropped, so each file is first written to storage. Pages that a
    process has mapped stay. A file that cannot be opened is skipped: reading it raises the error.
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
