"""What a loader and a step say of their own time, to hold against what the benchmark measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from lumbar.bench.measure.steps import TakeStep
from lumbar.bench.measure.window import MeasuredWindow, measure_window
from lumbar.train.reader.batch import Batch
from lumbar.train.telemetry.device_clock import DeviceClock


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the wall time: the step as it is on a replayed batch, and waits for batches."""

    au: float
    stall: float

    def points_from(self, other: Shares) -> float:
        """Return the greater difference of the two, in percentage points."""
        return 100 * max(abs(self.au - other.au), abs(self.stall - other.stall))


@dataclass(frozen=True, slots=True)
class Happened:
    """A window's waits and steps in seconds, by the clocks of the loader and of the step."""

    waits: list[float]
    steps: list[float]

    @property
    def seconds(self) -> float:
        """All of them together."""
        return sum(self.waits) + sum(self.steps)


@dataclass(slots=True)
class Account:
    """What loader and step say of themselves, and which of it belongs to which window."""

    waits: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    windows: list[Happened] = field(default_factory=list)

    def of_loader(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Give a loader's batches, and note how long each let its caller wait."""
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            self.waits.append(time.perf_counter() - asked)
            yield batch

    def of_step(self, take: TakeStep) -> TakeStep:
        """Return a step that notes how long it took."""

        def timed(batch: Batch) -> None:
            began = time.perf_counter()
            take(batch)
            self.steps.append(time.perf_counter() - began)

        return timed

    def measure_window(
        self,
        batches: Iterator[Batch],
        take: TakeStep,
        clock: DeviceClock,
        *,
        seconds: float,
        workers: int = 1,
    ) -> MeasuredWindow:
        """Measure a window, and keep what happened meanwhile but for the step before it."""
        first_wait, first_step = len(self.waits) + 1, len(self.steps) + 1
        window = measure_window(batches, take, clock, seconds=seconds, workers=workers)
        self.windows.append(Happened(self.waits[first_wait:], self.steps[first_step:]))
        return window

    def shares(self, replayed: int) -> Shares:
        """Return the shares of the windows after the first ``replayed``, whose steps are the scale.

        The medians that the benchmark takes, of other clocks' times; what passes between a wait and
        a step is nobody's, so a benchmark that takes its time there is found out.
        """
        ceiling, live = self.windows[:replayed], self.windows[replayed:]
        t_compute = median(median(window.steps) for window in ceiling)
        return Shares(
            median(len(window.steps) * t_compute / window.seconds for window in live),
            median(sum(window.waits) / window.seconds for window in live),
        )
