"""One window of measurement: batches and steps, and how the time was spent.

The definitions: **wait** is the time from the end of a step to the arrival of the next batch,
**stall** the sum of waits over the wall time, **AU** (accelerator utilisation) steps x t_compute
over the wall time, t_compute being the median step on a replayed batch (MLPerf Storage).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from lumbar.bench.measure.steps import TakeStep
from lumbar.train.reader.batch import Batch
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.process_tree import bytes_read_of_tree, cpu_seconds_of_tree

MIN_STEPS = 3
MIN_ROUNDS = 2
PATIENCE = 4
"""A window that is `PATIENCE` times too long need not reach its least number of steps."""


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """The times of one window, in seconds.

    ``disk_bytes`` were fetched from storage; None where the system gives no number.
    """

    wall: float
    volumes: int
    waits: Float64[np.ndarray, " steps"]
    steps: Float64[np.ndarray, " steps"]
    cpu: float
    disk_bytes: int | None = None

    @property
    def volumes_taken(self) -> float:
        """The window's volumes and those of the step before it; batches are alike."""
        return self.volumes * (1 + 1 / len(self.steps))

    @property
    def volumes_per_second(self) -> float:
        """Samples over wall time."""
        return self.volumes / self.wall

    @property
    def stall(self) -> float:
        """Share of the wall time spent waiting for a batch."""
        return float(self.waits.sum()) / self.wall

    def accelerator_utilisation(self, t_compute: float) -> float:
        """Share of the wall time that the steps would take if no batch were waited for."""
        return len(self.steps) * t_compute / self.wall


def measure_window(
    batches: Iterator[Batch],
    take: TakeStep,
    clock: DeviceClock,
    *,
    seconds: float,
    workers: int = 1,
) -> MeasuredWindow:
    """Take steps for about some seconds and return how the time was spent.

    ``workers`` make one batch each at the same time, so only whole rounds of them are counted.
    One step before the window is not counted: its batch was made ahead.
    """
    volumes = 0
    arrived: list[Any] = []
    done: list[Any] = []
    read_before = bytes_read_of_tree()
    take(next(batches))
    clock.synchronise()
    cpu_before = cpu_seconds_of_tree()
    started = time.perf_counter()
    begin = clock.mark()
    while not is_over(time.perf_counter() - started, len(done), seconds, workers):
        batch = next(batches)
        arrived.append(clock.mark())
        take(batch)
        done.append(clock.mark())
        volumes += len(batch.requests)
    clock.synchronise()
    wall = time.perf_counter() - started
    cpu = cpu_seconds_of_tree() - cpu_before
    read = bytes_read_of_tree()
    asked = [begin, *done[:-1]]
    return MeasuredWindow(
        wall=wall,
        volumes=volumes,
        waits=np.array(list(map(clock.seconds, asked, arrived))),
        steps=np.array(list(map(clock.seconds, arrived, done))),
        cpu=cpu,
        disk_bytes=None if read is None or read_before is None else max(0, read - read_before),
    )


def is_over(elapsed: float, steps: int, seconds: float, workers: int) -> bool:
    """Return whether a window ends here: after its seconds, whole rounds, and enough of them."""
    if elapsed < seconds or steps == 0 or steps % workers:
        return False
    return steps >= max(MIN_STEPS, MIN_ROUNDS * workers) or elapsed >= PATIENCE * seconds
