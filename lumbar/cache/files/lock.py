"""One writer per cache: a second run is refused, with the first one's process id.

The file stays: after a removal two runs could hold two files of the same name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumbar.cache.errors import BusyError

LOCK = ".lock"


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Lock a cache for writing; the kernel unlocks it when the process ends, however it ends.

    Raises
    ------
    BusyError
        If another process holds it.
    """
    path = cache / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BusyError(
                what="another run is writing here",
                where=cache,
                got=f"process {file.read().strip() or 'unknown'}",
                expected="one run at a time",
                cure="wait for it or stop it",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
