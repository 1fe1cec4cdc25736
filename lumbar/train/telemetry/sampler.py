"""Sample how busy the machine is, in a thread beside the work."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, fields
from typing import Any

import torch

from lumbar.train.telemetry.cpu import BusyCores
from lumbar.train.telemetry.gpu import GpuCounters, GpuReading

INTERVAL_SECONDS = 0.1

MAX_COST = 0.005
"""Share of one core that readings may take; slow readings come less often."""

ANSWER_SECONDS = 1.0
"""How long a summary waits for its own reading."""

TIMELINE_LENGTH = 2048
"""Most samples, and most marks, of a time line: about the pixels of a plot."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(GpuReading):
    """The use of the machine over a period; None is not measured.

    Means over time, but ``memory_used_bytes`` is the maximum, and ``energy_joules`` the energy used
    in the period. ``cpu_percent`` is the busy share of the cores that this process may run on,
    whoever used them.
    """

    cpu_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSample(GpuReading):
    """A sample of the time line: as `Usage`, for the time since the previous sample.

    ``seconds`` is the end of that time. ``seconds`` and ``energy_joules`` count from the sampler's
    start.
    """

    seconds: float
    cpu_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A label on the time line, ``seconds`` after the sampler's start."""

    seconds: float
    label: str


class UtilisationSampler:
    """Samples the cores, and the counters of a GPU if there is one, from enter to exit.

    Its methods may be called from any thread, also after the exit. `percent` and `summary` are
    independent: each covers the time since its own last call.
    """

    def __init__(self, device: torch.device, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._device = device
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="utilisation", daemon=True)
        self._running = False
        self._requested = 0
        self._answered = 0
        self._since_percent = _Totals()
        self._since_summary = _Totals()
        self._timeline = _Timeline()
        self._marks: deque[Mark] = deque(maxlen=TIMELINE_LENGTH)
        self._started = self._sampled = time.perf_counter()
        self._cpu_seconds = 0.0

    def __enter__(self) -> UtilisationSampler:
        self._cores = BusyCores(os.sched_getaffinity(0))
        self._started = self._sampled = time.perf_counter()
        self._running = True
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()
        self._thread.join()

    def percent(self) -> float | None:
        """Return the mean GPU utilisation since the last call; None if not measured."""
        with self._changed:
            totals, self._since_percent = self._since_percent, _Totals()
        return Usage(**totals.values()).gpu_percent

    def summary(self) -> Usage:
        """Take a reading, and return the use of the machine since the last call.

        Energy, memory and cores cover exactly that time. The driver's own means reach back by 0.2 s
        (GPM) and 1 s (utilisation, power), so let the work run for a while before.
        """
        with self._changed:
            self._requested += 1
            number = self._requested
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._answered >= number or not self._running, ANSWER_SECONDS
            )
            totals, self._since_summary = self._since_summary, self._since_summary.next()
        return Usage(**totals.values())

    def mark(self, label: str) -> None:
        """Mark the time line with a label."""
        with self._changed:
            self._marks.append(Mark(time.perf_counter() - self._started, label))

    def marks(self) -> tuple[Mark, ...]:
        """Return the marks in their order; of very many the latest."""
        with self._changed:
            return tuple(self._marks)

    def timeline(self) -> tuple[UsageSample, ...]:
        """Return the whole time line in at most `TIMELINE_LENGTH` samples."""
        with self._changed:
            return self._timeline.samples()

    def cost(self) -> float:
        """Return the thread's share of one core: its CPU seconds over the wall time."""
        with self._changed:
            wall = self._sampled - self._started
            return self._cpu_seconds / wall if wall else 0.0

    def _run(self) -> None:
        try:
            counters = GpuCounters.open(self._device)
            try:
                self._sample_until_exit(counters)
            finally:
                if counters is not None:
                    counters.close()
        except Exception:  # the measured work must go on, whatever a driver does
            _log.warning("the use of the machine is not measured any more", exc_info=True)
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _sample_until_exit(self, counters: GpuCounters | None) -> None:
        """Sample at once, at every interval, for every summary, and a last time at the exit."""
        running = True
        while running:
            running, requested = self._running, self._requested
            before = time.thread_time()
            self._sample(counters)
            with self._changed:
                self._answered = requested
                self._cpu_seconds = time.thread_time()
                self._changed.notify_all()
                if running:
                    took = self._cpu_seconds - before
                    pause = max(self._interval_seconds, took / MAX_COST)
                    self._changed.wait_for(self._has_request, pause)

    def _has_request(self) -> bool:
        """Return whether a summary or the exit is waiting."""
        return self._requested > self._answered or not self._running

    def _sample(self, counters: GpuCounters | None) -> None:
        cpu_percent = self._cores.percent()
        gpu = GpuReading() if counters is None else counters.read()
        with self._changed:
            now = time.perf_counter()
            seconds, self._sampled = now - self._sampled, now
            self._since_percent.add(cpu_percent, gpu, seconds)
            self._since_summary.add(cpu_percent, gpu, seconds)
            self._timeline.add(now - self._started, cpu_percent, gpu, seconds)


_AVERAGED = [
    field.name
    for field in fields(GpuReading)
    if field.name not in {"memory_used_bytes", "energy_joules"}
]


class _Totals:
    """Sums of readings: means weighted by time, maximum memory, difference of energy."""

    def __init__(self, energy_before: float | None = None) -> None:
        self.energy_before = energy_before
        self._energy: float | None = None
        self._memory: int | None = None
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, cpu_percent: float | None, gpu: GpuReading, seconds: float) -> None:
        """Add a reading that stands for some seconds."""
        self._add("cpu_percent", cpu_percent, seconds)
        for name in _AVERAGED:
            self._add(name, getattr(gpu, name), seconds)
        if gpu.memory_used_bytes is not None:
            self._memory = max(self._memory or 0, gpu.memory_used_bytes)
        if gpu.energy_joules is not None:
            self._energy = gpu.energy_joules
            if self.energy_before is None:
                self.energy_before = gpu.energy_joules

    def _add(self, name: str, value: float | None, seconds: float) -> None:
        if value is not None:
            self._sums[name] += value * seconds
            self._seconds[name] += seconds

    def next(self) -> _Totals:
        """Return empty totals that continue after these."""
        return _Totals(self.energy_before if self._energy is None else self._energy)

    def values(self) -> dict[str, Any]:
        """Return the fields of a `Usage`."""
        used = None
        if self._energy is not None and self.energy_before is not None:
            used = self._energy - self.energy_before
        means = {name: self._sums[name] / seconds for name, seconds in self._seconds.items()}
        return {**means, "memory_used_bytes": self._memory, "energy_joules": used}


class _Timeline:
    """All readings since the start, in few samples: when there are many, neighbours are merged."""

    def __init__(self) -> None:
        self._samples: list[UsageSample] = []
        self._readings_per_sample = 1
        self._totals = _Totals()
        self._n_readings = 0
        self._seconds = 0.0

    def add(
        self, at_seconds: float, cpu_percent: float | None, gpu: GpuReading, seconds: float
    ) -> None:
        self._totals.add(cpu_percent, gpu, seconds)
        self._n_readings += 1
        self._seconds = at_seconds
        if self._n_readings == self._readings_per_sample:
            self._samples.append(self._sample())
            self._totals, self._n_readings = _Totals(self._totals.energy_before), 0
        if len(self._samples) == TIMELINE_LENGTH:
            pairs = zip(self._samples[::2], self._samples[1::2], strict=True)
            self._samples = [_merged(*pair) for pair in pairs]
            self._readings_per_sample *= 2

    def samples(self) -> tuple[UsageSample, ...]:
        unfinished = [self._sample()] if self._n_readings else []
        return (*self._samples, *unfinished)

    def _sample(self) -> UsageSample:
        return UsageSample(seconds=self._seconds, **self._totals.values())


def _merged(first: UsageSample, second: UsageSample) -> UsageSample:
    """Merge two samples of equally many readings."""
    totals = _Totals(energy_before=0.0)
    for sample in (first, second):
        totals.add(sample.cpu_percent, sample, 1.0)
    return UsageSample(seconds=second.seconds, **totals.values())
