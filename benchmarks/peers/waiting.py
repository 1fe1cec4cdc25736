"""How well lumbar's reader hides behind a step of known length."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.window import measure_window
from lumbar.train.telemetry.device_clock import DeviceClock
from peers.contest import Contest
from peers.contestants import CONTESTANTS, THREADS
from peers.measure import Arrived, Entry, measure_stream

STEP_MS = 120.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Waits in milliseconds, and the accelerator utilisation as a share."""

    p50_ms: Spread
    p95_ms: Spread
    au: Spread


def measure_waiting(contest: Contest, *, seconds: float, repeats: int) -> Waiting:
    """Measure windows of the reader with a step of `STEP_MS` that sleeps."""
    entry = Entry(CONTESTANTS[0], THREADS[0])
    with entry.contestant.open(contest, entry.workers) as batches:
        clock = DeviceClock(next(batches).device)
        replayed = itertools.repeat(Arrived(next(batches)))
        alone = measure_window(replayed, sleep, clock, seconds=seconds)
        windows = [measure_stream(batches, entry, sleep, seconds=seconds) for _ in range(repeats)]
    t_compute = float(np.median(alone.steps))
    return Waiting(
        p50_ms=Spread.of([1000 * float(np.percentile(window.waits, 50)) for window in windows]),
        p95_ms=Spread.of([1000 * float(np.percentile(window.waits, 95)) for window in windows]),
        au=Spread.of([window.accelerator_utilisation(t_compute) for window in windows]),
    )


def sleep(_: Any) -> None:
    """Sleep, as the host does while an accelerator computes."""
    time.sleep(STEP_MS / 1000)
