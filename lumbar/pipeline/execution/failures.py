"""What stops a whole run: the disk of the cache is full, or the source is gone."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumbar.cache.errors import LumbarError, from_system
from lumbar.pipeline.source.scan import is_gone

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

GO_ON = "run the same command again: what is done stays done"
BEGIN_AGAIN = "run the same command again: it begins anew"


@contextmanager
def plain_errors(out: Path, source: Path | None = None, *, is_kept: bool = True) -> Iterator[None]:
    """Turn an `OSError` into an error that names the folder with the problem and the cure.

    A cache that is not ``is_kept`` lies in a temporary folder: the next run begins again.

    Raises
    ------
    LumbarError
        In place of an `OSError`.
    """
    go_on = GO_ON if is_kept else BEGIN_AGAIN
    more_room = "make room" if is_kept else "set TMPDIR to a folder with room"
    try:
        yield
    except LumbarError:
        raise  # some are an OSError as well, and already have a cure
    except OSError as error:
        if source is not None and is_gone(source):
            raise LumbarError(
                what="the source is gone",
                where=source,
                got=error,
                expected="the files that were found there",
                cure=f"bring it back and {go_on}",
            ) from error
        if error.errno in FULL:
            raise LumbarError(
                what="no room for the cache",
                where=out,
                got=error,
                cure=f"{more_room} and {go_on}",
            ) from error
        if error.filename is not None:
            raise from_system(error) from error
        raise LumbarError(
            what="the cache cannot be written",
            where=out,
            got=error,
            cure=f"put it right and {go_on}",
        ) from error
