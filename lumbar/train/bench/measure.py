"""From windows to results: repeats of one loader with one step, summarised."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lumbar.train.batch import Batch
from lumbar.train.bench.report import Alone, Ceiling, EndToEnd
from lumbar.train.bench.spread import Spread
from lumbar.train.bench.steps import Step, TakeStep, take_nothing
from lumbar.train.bench.window import Window, measure_window
from lumbar.train.clock import DeviceClock
from lumbar.train.utilisation import Usage, UtilisationSampler

WARM_UP = 2
"""Steps before the first window behind a loader."""


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """How measurements are taken: on which clock, beside which sampler, how long, how often.

    ``measure`` takes a window; the self-test keeps its own account meanwhile.
    """

    clock: DeviceClock
    sampler: UtilisationSampler
    seconds: float
    repeats: int
    measure: Callable[..., Window] = measure_window

    def window(self, batches: Iterator[Batch], take: TakeStep, *, workers: int = 1) -> Window:
        """Measure one window."""
        return self.measure(batches, take, self.clock, seconds=self.seconds, workers=workers)


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
    _warm_up(stopwatch, step, batch, longest_step)
    replayed = itertools.repeat(batch)
    windows, usages = [], []
    for _ in range(stopwatch.repeats):
        windows.append(stopwatch.window(replayed, step.take))
        usages.append(stopwatch.sampler.summary())
        if np.median(windows[0].steps) > longest_step:
            break
    return Ceiling(
        name=step.name,
        label=step.label,
        simulated=step.simulated,
        step_ms=_median_ms([window.steps for window in windows]),
        volumes_per_second=Spread.of([window.volumes_per_second for window in windows]),
        usage=spread_usage(usages, windows),
    )


def measure_alone(
    stopwatch: Stopwatch, batches: Iterator[Batch], *, in_flight: int, workers: int = 1
) -> Alone:
    """Measure a loader that nobody waits for, after what it had ready is drawn."""
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
    step: Step,
    ceiling: Ceiling,
    *,
    workers: int = 1,
) -> EndToEnd:
    """Measure a loader with a step behind it, after some steps to warm up."""
    for _ in range(WARM_UP):
        step.take(next(batches))
    stopwatch.clock.synchronise()
    stopwatch.sampler.summary()
    windows, usages = [], []
    for _ in range(stopwatch.repeats):
        windows.append(stopwatch.window(batches, step.take, workers=workers))
        usages.append(stopwatch.sampler.summary())
    return summarise(windows, ceiling, spread_usage(usages, windows))


def summarise(windows: Sequence[Window], ceiling: Ceiling, usage: Mapping[str, Spread]) -> EndToEnd:
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


def _warm_up(stopwatch: Stopwatch, step: Step, batch: Batch, longest_step: float) -> None:
    """Take steps until libraries have chosen their ways: a window's length, unless one is long."""
    started = time.perf_counter()
    for number in itertools.count(1):
        before = time.perf_counter()
        step.take(batch)
        stopwatch.clock.synchronise()
        now = time.perf_counter()
        if now - before > longest_step or (number > WARM_UP and now - started > stopwatch.seconds):
            break
    stopwatch.sampler.summary()


def disk_speed(windows: Sequence[Window]) -> Spread | None:
    """Return the bytes a second from storage, or None where the system does not tell."""
    speeds = [w.disk_bytes / w.wall for w in windows if w.disk_bytes is not None]
    return Spread.of(speeds) if len(speeds) == len(windows) else None


def spread_usage(usages: Sequence[Usage], windows: Sequence[Window]) -> dict[str, Spread]:
    """Return the counters that were measured in every window; energy is of one volume.

    They are read after a window, so they hold the step before it too.
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


def _wait_ms(windows: Sequence[Window], percent: int) -> Spread:
    """Return a percentile of all waits, and the least and greatest of single repeats."""
    each = [1000 * float(np.percentile(window.waits, percent)) for window in windows]
    together = np.concatenate([window.waits for window in windows])
    return Spread(1000 * float(np.percentile(together, percent)), min(each), max(each))
