"""How long a training run will take, told by the epochs that are done."""

from __future__ import annotations

import time
from collections.abc import Callable

from lumbar.display.progress_lines import duration_text


class RunClock:
    """Times epochs and says what is left of all runs, those of the folds to come included.

    Loading and compiling before the first epoch count towards what the run takes, and not towards
    what an epoch does.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_s = self._mark_s = clock()
        self._epochs_s: list[float] = []
        self._runs_to_come = 0
        self._epochs = 0

    def start_fold(self, fold: int, folds: int) -> None:
        """Begin the run of a fold, from 0."""
        self._runs_to_come = folds - fold - 1

    def start_run(self, epochs: int) -> None:
        """Begin a run of so many epochs in all."""
        self._epochs = epochs
        self.mark()

    def mark(self) -> None:
        """Begin to time an epoch: what came before belongs to none."""
        self._mark_s = self._clock()

    def end_epoch(self, done: int) -> str:
        """Return what is left after ``done`` epochs of the run, and what all takes from its start.

        Of a run that was resumed that is from here on.
        """
        now_s = self._clock()
        self._epochs_s.append(now_s - self._mark_s)
        self._mark_s = now_s
        mean_s = sum(self._epochs_s) / len(self._epochs_s)
        left_s = mean_s * (self._epochs - done + self._runs_to_come * self._epochs)
        all_s = now_s - self._started_s + left_s
        return f"{duration_text(left_s)} left of {duration_text(all_s)}"
