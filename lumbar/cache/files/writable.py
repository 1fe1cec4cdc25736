"""Check before the work starts that its results can be written."""

from __future__ import annotations

import os
from pathlib import Path

from lumbar.cache.errors import InputError


def require_file_place(out: Path) -> None:
    """Raise `InputError` where a file, or a missing folder above it, cannot be written.

    Writes a file into the nearest existing folder and removes it: nothing else shows missing rights
    and read-only disks.
    """
    if out.is_dir():
        raise _not_writable(out, "a folder", "a file, which need not exist")
    there = next((folder for folder in out.parents if folder.exists()), Path())
    aside = there / f".{out.name}.{os.getpid()}"
    try:
        aside.write_bytes(b"\n")
        aside.unlink()
    except OSError as error:
        raise _not_writable(out, error.strerror, "a place that can be written") from error


def require_folder_place(out: Path) -> None:
    """Raise `InputError` where a folder cannot be made, or no file can be written into it."""
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
