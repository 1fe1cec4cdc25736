"""Three ways to the same batches: DICOM on the fly, the cache in a DataLoader, lumbar's reader.

Each is opened as an endless stream of batches that lie on the device, and is gone when closed.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from lumbar.cache.store import Cache
from lumbar.train.batch import Batch, make_batch
from lumbar.train.bench import crops
from lumbar.train.bench.crops import (
    CachedCrops,
    DecodedCrops,
    DecodeSeries,
    LoadedCrops,
    collate,
    start_worker,
    volume_files,
)
from lumbar.train.plan import Plan, Request
from lumbar.train.reader import Reader

LoaderKind = Literal["dicom_dataloader", "cache_dataloader", "dali_reader"]

PREFETCH = 2
"""Batches in flight a worker, torch's default, and of the reader, its default."""

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps what DataLoader workers hand over; containers often have 64 MB of it."""


@dataclass(frozen=True, slots=True)
class LoaderSpec:
    """One loader to measure; ``workers`` are DataLoader's processes or DALI's threads."""

    kind: LoaderKind
    workers: int

    @property
    def name(self) -> str:
        """The first part of the names of its results."""
        if self.kind == "dali_reader":
            return self.kind
        return f"{self.kind}_{self.workers}_workers"

    @property
    def forks(self) -> bool:
        """Whether it has worker processes."""
        return self.kind != "dali_reader" and self.workers > 0

    @property
    def round(self) -> int:
        """Batches that are made at the same time."""
        return self.workers if self.forks else 1

    @property
    def in_flight(self) -> int:
        """Batches that may be ready before one is asked for."""
        return PREFETCH if self.kind == "dali_reader" else PREFETCH * self.workers


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
    """Open a loader as an endless stream of batches; its processes and threads end with it."""
    opened = _reader_batches if spec.kind == "dali_reader" else _dataloader_batches
    with closing(opened(source, spec)) as batches:
        yield batches


def lacking_shared_memory(source: Source, spec: LoaderSpec) -> str | None:
    """Return why this DataLoader would die of a bus error, or None where its batches have room."""
    if not spec.forks or not SHARED_MEMORY.exists():
        return None
    crop = source.plan.crop
    batch_bytes = 4 * source.plan.batch * crop.slices * crop.height * crop.width
    needed = batch_bytes * (spec.in_flight + 1)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed <= free:
        return None
    return (
        f"{spec.name} was not measured: its batches need {needed / 1e6:.0f} MB of shared memory, "
        f"{free / 1e6:.0f} MB are free"
    )


def start_fork_server() -> None:
    """Start the process that workers are forked from, so that its imports are not measured.

    Forking this process itself may deadlock: DALI, OpenCV and torch run threads in it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([crops.__name__])
    first = context.Process(target=os.getpid)
    first.start()
    first.join()


def _reader_batches(source: Source, spec: LoaderSpec) -> Generator[Batch, None, None]:
    with Reader(
        source.cache,
        source.plan,
        device=source.device,
        dtype=source.dtype,
        threads=spec.workers,
        prefetch=PREFETCH,
    ) as reader:
        while True:
            yield from reader.epoch()


def _dataloader_batches(source: Source, spec: LoaderSpec) -> Generator[Batch, None, None]:
    # The iterator lives in this frame alone, so closing the generator ends the workers.
    loader: DataLoader[LoadedCrops] = DataLoader(
        _dataset(source, spec),
        batch_sampler=EndlessRequests(source.plan),
        num_workers=spec.workers,
        collate_fn=collate,
        pin_memory=source.device.type == "cuda",
        prefetch_factor=PREFETCH if spec.workers else None,
        multiprocessing_context="forkserver" if spec.workers else None,
        worker_init_fn=start_worker,
    )
    for images, requests in loader:
        yield make_batch(
            images.to(source.dtype), requests, source.plan.samples, device=source.device
        )


def _dataset(source: Source, spec: LoaderSpec) -> Dataset[LoadedCrops]:
    files = volume_files(source.cache, source.plan.samples.rows)
    if spec.kind == "cache_dataloader":
        return CachedCrops(files, source.plan.crop)
    assert source.decode is not None
    return DecodedCrops(files, source.plan.crop, source.decode)


@dataclass(frozen=True, slots=True)
class EndlessRequests:
    """Lists of requests, step after step and epoch after epoch, as a DataLoader's batch sampler."""

    plan: Plan

    def __iter__(self) -> Iterator[list[Request]]:
        epoch = 0
        while True:
            for step in range(self.plan.steps):
                yield self.plan.requests(epoch, step)
            epoch += 1
