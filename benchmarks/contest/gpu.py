"""The same contest where batches are wanted on a GPU, as bfloat16.

lumbar's compiled pass draws on the CPU, or DALI on the GPU from volumes on disk or there. The
DataLoader warps on the CPU with OpenCV, copies from pinned memory and converts on the GPU.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import torch
from nvidia.dali import backend

from contest.contest import Contest
from contest.contestants import Contestant, imported, open_own
from contest.rounds import Standing, measure_rounds, nearly_best, standings, try_workers
from contest.rows import contestant_rows, fastest
from lumbar.bench.loaders.dataloader import start_worker_server
from lumbar.bench.loaders.loaders import LoaderSpec, open_loader
from lumbar.bench.measure.repeats import Stopwatch, measure_ceiling, measure_end_to_end
from lumbar.bench.measure.rows import ResultRow, row
from lumbar.bench.measure.spread import Spread
from lumbar.bench.measure.steps import model_step
from lumbar.cache.names import SeriesType
from lumbar.train.reader.batch import Batch
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.run.config import RunConfig
from lumbar.train.telemetry.cpu import usable_cores
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.sampler import UtilisationSampler

DEVICE = torch.device("cuda")
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

LABELS = ("lumbar, the CPU draws", "lumbar, the GPU draws from disk", "lumbar, all on the GPU")
RING = "peers.opencv_ring"

GPU_CONTESTANTS = (
    *(
        Contestant(
            name, label, "lumbar", partial(open_own, kind="lumbar_reader", tier=tier, draw=draw)
        )
        for label, (name, (tier, draw)) in zip(LABELS, PLACEMENTS.items(), strict=True)
    ),
    Contestant(
        "gpu_opencv",
        "DataLoader, pinned memory",
        "opencv",
        partial(open_own, kind="cache_dataloader"),
    ),
    Contestant(
        "gpu_opencv_fours", "DataLoader, a ring", "opencv", imported(RING, "open_fours"), RING
    ),
)


def gpu_contest(contest: Contest) -> Contest:
    """Return the contest with the box of the GPU's targets, 16 x 256 x 256."""
    crop = contest.crop.model_copy(update={"slices": SLICES})
    return replace(contest, crop=crop, device=DEVICE, dtype=torch.bfloat16)


def gpu_rows(
    contest: Contest, series: SeriesType, *, seconds: float, repeats: int
) -> Iterator[ResultRow]:
    """Measure on the GPU; yield nothing where there is none."""
    if not torch.cuda.is_available():
        return
    cores = usable_cores()
    counts = [count for count in WORKERS if count <= max(cores, 2)]
    threads = [count for count in THREADS if count <= max(cores, 2)]
    start_worker_server([one.module for one in GPU_CONTESTANTS])
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


def _ratio_rows(found: list[Standing]) -> Iterator[ResultRow]:
    other = fastest(found, "opencv")
    assert other is not None
    for one in found:
        if one.contestant.kind == "lumbar":
            speed = Spread.of_ratios(one.volumes_per_second, other.volumes_per_second)
            name = f"{one.contestant.name}/ratio_to_best_dataloader"
            yield row(name, speed, "times", target=10.0, against=other.contestant.name)


def _training_rows(
    contest: Contest, series: SeriesType, reader: str, threads: int, *, seconds: float, repeats: int
) -> Iterator[ResultRow]:
    """Yield the utilisation behind ResNet-18's training step, at the largest batch that fits."""
    size = largest_batch(lambda batch: _fits(_config(contest, series, batch), contest, reader))
    config = _config(contest, series, size)
    step = model_step(config, DEVICE, steps=SCHEDULED_STEPS)
    with (
        UtilisationSampler(DEVICE) as sampler,
        _opened_reader(contest, size, reader, threads) as batches,
    ):
        stopwatch = Stopwatch(DeviceClock(DEVICE), sampler, seconds, repeats)
        batch = next(batches)
        ceiling = measure_ceiling(stopwatch, step, replace(batch, image=batch.image.clone()))
        measured = measure_end_to_end(stopwatch, batches, step, ceiling)
    name = f"{reader}/resnet18_bfloat16"
    au = measured.au.times(100)
    yield row(f"{name}/accelerator_utilisation", au, "%", target=98.0, batch=size)
    yield row(f"{name}/wait_p50", measured.wait_ms_p50, "ms", batch=size)
    for path, speed in (("", measured), ("/replayed_batch", ceiling)):
        found = speed.volumes_per_second
        yield row(f"{name}{path}/volumes_per_second", found, "volumes/s", batch=size)


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


def _opened_reader(
    contest: Contest, batch: int, name: str, threads: int
) -> AbstractContextManager[Iterator[Batch]]:
    """Open the reader with batches of a size; series come several times where there are few."""
    rows = contest.rows * -(-batch // len(contest.rows))
    larger = replace(contest, rows=rows[: len(rows) // batch * batch], batch=batch)
    return open_loader(larger.source(), LoaderSpec("lumbar_reader", threads, *PLACEMENTS[name]))
