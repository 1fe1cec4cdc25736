"""What a step costs the host before any pixel is drawn: CPU time of the thread that prepares it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np
import torch

from lumbar.cache.names import LEVELS
from lumbar.cache.store import Cache
from lumbar.train.augment import AugmentConfig
from lumbar.train.bench.spread import Spread
from lumbar.train.feed import prepare
from lumbar.train.plan import Plan
from lumbar.train.residency import open_volumes
from lumbar.train.samples import Samples
from peers.contest import Contest

BATCH = 64
STEPS = 100
"""Steps of a repeat, of which the median counts."""
SAMPLES = 1024
"""At least so many: an epoch of a step or two would have its order drawn anew all the time."""


def measure_preparing(contest: Contest, *, repeats: int) -> Iterator[tuple[str, Spread]]:
    """Measure drawing and preparing steps of series and of discs, CPU milliseconds a view."""
    cache = Cache(contest.root)
    rows = list(islice(cycle(contest.rows), SAMPLES))
    shape = cache.series[rows].select("depth", "height", "width").to_numpy()
    middles = np.repeat(shape[:, None] / 2.0, len(LEVELS), axis=1)
    for kind, samples in (
        ("series", Samples.of_series(cache, rows)),
        ("discs", Samples.of_places(cache, rows, middles)),
    ):
        plan = Plan(
            samples, contest.crop, AugmentConfig(), batch=BATCH, shuffle=True, seed=contest.seed
        )
        yield kind, Spread.of([_median_step(plan, cache) for _ in range(repeats)])


def _median_step(plan: Plan, cache: Cache) -> float:
    """Return the median over steps of the thread's CPU milliseconds a view."""
    device = torch.device("cpu")
    volumes = open_volumes(cache, plan.samples.rows, tier="disk", device=device, threads=1)
    costs = []
    try:
        # The first steps open the volumes.
        for number in range(-plan.steps, STEPS):
            started = time.thread_time()
            step = prepare(plan, cache, volumes, *divmod(number + plan.steps, plan.steps))
            if number >= 0:
                costs.append(1000 * (time.thread_time() - started) / len(step.slices))
    finally:
        volumes.close()
    return float(np.median(costs))
