"""How contestants are measured: in turn, each opened anew, windows after what lay ready is drawn.

First each is tried once with every number of workers. Then rounds: in each, every contestant is
measured once with its best number, and with those that came near it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lumbar.bench.loaders.dataloader import PREFETCH
from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.window import Window, measure_window
from lumbar.train.telemetry.device_clock import DeviceClock
from peers.contest import Contest
from peers.contestants import THREADS, Contestant

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


TakeBatch = Callable[[Any], None]


def take_nothing(_: Any) -> None:
    """Take no step: the loader alone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant with a number of workers."""

    contestant: Contestant
    workers: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a contestant came to with its best number of workers, one number a round."""

    contestant: Contestant
    workers: int
    volumes_per_second: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def speed(self) -> Spread:
        """Volumes a second."""
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
) -> Iterator[tuple[Entry, Window]]:
    """Measure all entries in turn, ``repeats`` times; every other round goes backwards."""
    for number in range(repeats):
        for entry in entries if number % 2 == 0 else reversed(entries):
            yield entry, measure(contest, entry, seconds=seconds)


def standings(windows: dict[Entry, list[Window]]) -> list[Standing]:
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


def measure(contest: Contest, entry: Entry, *, seconds: float) -> Window:
    """Open a contestant, draw what it had ready, and measure one window of batches alone."""
    with entry.contestant.open(contest, entry.workers) as batches:
        return measure_stream(batches, entry, take_nothing, seconds=seconds)


def measure_stream(
    batches: Iterator[torch.Tensor],
    entry: Entry,
    take: TakeBatch,
    *,
    seconds: float,
) -> Window:
    """Measure one window of an open stream, after what lay ready and one more round are drawn."""
    processes = 1 if entry.contestant.kind == "lumbar" else max(1, entry.workers)
    for _ in range((PREFETCH + 1) * processes):
        drawn = next(batches)
    return measure_window(
        map(Arrived, batches),
        take,
        DeviceClock(drawn.device),
        seconds=seconds,
        workers=processes,
    )


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the ratio of two contestants, from their rounds."""
    return Spread.of((np.array(above) / np.array(below)).tolist())
