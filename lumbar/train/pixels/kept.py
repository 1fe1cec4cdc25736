"""Where numba keeps what it compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumbar.cache.errors import LumbarError


@contextmanager
def kept_on_disk() -> Iterator[None]:
    """Compile within it; raise `LumbarError` where numba finds no folder to keep the code in."""
    try:
        yield
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        raise LumbarError(
            what="no folder for compiled functions",
            where=Path(__file__).parents[1],
            got="neither it nor the user's cache folder can be written to",
            expected="a folder that stays, so that only the first run compiles",
            cure="name one in the environment variable NUMBA_CACHE_DIR",
        ) from error
