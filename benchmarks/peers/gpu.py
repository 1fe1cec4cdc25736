"""The same contest where batches are wanted on a GPU, as bfloat16.

lumbar's compiled pass draws on the CPU, or DALI on the GPU from volumes on disk or there. The
DataLoader warps on the CPU with OpenCV, copies from pinned memory and converts on the GPU.
"""

from __future__ import annotations

import gc
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nvidia.dali import backend

from lumbar.bench.loaders.dataloader import start_worker_server
from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.steps import TakeStep, model_step
from lumbar.bench.measure.window import Window, measure_window
from lumbar.cache.names import SeriesType
from lumbar.cache.store import Cache
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.reader.reader import Reader
from lumbar.train.run.config import RunConfig
from lumbar.train.telemetry.cpu import usable_cores
from lumbar.train.telemetry.device_clock import DeviceClock
from peers import opencv_loader
from peers.contest import Contest
from peers.contestants import Contestant
from peers.measure import (
    Standing,
    measure_rounds,
    nearly_best,
    ratio,
    standings,
    try_workers,
)
from peers.rows import Row, contestant_rows, fastest, row

DEVICE = torch.device("cuda")
DTYPE = torch.bfloat16
SLICES = 16
BUDGET_BYTES = 24e9
"""The memory of a common GPU; all that this process has on the device counts."""
BATCH_STEP = 8
PLACEMENTS: dict[str, tuple[Tier, Draw]] = {
    "gpu_lumbar_drawn_by_cpu": ("disk", "cpu"),
    "gpu_lumbar_disk": ("disk", "gpu"),
    "gpu_lumbar_device": ("device", "gpu"),
}
"""The names of lumbar's reader: where its volumes lie, and what draws."""
WORKERS = (0, 1, 2, 4, 8, 16)
THREADS = (2, 4, 8)
SCHEDULED_STEPS = 100_000

GPU_CONTESTANTS = (
    Contestant("gpu_lumbar_drawn_by_cpu", "lumbar, the CPU draws", "lumbar", __name__, "open_cpu"),
    Contestant(
        "gpu_lumbar_disk", "lumbar, the GPU draws from disk", "lumbar", __name__, "open_disk"
    ),
    Contestant("gpu_lumbar_device", "lumbar, all on the GPU", "lumbar", __name__, "open_device"),
    Contestant("gpu_opencv", "DataLoader, pinned memory", "opencv", __name__, "open_plain"),
    Contestant("gpu_opencv_fours", "DataLoader, a ring", "opencv", __name__, "open_fours"),
)


def gpu_contest(contest: Contest) -> Contest:
    """Return the contest with the box of the GPU's targets, 16 x 256 x 256."""
    return replace(contest, crop=contest.crop.model_copy(update={"slices": SLICES}))


def gpu_rows(
    contest: Contest, series: SeriesType, *, seconds: float, repeats: int
) -> Iterator[Row]:
    """Measure on the GPU; yield nothing where there is none."""
    if not torch.cuda.is_available():
        return
    cores = usable_cores()
    counts = [count for count in WORKERS if count <= max(cores, 2)]
    threads = [count for count in THREADS if count <= max(cores, 2)]
    start_worker_server([opencv_loader.__name__])
    tried = try_workers(contest, GPU_CONTESTANTS, counts, threads=threads, seconds=seconds / 2)
    windows = defaultdict(list)
    best = nearly_best(dict(tried))
    for entry, window in measure_rounds(contest, best, seconds=seconds, repeats=repeats):
        windows[entry].append(window)
    found = standings(windows)
    yield from _ratio_rows(found)
    yield from contestant_rows(found)
    threads_of = {one.contestant.name: one.workers for one in found}
    for name in PLACEMENTS:
        yield from _training_rows(
            contest, series, name, threads_of[name], seconds=seconds, repeats=repeats
        )


def _ratio_rows(found: list[Standing]) -> Iterator[Row]:
    other = fastest(found, "opencv")
    assert other is not None
    for one in found:
        if one.contestant.kind == "lumbar":
            speed = ratio(one.volumes_per_second, other.volumes_per_second)
            name = f"{one.contestant.name}/ratio_to_best_dataloader"
            yield row(name, speed, "times", target=10.0, against=other.contestant.name)


def _training_rows(
    contest: Contest, series: SeriesType, reader: str, threads: int, *, seconds: float, repeats: int
) -> Iterator[Row]:
    """Yield the utilisation behind ResNet-18's training step, at the largest batch that fits."""
    size = largest_batch(lambda batch: _fits(_config(contest, series, batch), contest, reader))
    config = _config(contest, series, size)
    take = model_step(config, DEVICE, steps=SCHEDULED_STEPS).take
    clock = DeviceClock(DEVICE)
    with _opened_reader(contest, size, reader, threads) as batches:
        batch = next(batches)
        kept = replace(batch, image=batch.image.clone())
        for _ in range(5):
            take(next(batches))
        replayed, windows = [], []
        for _ in range(repeats):
            replayed.append(_window(itertools.repeat(kept), take, clock, seconds))
            windows.append(_window(batches, take, clock, seconds))
    t_compute = float(np.median([np.median(window.steps) for window in replayed]))
    name = f"{reader}/resnet18_bfloat16"
    more: dict[str, Any] = {"batch": size}
    au = Spread.of([100 * window.accelerator_utilisation(t_compute) for window in windows])
    yield row(f"{name}/accelerator_utilisation", au, "%", target=98.0, **more)
    waits = Spread.of([1000 * float(np.percentile(window.waits, 50)) for window in windows])
    yield row(f"{name}/wait_p50", waits, "ms", **more)
    speed = Spread.of([window.volumes_per_second for window in windows])
    yield row(f"{name}/volumes_per_second", speed, "volumes/s", **more)
    ceiling = Spread.of([window.volumes_per_second for window in replayed])
    yield row(f"{name}/replayed_batch/volumes_per_second", ceiling, "volumes/s", **more)


def largest_batch(fits: Callable[[int], bool]) -> int:
    """Return the largest multiple of `BATCH_STEP` that fits, by doubling and then halving."""
    low, high = 0, BATCH_STEP
    while fits(high):
        low, high = high, 2 * high
    while high - low > BATCH_STEP:
        middle = (low + high) // 2 // BATCH_STEP * BATCH_STEP
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0:
        message = f"not even a batch of {BATCH_STEP} fits the budget"
        raise RuntimeError(message)
    return low


def _fits(config: RunConfig, contest: Contest, reader: str) -> bool:
    """Return whether three training steps and the reader stay within the budget."""
    _free_memory()
    total = torch.cuda.mem_get_info(DEVICE)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, BUDGET_BYTES / total))
    try:
        take = model_step(config, DEVICE, steps=SCHEDULED_STEPS).take
        with _opened_reader(contest, config.optim.batch, reader, THREADS[0]) as batches:
            for _ in range(3):
                take(next(batches))
            torch.cuda.synchronize(DEVICE)
            free, total = torch.cuda.mem_get_info(DEVICE)
            return total - free <= BUDGET_BYTES
    except torch.cuda.OutOfMemoryError:
        return False


def _free_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    backend.ReleaseUnusedMemory()


def _config(contest: Contest, series: SeriesType, batch: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "series": series,
            "bfloat16": True,
            "crop": contest.crop,
            "augment": contest.augment,
            "model": {"backbone": "resnet18"},
            "optim": {"batch": batch},
        }
    )


@contextmanager
def _opened_reader(
    contest: Contest, batch: int, name: str, threads: int
) -> Iterator[Iterator[Batch]]:
    """Open the reader with batches of a size; series come several times where there are few."""
    rows = contest.rows * -(-batch // len(contest.rows))
    larger = replace(contest, rows=rows[: len(rows) // batch * batch], batch=batch)
    cache = Cache(contest.root)
    plan = larger.plan(cache)
    tier, draw = PLACEMENTS[name]
    with Reader(
        cache, plan, device=DEVICE, dtype=DTYPE, threads=threads, tier=tier, draw=draw
    ) as reader:
        yield itertools.chain.from_iterable(reader.epoch() for _ in itertools.count())


def _window(batches: Iterator[Batch], take: TakeStep, clock: DeviceClock, seconds: float) -> Window:
    return measure_window(batches, take, clock, seconds=seconds)


@contextmanager
def open_cpu(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open lumbar's reader whose compiled pass draws."""
    with _opened_reader(contest, contest.batch, "gpu_lumbar_drawn_by_cpu", workers) as batches:
        yield (batch.image for batch in batches)


@contextmanager
def open_disk(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open lumbar's reader, volumes on disk."""
    with _opened_reader(contest, contest.batch, "gpu_lumbar_disk", workers) as batches:
        yield (batch.image for batch in batches)


@contextmanager
def open_device(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open lumbar's reader, volumes on the GPU."""
    with _opened_reader(contest, contest.batch, "gpu_lumbar_device", workers) as batches:
        yield (batch.image for batch in batches)


@contextmanager
def open_plain(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open the DataLoader that warps slice by slice and pins its batches."""
    with opencv_loader.open_plain(contest, workers, pin_memory=True) as batches:
        yield (batch.to(DEVICE, non_blocking=True).to(DTYPE) for batch in batches)


@contextmanager
def open_fours(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open the DataLoader that warps four slices at a time into memory that is used again.

    A copy has to be finished before the memory may be.
    """
    with opencv_loader.open_fours(contest, workers) as batches:
        yield (batch.to(DEVICE).to(DTYPE) for batch in batches)
