"""How contestants are measured: in turn, each opened anew, windows after what lay ready is drawn.

First each is tried once with every number of workers. Then rounds: in each, every contestant is
measured once with its best number, and with those that came near it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from contest.contest import Contest
from contest.contestants import THREADS, Contestant
from lumbar.bench.loaders.dataloader import PREFETCH
from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.steps import take_nothing
from lumbar.bench.measure.window import MeasuredWindow, measure_window
from lumbar.train.telemetry.device_clock import DeviceClock

NEAR = 0.9
"""A number of workers this close to the best one, by one short window, may be the best."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch as a window counts it."""

    image: torch.Tensor

    @property
    def requests(self) -> range:
        """As many as there are samples."""
        return range(len(self.image))


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant with a number of workers."""

    contestant: Contestant
    workers: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contestant came to with its best number of workers, one number per round."""

    contestant: Contestant
    workers: int
    volumes_per_second: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def speed(self) -> Spread:
        """Volumes per second."""
        return Spread.of(self.volumes_per_second)


def try_workers(
    contest: Contest,
    contestants: Sequence[Contestant],
    counts: Sequence[int],
    *,
    threads: Sequence[int] = THREADS,
    seconds: float,
) -> Iterator[tuple[Entry, float]]:
    """Measure every contestant once with every number of workers; yield volumes/s of each."""
    for contestant in contestants:
        for workers in threads if contestant.kind == "lumbar" else counts:
            entry = Entry(contestant, workers)
            yield entry, measure(contest, entry, seconds=seconds).volumes_per_second


def nearly_best(tried: dict[Entry, float]) -> list[Entry]:
    """Return of each contestant the entries that may be its best."""
    best: dict[Contestant, float] = defaultdict(float)
    for entry, speed in tried.items():
        best[entry.contestant] = max(best[entry.contestant], speed)
    return [entry for entry, speed in tried.items() if speed >= NEAR * best[entry.contestant]]


def measure_rounds(
    contest: Contest, entries: Sequence[Entry], *, seconds: float, repeats: int
) -> Iterator[tuple[Entry, MeasuredWindow]]:
    """Measure all entries in turn, ``repeats`` times; every other round goes backwards."""
    for number in range(repeats):
        for entry in entries if number % 2 == 0 else reversed(entries):
            yield entry, measure(contest, entry, seconds=seconds)


def standings(windows: dict[Entry, list[MeasuredWindow]]) -> list[Standing]:
    """Return each contestant with its best number of workers."""
    best: dict[str, Standing] = {}
    for entry, measured in windows.items():
        standing = Standing(
            entry.contestant,
            entry.workers,
            tuple(window.volumes_per_second for window in measured),
            tuple(window.cpu / window.volumes for window in measured),
        )
        name = entry.contestant.name
        if name not in best or standing.speed.value > best[name].speed.value:
            best[name] = standing
    return list(best.values())


def measure(contest: Contest, entry: Entry, *, seconds: float) -> MeasuredWindow:
    """Open a contestant and measure one window of batches alone.

    Not counted are the batches that lay ready and one more round of the workers.
    """
    processes = 1 if entry.contestant.kind == "lumbar" else max(1, entry.workers)
    with entry.contestant.open(contest, entry.workers) as batches:
        for _ in range((PREFETCH + 1) * processes):
            next(batches)
        return measure_window(
            map(Arrived, batches),
            take_nothing,
            DeviceClock(contest.device),
            seconds=seconds,
            workers=processes,
        )
