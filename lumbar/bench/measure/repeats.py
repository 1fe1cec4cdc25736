"""From windows to results: repeats of one loader with one step, summarised."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from lumbar.bench.measure.results import Alone, Ceiling, EndToEnd
from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.steps import BenchStep, TakeStep, take_nothing
from lumbar.bench.measure.window import MeasuredWindow, measure_window
from lumbar.train.reader.batch import Batch
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.sampler import Usage, UtilisationSampler

WARM_UP = 2
"""Steps before the first window behind a loader."""


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """How measurements are taken: on which clock, beside which sampler, how long, how often."""

    clock: DeviceClock
    sampler: UtilisationSampler
    seconds: float
    repeats: int

    def window(
        self, batches: Iterator[Batch], take: TakeStep, *, workers: int = 1
    ) -> MeasuredWindow:
        """Measure one window."""
        return measure_window(batches, take, self.clock, seconds=self.seconds, workers=workers)


def first_batch_seconds(opened: float, batches: Iterator[Batch], clock: DeviceClock) -> float:
    """Return the seconds from ``opened`` (of `time.perf_counter`) to the first batch."""
    next(batches)
    clock.synchronise()
    return time.perf_counter() - opened


def measure_ceiling(
    stopwatch: Stopwatch,
    step: BenchStep,
    batch: Batch,
    *,
    longest_step: float = math.inf,
    until: float = math.inf,
) -> Ceiling:
    """Replay one batch; ``step_ms`` is the median over repeats of each repeat's median step.

    A step of more than ``longest_step`` seconds is not repeated: the first warms up and the second
    counts. Where the second would not end by ``until``, of `time.perf_counter`, the first counts.
    """
    stopwatch.sampler.summary()
    first = _single_step(stopwatch, step, batch)
    if first.wall > longest_step:
        if time.perf_counter() + first.wall > until:
            return replace(_ceiling(step, [first], {}), first_alone=True)
        second = _single_step(stopwatch, step, batch)
        if second.wall > longest_step:
            usage = spread_usage([stopwatch.sampler.summary()], [second])
            return _ceiling(step, [second], usage)
    _warm_up(stopwatch, step, batch)
    replayed = itertools.repeat(batch)
    windows, usages = [], []
    for _ in range(stopwatch.repeats):
        windows.append(stopwatch.window(replayed, step.take))
        usages.append(stopwatch.sampler.summary())
    return _ceiling(step, windows, spread_usage(usages, windows))


def _ceiling(
    step: BenchStep, windows: Sequence[MeasuredWindow], usage: Mapping[str, Spread]
) -> Ceiling:
    return Ceiling(
        name=step.name,
        label=step.label,
        simulated=step.simulated,
        step_ms=_median_ms([window.steps for window in windows]),
        volumes_per_second=Spread.of([window.volumes_per_second for window in windows]),
        usage=usage,
    )


def _single_step(stopwatch: Stopwatch, step: BenchStep, batch: Batch) -> MeasuredWindow:
    """Time a single step."""
    started = time.perf_counter()
    step.take(batch)
    stopwatch.clock.synchronise()
    wall = time.perf_counter() - started
    return MeasuredWindow(wall, len(batch.requests), np.zeros(1), np.array([wall]), cpu=0.0)


def measure_alone(
    stopwatch: Stopwatch, batches: Iterator[Batch], *, in_flight: int, workers: int = 1
) -> Alone:
    """Measure a loader without a step, after the batches that it had ready."""
    for _ in range(in_flight):
        next(batches)
    windows = [
        stopwatch.window(batches, take_nothing, workers=workers) for _ in range(stopwatch.repeats)
    ]
    return Alone(
        volumes_per_second=Spread.of([window.volumes_per_second for window in windows]),
        cpu_seconds_per_volume=Spread.of([window.cpu / window.volumes for window in windows]),
        disk_bytes_per_second=disk_speed(windows),
    )


def measure_end_to_end(
    stopwatch: Stopwatch,
    batches: Iterator[Batch],
    step: BenchStep,
    ceiling: Ceiling,
    *,
    workers: int = 1,
) -> EndToEnd:
    """Measure a loader with a step, after some steps to warm up."""
    for _ in range(WARM_UP):
        step.take(next(batches))
    stopwatch.clock.synchronise()
    stopwatch.sampler.summary()
    windows, usages = [], []
    for _ in range(stopwatch.repeats):
        windows.append(stopwatch.window(batches, step.take, workers=workers))
        usages.append(stopwatch.sampler.summary())
    return summarise(windows, ceiling, spread_usage(usages, windows))


def summarise(
    windows: Sequence[MeasuredWindow], ceiling: Ceiling, usage: Mapping[str, Spread]
) -> EndToEnd:
    """Return the numbers of a loader with a step; percentiles of waits are over all repeats."""
    t_compute = ceiling.step_ms.value / 1000
    return EndToEnd(
        ceiling=ceiling,
        volumes_per_second=Spread.of([window.volumes_per_second for window in windows]),
        step_ms=_median_ms([window.steps for window in windows]),
        wait_ms_p50=_wait_ms(windows, 50),
        wait_ms_p95=_wait_ms(windows, 95),
        wait_ms_p99=_wait_ms(windows, 99),
        waits=sum(len(window.waits) for window in windows),
        stall=Spread.of([window.stall for window in windows]),
        au=Spread.of([window.accelerator_utilisation(t_compute) for window in windows]),
        disk_bytes_per_second=disk_speed(windows),
        usage=usage,
    )


def _warm_up(stopwatch: Stopwatch, step: BenchStep, batch: Batch) -> None:
    """Take steps for a window's length, so that libraries have chosen their algorithms."""
    started = time.perf_counter()
    for number in itertools.count(1):
        step.take(batch)
        stopwatch.clock.synchronise()
        if number >= WARM_UP and time.perf_counter() - started > stopwatch.seconds:
            break
    stopwatch.sampler.summary()


def disk_speed(windows: Sequence[MeasuredWindow]) -> Spread | None:
    """Return the bytes per second from storage, or None where the system gives none."""
    speeds = [w.disk_bytes / w.wall for w in windows if w.disk_bytes is not None]
    return Spread.of(speeds) if len(speeds) == len(windows) else None


def spread_usage(usages: Sequence[Usage], windows: Sequence[MeasuredWindow]) -> dict[str, Spread]:
    """Return the counters that were measured in every window; energy is per volume.

    They are read after a window, so they include the step before it.
    """
    spreads = {}
    for field in fields(Usage):
        values = [getattr(usage, field.name) for usage in usages]
        if all(value is not None for value in values):
            spreads[field.name] = Spread.of(values)
    if "energy_joules" in spreads:
        each = zip(usages, windows, strict=True)
        spreads["energy_joules"] = Spread.of(
            [(usage.energy_joules or 0.0) / window.volumes_taken for usage, window in each]
        )
    return spreads


def _median_ms(times: Sequence[np.ndarray]) -> Spread:
    return Spread.of([1000 * float(np.median(repeat)) for repeat in times])


def _wait_ms(windows: Sequence[MeasuredWindow], percent: int) -> Spread:
    """Return a percentile of all waits, and the least and greatest of single repeats."""
    each = [1000 * float(np.percentile(window.waits, percent)) for window in windows]
    together = np.concatenate([window.waits for window in windows])
    return Spread(1000 * float(np.percentile(together, percent)), min(each), max(each))
