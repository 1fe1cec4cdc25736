"""Progress as plain lines, for a log file: what is done, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from lumbar.display.terminal import say, size_text

EVERY_S = 10.0


class ProgressLines:
    """Says a line at the start and then one in some seconds, however often it is told.

    The rates are those of the files that were read; what was known already took no time.
    """

    def __init__(
        self, total: int, *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._every_s = every_s
        self._clock = clock
        self._started_s = self._said_s = clock()
        self._done = self._read = self._nbytes = 0

    def add(self, n_files: int, nbytes: int, *, was_read: bool) -> None:
        """Count files; say a line where it is time, and at the end."""
        self._done += n_files
        if was_read:
            self._read += n_files
            self._nbytes += nbytes
        if self._clock() - self._said_s >= self._every_s or self._done >= self._total:
            self._said_s = self._clock()
            say(self.line())

    def line(self) -> str:
        """Return what is to be said now."""
        seconds = max(self._clock() - self._started_s, 1e-9)
        left_s = (self._total - self._done) / self._read * seconds if self._read else 0.0
        share = 100 * self._done / max(self._total, 1)
        return (
            f"preprocess: {self._done:,} of {self._total:,} files ({share:.0f} %), "
            f"{self._read / seconds:,.0f} files/s, {size_text(int(self._nbytes / seconds))}/s, "
            f"{duration_text(left_s)} left"
        )


def duration_text(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    minutes, whole_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_s:02}"
