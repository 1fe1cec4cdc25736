"""Errors that name what, where, got, expected and the cure."""

from __future__ import annotations

import errno


class LumbarError(Exception):
    """The base of every error that lumbar raises on purpose.

    Parameters
    ----------
    what
        What went wrong, in a few words.
    where
        The file, row or option in which it went wrong.
    got, expected
        The value that was found, and the right one.
    cure
        What the caller can do about it.
    """

    def __init__(
        self,
        *,
        what: str,
        where: object = None,
        got: object = None,
        expected: object = None,
        cure: str | None = None,
    ) -> None:
        parts = [what if where is None else f"{what}: {where}"]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        if cure is not None:
            parts.append(cure)
        super().__init__(" ".join("; ".join(parts).split()))


class InputError(LumbarError, ValueError):
    """A file, an option or a configuration that the caller can put right."""


class MissingError(LumbarError, FileNotFoundError):
    """A file or folder that the caller named and that is not there."""

    def __str__(self) -> str:
        return str(self.args[0])


class FormatError(LumbarError, ValueError):
    """A cache, checkpoint or table in a format that this version does not read."""


class BusyError(LumbarError, RuntimeError):
    """Another run holds the cache."""


def from_system(error: OSError) -> LumbarError:
    """Return an error of the system as one of lumbar's; an `InputError` if it names a file."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return LumbarError(
            what="too many open files",
            where=error.filename or "this process",
            got=error.strerror,
            expected="a limit of open files above that of the volumes and the workers",
            cure="raise it with `ulimit -n 65536`, or convert the cache to the archive profile, "
            "which keeps no file open",
        )
    if error.filename is None:
        return LumbarError(
            what="the system refuses",
            where="reading or writing",
            got=error.strerror or type(error).__name__,
            expected="a device that works and has room",
            cure="`lumbar -vv` shows the traceback",
        )
    return InputError(
        what="the system refuses a file or folder",
        where=error.filename,
        got=error.strerror,
        expected="a place that can be read and written",
        cure="name another place or put this one right; `lumbar -vv` shows the traceback",
    )


def expected_value(message: str) -> str:
    """Return the part of pydantic's message that can follow the word "expected"."""
    for opening in ("Input should be ", "Value error, "):
        message = message.removeprefix(opening)
    return message.partition(", unable to")[0]
