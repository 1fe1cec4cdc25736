"""How long a training run will take, estimated from the epochs that are done."""

from __future__ import annotations

import time
from collections.abc import Callable

from lumbar.display.progress_lines import duration_text


class RunClock:
    """Times epochs and estimates the time left, including the folds to come.

    Loading and compiling before the first epoch count for the run, not for the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_s = self._mark_s = clock()
        self._epochs_s: list[float] = []
        self._runs_to_come = 0
        self._epochs = 0

    def start_fold(self, fold: int, folds: int) -> None:
        """Begin the run of a fold, counted from 0."""
        self._runs_to_come = folds - fold - 1

    def start_run(self, epochs: int) -> None:
        """Begin a run of ``epochs`` epochs."""
        self._epochs = epochs
        self.mark()

    def mark(self) -> None:
        """Begin to time an epoch: the time before belongs to none."""
        self._mark_s = self._clock()

    def end_epoch(self, done: int) -> str:
        """Return the time left after ``done`` epochs, and the whole time from this start.

        A resumed run counts from its resumption.
        """
        now_s = self._clock()
        self._epochs_s.append(now_s - self._mark_s)
        self._mark_s = now_s
        mean_s = sum(self._epochs_s) / len(self._epochs_s)
        left_s = mean_s * (self._epochs - done + self._runs_to_come * self._epochs)
        all_s = now_s - self._started_s + left_s
        return f"{duration_text(left_s)} left of {duration_text(all_s)}"
