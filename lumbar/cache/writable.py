"""Whether results can be written where they are wanted: asked before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from lumbar.cache.errors import InputError


def require_file_place(out: Path) -> None:
    """Make the folder of a file if need be; raise `InputError` where the file cannot be written.

    A file is written aside and removed: neither rights nor a read-only disk can be told otherwise.
    """
    if out.is_dir():
        raise _not_writable(out, "a folder", "a file, which need not exist")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".{out.name}.{os.getpid()}")
        aside.write_bytes(b"\n")
        aside.unlink()
    except OSError as error:
        raise _not_writable(out, error.strerror, "a place that can be written") from error


def require_folder_place(out: Path) -> None:
    """Make a folder if need be, and raise `InputError` where no file can be written into it."""
    if out.exists() and not out.is_dir():
        raise _not_writable(out, "a file", "a folder, which need not exist")
    require_file_place(out / "writable")


def _not_writable(out: Path, got: object, expected: str) -> InputError:
    return InputError(
        what="the results cannot be written",
        where=out,
        got=got,
        expected=expected,
        cure="name another place: nothing has been computed yet",
    )
