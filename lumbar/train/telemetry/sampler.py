"""How busy the machine is, sampled in a thread beside the work that it runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any

import torch

from lumbar.train.telemetry.cpu import BusyCores
from lumbar.train.telemetry.gpu import GpuCounters, GpuReading

INTERVAL_SECONDS = 0.1

MAX_COST = 0.005
"""Share of one core that the readings may take: where they are slow, they come less often."""

ANSWER_SECONDS = 1.0
"""How long a summary waits for a reading of its own."""

TIMELINE_LENGTH = 2048
"""Most samples, and most marks, of a time line: about what a picture can show."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(GpuReading):
    """What a stretch of time came to; None is not measured.

    Means over time, but ``memory_used_bytes`` is the greatest, and ``energy_joules`` what was used
    in this stretch. ``cpu_percent`` is the busy share of the cores that this process may run on,
    busy with whatever it was.
    """

    cpu_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSample(GpuReading):
    """A place on the time line: as `Usage`, of the time since the sample before.

    ``seconds`` is when that time ended, counted from the sampler's start, and so is
    ``energy_joules``.
    """

    seconds: float
    cpu_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that began, ``seconds`` after the sampler's start."""

    seconds: float
    label: str


class UtilisationSampler:
    """Samples a GPU's counters, where there is one, and the cores, from enter to exit.

    Its methods may be called from any thread, also after the exit. `percent` and `summary` know
    nothing of each other: each returns what came since its own last call.
    """

    def __init__(self, device: torch.device, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._device = device
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="utilisation", daemon=True)
        self._running = False
        self._asked = 0
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()
        self._thread.join()

    def percent(self) -> float | None:
        """Return the mean GPU utilisation since the last call, or None: nothing was measured."""
        with self._changed:
            totals, self._since_percent = self._since_percent, _Totals()
        return Usage(**totals.values()).gpu_percent

    def summary(self) -> Usage:
        """Return what was measured since the last call, up to now: a reading is taken for it.

        Energy, memory and cores are of that time precisely. The driver's own means reach back by
        0.2 s (GPM) and 1 s (utilisation, power), so a first stretch of work had better go before.
        """
        with self._changed:
            self._asked += 1
            number = self._asked
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._answered >= number or not self._running, ANSWER_SECONDS
            )
            totals, self._since_summary = self._since_summary, self._since_summary.next()
        return Usage(**totals.values())

    def mark(self, label: str) -> None:
        """Note on the time line that something begins."""
        with self._changed:
            self._marks.append(Mark(time.perf_counter() - self._started, label))

    def marks(self) -> tuple[Mark, ...]:
        """Return what began, in its order; of very many the latest."""
        with self._changed:
            return tuple(self._marks)

    def timeline(self) -> tuple[UsageSample, ...]:
        """Return the whole time line in `TIMELINE_LENGTH` samples at most, however long it is."""
        with self._changed:
            return self._timeline.samples()

    def cost(self) -> float:
        """Return the share of one core that the thread took: its CPU seconds over the wall time."""
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
        except Exception:  # the work beside which it is measured goes on, whatever a driver does
            _log.warning("the machine's use is not measured any more", exc_info=True)
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _sample_until_exit(self, counters: GpuCounters | None) -> None:
        """Sample at once, at every interval, when a summary asks, and a last time at the exit."""
        running = True
        while running:
            running, asked = self._running, self._asked
            before = time.thread_time()
            self._sample(counters)
            with self._changed:
                self._answered = asked
                self._cpu_seconds = time.thread_time()
                self._changed.notify_all()
                if running:
                    took = self._cpu_seconds - before
                    pause = max(self._interval_seconds, took / MAX_COST)
                    self._changed.wait_for(self._is_wanted, pause)

    def _is_wanted(self) -> bool:
        """Return whether the next reading is to be taken now."""
        return self._asked > self._answered or not self._running

    def _sample(self, counters: GpuCounters | None) -> None:
        cpu_percent = self._cores.percent()
        gpu = GpuReading() if counters is None else counters.read()
        with self._changed:
            now = time.perf_counter()
            seconds, self._sampled = now - self._sampled, now
            self._since_percent.add(cpu_percent, gpu, seconds)
            self._since_summary.add(cpu_percent, gpu, seconds)
            self._timeline.add(now - self._started, cpu_percent, gpu, seconds)


_OF_MEANS = [
    field.name
    for field in fields(GpuReading)
    if field.name not in {"memory_used_bytes", "energy_joules"}
]


class _Totals:
    """Readings added up: means weighted by time, the greatest memory, the difference of energy."""

    def __init__(self, energy_before: float | None = None) -> None:
        self.energy_before = energy_before
        self._energy: float | None = None
        self._memory: int | None = None
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, cpu_percent: float | None, gpu: GpuReading, seconds: float) -> None:
        """Add a reading that stands for some seconds."""
        self._add("cpu_percent", cpu_percent, seconds)
        for name in _OF_MEANS:
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
        """Return totals of what comes after these."""
        return _Totals(self.energy_before if self._energy is None else self._energy)

    def values(self) -> dict[str, Any]:
        """Return the fields of a `Usage`."""
        used = None
        if self._energy is not None and self.energy_before is not None:
            used = self._energy - self.energy_before
        means = {name: self._sums[name] / seconds for name, seconds in self._seconds.items()}
        return {**means, "memory_used_bytes": self._memory, "energy_joules": used}


class _Timeline:
    """All readings since the start, in few samples: when they are many, neighbours are joined."""

    def __init__(self) -> None:
        self._samples: list[UsageSample] = []
        self._readings_a_sample = 1
        self._totals = _Totals()
        self._n_readings = 0
        self._seconds = 0.0

    def add(
        self, at_seconds: float, cpu_percent: float | None, gpu: GpuReading, seconds: float
    ) -> None:
        self._totals.add(cpu_percent, gpu, seconds)
        self._n_readings += 1
        self._seconds = at_seconds
        if self._n_readings == self._readings_a_sample:
            self._samples.append(self._sample())
            self._totals, self._n_readings = _Totals(self._totals.energy_before), 0
        if len(self._samples) == TIMELINE_LENGTH:
            pairs = zip(self._samples[::2], self._samples[1::2], strict=True)
            self._samples = [_joined(*pair) for pair in pairs]
            self._readings_a_sample *= 2

    def samples(self) -> tuple[UsageSample, ...]:
        unfinished = [self._sample()] if self._n_readings else []
        return (*self._samples, *unfinished)

    def _sample(self) -> UsageSample:
        return UsageSample(seconds=self._seconds, **self._totals.values())


def _joined(first: UsageSample, second: UsageSample) -> UsageSample:
    """Return one sample for two of the same number of readings."""
    totals = _Totals(energy_before=0.0)
    for sample in (first, second):
        totals.add(sample.cpu_percent, sample, 1.0)
    return UsageSample(seconds=second.seconds, **totals.values())
