"""Files that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends without an error.

    A reader sees the old file or the new one. After an error the old one is unchanged and the new
    one is removed.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file with `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def save_figure(figure: Any, path: Path, *, dpi: int = 110) -> None:
    """Write a figure of Matplotlib as a PNG file with `atomic_file`."""
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=dpi)
