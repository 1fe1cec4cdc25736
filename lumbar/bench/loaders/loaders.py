"""The loaders: pydicom on the fly, the cache in a DataLoader, lumbar's reader.

All give the same batches. Each opens as an endless stream of batches on the device; closing it ends
its processes and threads.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from lumbar.bench.loaders import opencv_crops
from lumbar.bench.loaders.dataloader import PREFETCH, Steps, open_dataloader, start_worker_server
from lumbar.bench.loaders.opencv_crops import DecodeSeries, PlanSteps, start_worker
from lumbar.cache.store import Cache
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.batch import Batch, make_batch
from lumbar.train.reader.placement import Draw, Tier
from lumbar.train.reader.reader import Reader

LoaderKind = Literal["dicom_dataloader", "cache_dataloader", "lumbar_reader"]

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps what DataLoader workers hand over; containers often have 64 MB of it."""


@dataclass(frozen=True, slots=True)
class LoaderSpec:
    """One loader to measure; ``workers`` are DataLoader's processes or DALI's threads.

    ``tier`` is where lumbar's reader has its volumes and ``draw`` where it renders crops; the
    DataLoaders use neither.
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
        """The loader's name in tables and plots."""
        if self.kind == "lumbar_reader":
            drawn = ", drawn on the GPU" if self.draw == "gpu" else ""
            return f"lumbar, {self.tier} tier{drawn}, {_counted(self.workers, 'thread')}"
        of_cache = self.kind == "cache_dataloader"
        way = "cache" if of_cache else "pydicom on the fly"
        return f"{way} in a DataLoader, {_counted(self.workers, 'worker')}"

    def options_beside(self, other: LoaderSpec) -> str:
        """Return the options that change another placement of lumbar's reader to this one."""
        own = {"--tier": (self.tier, other.tier), "--draw": (self.draw, other.draw)}
        return " ".join(f"{name} {mine}" for name, (mine, its) in own.items() if mine != its)

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
        """The most batches that can be ready in advance."""
        return PREFETCH if self.kind == "lumbar_reader" else PREFETCH * self.workers


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True)
class LoaderInput:
    """What every loader reads: the same plan over the same cache, to the same device."""

    cache: Cache
    plan: Plan
    device: torch.device
    dtype: torch.dtype
    decode: DecodeSeries | None

    @property
    def slices(self) -> int:
        """The slices of a sample of the plan's first batch.

        With ``pick = "all"`` that is the deepest series' number, and other batches have others.
        """
        return len(self.plan.requests(0, 0)[0].views[0].slices)


@contextmanager
def open_loader(source: LoaderInput, spec: LoaderSpec) -> Iterator[Iterator[Batch]]:
    """Open a loader as an endless stream of batches; its processes and threads end with it."""
    is_reader = spec.kind == "lumbar_reader"
    opened = (_reader_batches if is_reader else _dataloader_batches)(source, spec)
    with closing(opened) as batches:
        yield batches


def lacking_shared_memory(source: LoaderInput, spec: LoaderSpec) -> str | None:
    """Return why shared memory is too small for a DataLoader's workers; None where it suffices.

    Without room they would end with a bus error.
    """
    if not spec.forks or not SHARED_MEMORY.exists():
        return None
    crop = source.plan.crop
    volume_bytes = 4 * source.slices * crop.height * crop.width
    needed = volume_bytes * source.plan.batch * (spec.in_flight + 1)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed <= free:
        return None
    return (
        f"{spec.name} was not measured: what its workers share needs {needed / 1e6:.0f} MB of "
        f"shared memory, {free / 1e6:.0f} MB are free"
    )


def start_fork_server() -> None:
    """Start the process that workers are forked from, with all that they import."""
    start_worker_server([opencv_crops.__name__])


def _reader_batches(source: LoaderInput, spec: LoaderSpec) -> Generator[Batch, None, None]:
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


def _dataloader_batches(source: LoaderInput, spec: LoaderSpec) -> Generator[Batch, None, None]:
    plan = source.plan
    decode = source.decode if spec.kind == "dicom_dataloader" else None
    with open_dataloader(
        PlanSteps(source.cache.root, plan, decode),
        spec.workers,
        start_worker=start_worker,
        batch_size=None,
        sampler=Steps(plan.steps),
        pin_memory=source.device.type == "cuda",
    ) as loaded:
        for (epoch, step), images in zip(Steps(plan.steps), loaded, strict=True):
            requests = plan.requests(epoch, step)
            yield make_batch(
                # From pinned memory, if it is pinned, and converted on the device.
                images.to(source.device, non_blocking=True).to(source.dtype),
                requests,
                plan.samples,
                device=source.device,
                mix=plan.mix(epoch, step, len(requests)),
            )
