"""What a step costs the host before any pixel is drawn.

CPU time of the thread that prepares it, and how fast the slices of its views are gathered where a
GPU draws them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import numpy as np
import torch

from contest.contest import Contest
from lumbar.bench.measure.spread import Spread
from lumbar.cache.names import LEVELS
from lumbar.cache.store import Cache
from lumbar.train.kernels.render import gather_slices
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.samples import Samples
from lumbar.train.plan.slices import Slices, spread_slices
from lumbar.train.reader.prefetch import prepare_step
from lumbar.train.reader.volumes import open_volumes

Gather = Callable[[np.ndarray, np.ndarray, Slices], None]
"""Fills an array (d, height, width, 1) with the slices of a volume."""

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


def measure_gathering(contest: Contest, *, repeats: int) -> tuple[Spread, Spread]:
    """Measure gathering the slices of views in one thread, GB/s, and numpy's copy of the same.

    The volumes are memory maps in the page cache, and lie in caches of the processor no more by the
    time that they come again. Both are timed by turns.
    """
    cache = Cache(contest.root)
    views = [
        (np.asarray(cache.volume(row)), spread_slices_of(cache, row, contest.crop.slices))
        for row in contest.rows
    ]
    largest = max(volume[slices].nbytes for volume, slices in views)
    memory = np.empty(largest, views[0][0].dtype)
    ways: tuple[Gather, Gather] = (gather_slices, _copy_slices)
    rates: tuple[list[float], list[float]] = [], []
    for round_number in range(repeats + 1):
        for gather, of_way in zip(ways, rates, strict=True):
            started = time.perf_counter()
            nbytes = sum(_gathered_bytes(gather, memory, *view) for view in views)
            # The first round maps the pages, and compiles.
            if round_number:
                of_way.append(nbytes / (time.perf_counter() - started) / 1e9)
    return Spread.of(rates[0]), Spread.of(rates[1])


def spread_slices_of(cache: Cache, row: int, wanted: int) -> Slices:
    """Return the slices that a sample of a series holds."""
    depth = np.array([cache.series["depth"][row]])
    return spread_slices(depth, wanted, np.array([0.5]))[0]


def _gathered_bytes(gather: Gather, memory: np.ndarray, volume: np.ndarray, slices: Slices) -> int:
    shape = (len(slices), *volume.shape[1:], 1)
    out = memory[: np.prod(shape)].reshape(shape)
    gather(out, volume, slices)
    return out.nbytes


def _copy_slices(out: np.ndarray, volume: np.ndarray, slices: Slices) -> None:
    for place, number in enumerate(slices):
        np.copyto(out[place, ..., 0], volume[number])


def _median_step(plan: Plan, cache: Cache) -> float:
    """Return the median over steps of the thread's CPU milliseconds a view."""
    device = torch.device("cpu")
    volumes = open_volumes(cache, plan.samples.rows, tier="disk", device=device, threads=1)
    costs = []
    try:
        # The first steps open the volumes.
        for number in range(-plan.steps, STEPS):
            started = time.thread_time()
            step = prepare_step(plan, cache, volumes, *divmod(number + plan.steps, plan.steps))
            if number >= 0:
                costs.append(1000 * (time.thread_time() - started) / len(step.slices))
    finally:
        volumes.close()
    return float(np.median(costs))
