"""Every way to the same batches: DICOM on the fly, the cache in DataLoaders, lumbar's reader.

Each is opened as an endless stream of batches that lie on the device, and is gone when closed.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import Dataset

from lumbar.bench.loaders import opencv_crops as crops
from lumbar.bench.loaders.dataloader import (
    PREFETCH,
    EndlessRequests,
    Steps,
    open_dataloader,
    start_worker_server,
)
from lumbar.bench.loaders.opencv_crops import (
    CachedCrops,
    DecodedCrops,
    DecodeSeries,
    LoadedCrops,
    collate,
    start_worker,
    volume_files,
)
from lumbar.bench.peers.libraries import LIBRARIES, Library, LibraryName
from lumbar.bench.peers.task import bytes_in_memory, task_of
from lumbar.cache.store import Cache
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.batch import Batch, make_batch
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.reader.reader import Reader

LoaderKind = Literal["dicom_dataloader", "cache_dataloader", "lumbar_reader", LibraryName]

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps what DataLoader workers hand over; containers often have 64 MB of it."""


@dataclass(frozen=True, slots=True)
class LoaderSpec:
    """One loader to measure; ``workers`` are DataLoader's processes or DALI's threads.

    ``tier`` is where lumbar's reader has its volumes and ``draw`` where it draws; others have none.
    """

    kind: LoaderKind
    workers: int
    tier: Tier = "disk"
    draw: Draw = "cpu"

    @property
    def name(self) -> str:
        """The first part of the names of its results."""
        if self.kind == "lumbar_reader":
            drawn = "_drawn_on_gpu" if self.draw == "gpu" else ""
            return f"lumbar_{self.tier}{drawn}_{self.workers}_threads"
        return f"{self.kind}_{self.workers}_workers"

    @property
    def label(self) -> str:
        """What people read."""
        if self.kind == "lumbar_reader":
            drawn = ", drawn on the GPU" if self.draw == "gpu" else ""
            return f"lumbar, {self.tier} tier{drawn}, {_counted(self.workers, 'thread')}"
        if self.library is not None:
            way = self.library.label
        elif self.kind == "cache_dataloader":
            way = "cache in a DataLoader"
        else:
            way = "pydicom on the fly in a DataLoader"
        return f"{way}, {_counted(self.workers, 'worker')}"

    def options_beside(self, other: LoaderSpec) -> str:
        """Return what a user types to have lumbar's reader read so, where another is in use."""
        own = {"--tier": (self.tier, other.tier), "--draw": (self.draw, other.draw)}
        return " ".join(f"{name} {mine}" for name, (mine, its) in own.items() if mine != its)

    @property
    def library(self) -> Library | None:
        """The library whose loader it is, if it is none of lumbar's."""
        return next((one for name, one in LIBRARIES.items() if name == self.kind), None)

    @property
    def forks(self) -> bool:
        """Whether it has worker processes."""
        return self.kind != "lumbar_reader" and self.workers > 0

    @property
    def round(self) -> int:
        """Batches that are made at the same time."""
        return self.workers if self.forks else 1

    @property
    def in_flight(self) -> int:
        """Batches that may be ready before one is asked for."""
        return PREFETCH if self.kind == "lumbar_reader" else PREFETCH * self.workers


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True)
class Source:
    """What every loader reads: the same plan over the same cache, to the same device."""

    cache: Cache
    plan: Plan
    device: torch.device
    dtype: torch.dtype
    decode: DecodeSeries | None


@contextmanager
def open_loader(source: Source, spec: LoaderSpec) -> Iterator[Iterator[Batch]]:
    """Open a loader as an endless stream of batches; its processes and threads end with it.

    A library gives images alone: all else of its batches is that of the plan's first one, which
    changes no speed.
    """
    if spec.library is not None:
        opened = _library_batches(source, spec, spec.library)
    elif spec.kind == "lumbar_reader":
        opened = _reader_batches(source, spec)
    else:
        opened = _dataloader_batches(source, spec)
    with closing(opened) as batches:
        yield batches


def lacking_package(spec: LoaderSpec) -> str | None:
    """Return why this loader cannot run, or None where its library is installed."""
    if spec.library is None or find_spec(spec.library.package) is not None:
        return None
    return (
        f"{spec.name} was not measured: {spec.library.package} is not installed; it comes with "
        "lumbar[bench]"
    )


def lacking_shared_memory(source: Source, spec: LoaderSpec) -> str | None:
    """Return why this DataLoader would die of a bus error, or None where its batches have room."""
    if not spec.forks or not SHARED_MEMORY.exists():
        return None
    task = task_of(source.cache, source.plan)
    batch_bytes = 4 * task.batch * task.crop.slices * task.crop.height * task.crop.width
    needed = batch_bytes * (spec.in_flight + 1)
    if spec.library is not None and spec.library.in_memory:
        needed += bytes_in_memory(source.cache, task)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed <= free:
        return None
    return (
        f"{spec.name} was not measured: what its workers share needs {needed / 1e6:.0f} MB of "
        f"shared memory, {free / 1e6:.0f} MB are free"
    )


def start_fork_server(specs: Sequence[LoaderSpec] = ()) -> None:
    """Start the process that workers are forked from, with all that the specs' workers import."""
    libraries = [spec.library.module for spec in specs if spec.library is not None]
    start_worker_server([crops.__name__, *libraries])


def _reader_batches(source: Source, spec: LoaderSpec) -> Generator[Batch, None, None]:
    with Reader(
        source.cache,
        source.plan,
        device=source.device,
        dtype=source.dtype,
        threads=spec.workers,
        prefetch=PREFETCH,
        tier=spec.tier,
        draw=spec.draw,
    ) as reader:
        while True:
            yield from reader.epoch()


def _dataloader_batches(source: Source, spec: LoaderSpec) -> Generator[Batch, None, None]:
    plan = source.plan
    with open_dataloader(
        _dataset(source, spec),
        spec.workers,
        start_worker=start_worker,
        batch_sampler=EndlessRequests(plan),
        collate_fn=collate,
        pin_memory=source.device.type == "cuda",
    ) as loaded:
        for (epoch, step), (images, requests) in zip(Steps(plan.steps), loaded, strict=True):
            yield make_batch(
                _on_device(images, source),
                requests,
                plan.samples,
                device=source.device,
                mix=plan.mix(epoch, step, len(requests)),
            )


def _library_batches(
    source: Source, spec: LoaderSpec, library: Library
) -> Generator[Batch, None, None]:
    plan = source.plan
    requests = plan.requests(0, 0)
    with library.open(
        task_of(source.cache, plan), spec.workers, pin_memory=source.device.type == "cuda"
    ) as loaded:
        for images in loaded:
            yield make_batch(
                _on_device(images.squeeze(2), source),
                requests,
                plan.samples,
                device=source.device,
            )


def _on_device(images: torch.Tensor, source: Source) -> torch.Tensor:
    """Copy from pinned memory, if it is pinned, and convert on the device."""
    return images.to(source.device, non_blocking=True).to(source.dtype)


def _dataset(source: Source, spec: LoaderSpec) -> Dataset[LoadedCrops]:
    files = volume_files(source.cache, source.plan.samples.rows)
    if spec.kind == "cache_dataloader":
        return CachedCrops(files, source.plan.crop)
    assert source.decode is not None
    return DecodedCrops(files, source.plan.crop, source.decode)
