"""From windows to results: repeats of one loader with one step, summarised."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lumbar.train.batch import Batch
from lumbar.train.bench.report import Ceiling, EndToEnd, Spread
from lumbar.train.bench.steps import Step, TakeStep, take_nothing
from lumbar.train.bench.window import Window, measure_window
from lumbar.train.clock import DeviceClock
from lumbar.train.utilisation import UtilisationSampler


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """How measurements are taken: on which clock, how long, how often."""

    clock: DeviceClock
    seconds: float
    repeats: int

    def window(self, batches: Iterator[Batch], take: TakeStep, *, workers: int = 1) -> Window:
        """Measure one window."""
        return measure_window(batches, take, self.clock, seconds=self.seconds, workers=workers)


def first_batch_seconds(opened: float, batches: Iterator[Batch], clock: DeviceClock) -> float:
    """Return the seconds from ``opened`` (of `time.perf_counter`) to the first batch."""
    next(batches)
    clock.synchronise()
    return time.perf_counter() - opened


def measure_ceiling(
    stopwatch: Stopwatch, step: Step, batch: Batch, *, longest_step: float
) -> Ceiling:
    """Replay one batch; ``step_ms`` is the median step of each repeat, and of these the median.

    A step of more than ``longest_step`` seconds is not worth the repeats: one window is all.
    """
    step.take(batch)
    replayed = itertools.repeat(batch)
    windows = [stopwatch.window(replayed, step.take)]
    if np.median(windows[0].steps) <= longest_step:
        windows += [stopwatch.window(replayed, step.take) for _ in range(stopwatch.repeats - 1)]
    return Ceiling(
        name=step.name,
        label=step.label,
        simulated=step.simulated,
        step_ms=Spread.of([1000 * float(np.median(window.steps)) for window in windows]),
        volumes_per_second=Spread.of([window.volumes_per_second for window in windows]),
    )


def measure_alone(
    stopwatch: Stopwatch, batches: Iterator[Batch], *, in_flight: int, workers: int = 1
) -> tuple[Spread, Spread]:
    """Return volumes/s and CPU seconds a volume of a loader, after what it had ready is drawn."""
    for _ in range(in_flight):
        next(batches)
    windows = [
        stopwatch.window(batches, take_nothing, workers=workers) for _ in range(stopwatch.repeats)
    ]
    return (
        Spread.of([window.volumes_per_second for window in windows]),
        Spread.of([window.cpu / window.volumes for window in windows]),
    )


def measure_end_to_end(
    stopwatch: Stopwatch,
    batches: Iterator[Batch],
    step: Step,
    ceiling: Ceiling,
    gpu: UtilisationSampler,
    *,
    workers: int = 1,
) -> EndToEnd:
    """Measure a loader with a step behind it, after two steps to warm up."""
    for _ in range(2):
        step.take(next(batches))
    stopwatch.clock.synchronise()
    gpu.percent()
    windows, percents = [], []
    for _ in range(stopwatch.repeats):
        windows.append(stopwatch.window(batches, step.take, workers=workers))
        percents.append(gpu.percent())
    measured = [percent for percent in percents if percent is not None]
    return summarise(windows, ceiling, Spread.of(measured) if measured else None)


def summarise(windows: Sequence[Window], ceiling: Ceiling, gpu_percent: Spread | None) -> EndToEnd:
    """Return the numbers of a loader with a step; percentiles of waits are over all repeats."""
    t_compute = ceiling.step_ms.value / 1000
    return EndToEnd(
        ceiling=ceiling,
        volumes_per_second=Spread.of([window.volumes_per_second for window in windows]),
        wait_ms_p50=_wait_ms(windows, 50),
        wait_ms_p95=_wait_ms(windows, 95),
        wait_ms_p99=_wait_ms(windows, 99),
        stall=Spread.of([window.stall for window in windows]),
        au=Spread.of([window.accelerator_utilisation(t_compute) for window in windows]),
        gpu_percent=gpu_percent,
    )


def _wait_ms(windows: Sequence[Window], percent: int) -> Spread:
    """Return a percentile of all waits, and the least and greatest of single repeats."""
    each = [1000 * float(np.percentile(window.waits, percent)) for window in windows]
    together = np.concatenate([window.waits for window in windows])
    return Spread(1000 * float(np.percentile(together, percent)), min(each), max(each))
