"""Progress as plain lines, for a log file: files done, rate, and time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from lumbar.display.terminal import say, size_text

EVERY_S = 10.0

LEAST_S = 1e-3
"""Shorter times give no rate."""


class ProgressLines:
    """Prints a line every few seconds and one at the end, however often files are added.

    Rates count only the files that were read. Without a ``total`` the lines only count files.
    ``started_s`` is when the work began, if before now.
    """

    def __init__(
        self,
        total: int | None,
        *,
        name: str = "preprocess",
        every_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        started_s: float | None = None,
    ) -> None:
        self._total = total
        self._name = name
        self._every_s = EVERY_S if every_s is None else every_s
        self._clock = clock
        self._said_s = clock()
        self._started_s = self._said_s if started_s is None else started_s
        self._done = self._read = self._nbytes = 0

    def add(self, n_files: int, nbytes: int, *, was_read: bool) -> None:
        """Count files; print a line when it is due, and at the end."""
        self._done += n_files
        if was_read:
            self._read += n_files
            self._nbytes += nbytes
        if self._clock() - self._said_s >= self._every_s or self._done == self._total:
            self._said_s = self._clock()
            say(self.line())

    def line(self) -> str:
        """Return the line to print now."""
        seconds = self._clock() - self._started_s
        is_measured = self._read > 0 and seconds >= LEAST_S
        rate = f", {self._read / seconds:,.0f} files/s" if is_measured else ""
        if self._total is None:
            return f"{self._name}: {self._done:,} files found{rate}"
        if self._nbytes and is_measured:
            rate += f", {size_text(int(self._nbytes / seconds))}/s"
        share = 100 * self._done / max(self._total, 1)
        line = f"{self._name}: {self._done:,} of {self._total:,} files ({share:.0f} %){rate}"
        if not is_measured and self._done < self._total:
            return line
        left_s = (self._total - self._done) / self._read * seconds if self._read else 0.0
        return f"{line}, {duration_text(left_s)} left"


def duration_text(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    minutes, whole_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_s:02}"
