"""The benchmark tests itself: loaders of known delay and steps of known length.

What comes out is known beforehand by arithmetic, so a wrong clock, window or verdict shows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from lumbar.train.batch import Batch
from lumbar.train.bench.measure import Stopwatch, measure_ceiling, measure_end_to_end
from lumbar.train.bench.rows import Row, row
from lumbar.train.bench.spread import Spread
from lumbar.train.bench.steps import Step
from lumbar.train.bench.verdict import Bound, find_bound
from lumbar.train.clock import DeviceClock
from lumbar.train.plan import Request
from lumbar.train.utilisation import UtilisationSampler

POINTS = 2.0
"""Percentage points by which a share may be off."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Case:
    """A loader that takes ``delay_ms`` a batch, and a step of ``step_ms``.

    ``ahead`` makes batches in a thread while the step runs; ``slower_ms`` is what the step takes
    longer behind the loader than on a replayed batch.
    """

    name: str
    delay_ms: float
    step_ms: float
    ahead: bool
    slower_ms: float = 0.0

    @property
    def round_ms(self) -> float:
        """From one step's end to the next one's, by arithmetic."""
        step = self.step_ms + self.slower_ms
        return max(self.delay_ms, step) if self.ahead else self.delay_ms + step

    @property
    def au(self) -> float:
        """The accelerator utilisation that has to come out, a share."""
        return self.step_ms / self.round_ms

    @property
    def stall(self) -> float:
        """The data stall that has to come out, a share."""
        return 1 - (self.step_ms + self.slower_ms) / self.round_ms

    @property
    def bound(self) -> Bound:
        """The verdict that has to come out."""
        if self.au >= 0.95:
            return "compute"
        return "host" if self.slower_ms > self.round_ms * self.stall else "input"


CASES = (
    Case("a loader that is ahead of the step", 10.0, 40.0, ahead=True),
    Case("a loader that the step waits for each time", 20.0, 40.0, ahead=False),
    Case("a loader twice as slow as the step", 80.0, 40.0, ahead=True),
    Case("a loader that makes the step slower", 10.0, 40.0, ahead=True, slower_ms=20.0),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case came to; ``au`` and ``stall`` are shares."""

    case: Case
    au: float
    stall: float

    @property
    def bound(self) -> Bound:
        """The verdict."""
        return find_bound(self.au, self.stall)

    @property
    def points_off(self) -> float:
        """The greater error of the two shares, in percentage points."""
        return 100 * max(abs(self.au - self.case.au), abs(self.stall - self.case.stall))

    @property
    def holds(self) -> bool:
        """Whether shares and verdict are right."""
        return self.points_off <= POINTS and self.bound == self.case.bound

    def row(self) -> Row:
        """Return the error as a result with its target."""
        off = Spread(self.points_off, self.points_off, self.points_off)
        name = f"self_test/{self.case.name.replace(' ', '_')}"
        result = row(name, off, "percentage points", below=POINTS)
        return {**result, "met": self.holds, "bound": self.bound}


def run_self_test(*, seconds: float = 0.5, repeats: int = 3) -> Iterator[Outcome]:
    """Measure every case as `run_bench` measures a loader, on the CPU; about ten seconds."""
    with UtilisationSampler(CPU) as sampler:
        stopwatch = Stopwatch(DeviceClock(CPU), sampler, seconds, repeats)
        for case in CASES:
            replayed, live = _batch(), _batch()
            step = _step(case, replayed)
            ceiling = measure_ceiling(stopwatch, step, replayed, longest_step=1.0)
            with _open(case, live) as batches:
                measured = measure_end_to_end(stopwatch, batches, step, ceiling)
            yield Outcome(case, measured.au.value, measured.stall.value)


def _step(case: Case, replayed: Batch) -> Step:
    def take(batch: Batch) -> None:
        longer = 0.0 if batch is replayed else case.slower_ms
        time.sleep((case.step_ms + longer) / 1000)

    return Step(case.name, case.name, simulated=True, take=take)


@contextmanager
def _open(case: Case, batch: Batch) -> Iterator[Iterator[Batch]]:
    """Give the batches of a case's loader; a thread that makes them ends with it."""
    if not case.ahead:
        yield _each(case, batch)
        return
    ready: queue.Queue[Batch] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def make() -> None:
        for made in _each(case, batch):
            while not ended.is_set():
                try:
                    ready.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if ended.is_set():
                return

    maker = threading.Thread(target=make, name="self-test", daemon=True)
    maker.start()
    try:
        yield iter(ready.get, None)
    finally:
        ended.set()
        maker.join()


def _each(case: Case, batch: Batch) -> Iterator[Batch]:
    while True:
        time.sleep(case.delay_ms / 1000)
        yield batch


def _batch() -> Batch:
    """Return a batch of one sample of one pixel: nobody looks at it."""
    return Batch(
        image=torch.zeros(1, 1, 1, 1, 1),
        present=torch.ones(1, 1, dtype=torch.bool),
        position=torch.zeros(1, 1),
        lengths=torch.ones(1, dtype=torch.int64),
        series_type=torch.zeros(1, dtype=torch.int64),
        level=torch.full((1,), -1),
        target=torch.zeros(1, 25, 3),
        known=torch.zeros(1, 25, dtype=torch.bool),
        requests=[Request(0, (), np.full(25, -1, np.int8))],
    )
