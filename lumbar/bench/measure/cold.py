"""A loader whose files are not in memory: the first epoch after a restart."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

from lumbar.bench.loaders.loaders import LoaderInput, LoaderSpec, open_loader
from lumbar.bench.measure.results import Cold
from lumbar.bench.measure.spread import Spread
from lumbar.cache.files.page_cache import forget_files
from lumbar.train.telemetry.device_clock import DeviceClock
from lumbar.train.telemetry.process_tree import bytes_read_of_tree


@dataclass(frozen=True, slots=True)
class _Epoch:
    """One cold epoch, or what of it fitted into the time, from opening the loader."""

    first_batch: float
    wall: float
    volumes: int
    disk_bytes: int | None


def measure_cold(
    open_source: Callable[[], LoaderInput], spec: LoaderSpec, *, seconds: float, repeats: int
) -> Cold:
    """Drop the files from the page cache and read at most an epoch of them, ``repeats`` times.

    Time and bytes count from opening the loader, which reads ahead at once. ``open_source`` opens
    the cache anew: the system keeps pages that are mapped.
    """
    epochs = []
    for _ in range(repeats):
        # The maps of the repeat before, which the reader's threads may hold in cycles.
        gc.collect()
        epochs.append(_read_epoch(open_source(), spec, seconds))
    read = [epoch.disk_bytes / epoch.wall for epoch in epochs if epoch.disk_bytes is not None]
    return Cold(
        first_batch_seconds=Spread.of([epoch.first_batch for epoch in epochs]),
        volumes_per_second=Spread.of([epoch.volumes / epoch.wall for epoch in epochs]),
        disk_bytes_per_second=Spread.of(read) if len(read) == len(epochs) else None,
    )


def reads_files(spec: LoaderSpec) -> bool:
    """Return whether a loader reads the cache's files as it goes, so that it can be cold."""
    return spec.kind == "cache_dataloader" or (spec.kind == "lumbar_reader" and spec.tier == "disk")


def _read_epoch(source: LoaderInput, spec: LoaderSpec, seconds: float) -> _Epoch:
    cache = source.cache
    forget_files(cache.root / path for path in cache.series[source.plan.samples.rows]["path"])
    clock = DeviceClock(source.device)
    before = bytes_read_of_tree()
    opened = time.perf_counter()
    with open_loader(source, spec) as batches:
        volumes = len(next(batches).requests)
        clock.synchronise()
        first = time.perf_counter() - opened
        for _ in range(source.plan.steps - 1):
            volumes += len(next(batches).requests)
            if time.perf_counter() - opened > seconds:
                break
        clock.synchronise()
        wall = time.perf_counter() - opened
        read = bytes_read_of_tree()
    disk_bytes = None if read is None or before is None else max(0, read - before)
    return _Epoch(first, wall, volumes, disk_bytes)
