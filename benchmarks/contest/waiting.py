"""How well lumbar's reader hides behind a step of known length."""

from __future__ import annotations

from contest.contest import Contest
from contest.contestants import THREADS
from lumbar.bench.judge import one_batch
from lumbar.bench.loaders.loaders import LoaderSpec, open_loader
from lumbar.bench.measure.repeats import Stopwatch, measure_ceiling, measure_end_to_end
from lumbar.bench.measure.results import EndToEnd
from lumbar.bench.measure.steps import simulated_step
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.sampler import UtilisationSampler

STEP_MS = 120.0


def measure_waiting(contest: Contest, *, seconds: float, repeats: int) -> EndToEnd:
    """Measure the reader with a step of `STEP_MS` that sleeps."""
    source, reader = contest.source(), LoaderSpec("lumbar_reader", THREADS[0])
    step = simulated_step(STEP_MS)
    with UtilisationSampler(contest.device) as sampler:
        stopwatch = Stopwatch(DeviceClock(contest.device), sampler, seconds, repeats)
        ceiling = measure_ceiling(stopwatch, step, one_batch(source, reader))
        with open_loader(source, reader) as batches:
            return measure_end_to_end(stopwatch, batches, step, ceiling)
