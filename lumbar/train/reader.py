"""The reader: executes a plan with DALI and yields batches that lie on the device already."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from lumbar.cache.store import Cache
from lumbar.train.batch import Batch, make_batch
from lumbar.train.compiled import as_drawn
from lumbar.train.feed import Feed, Step, prepare
from lumbar.train.graph import GraphConfig, Source, build_pipeline
from lumbar.train.plan import Plan
from lumbar.train.reader_checks import (
    check_dtype,
    check_numbers,
    check_samples,
    check_start,
    stored_dtype,
)
from lumbar.train.residency import ResidentVolumes, Tier, Volumes, choose_tier, open_volumes

_log = logging.getLogger(__name__)


class Reader:
    """Streams the batches of a plan, epoch after epoch, without a gap between epochs.

    A reader that is started at an epoch and a step gives the bytes that one gives which has read up
    to there, for any number of threads and any tier. After an error it raises that one again.

    Parameters
    ----------
    cache, plan
        What to read and in which order.
    device
        ``cpu``, or ``cuda`` with or without an index: where samples are drawn and batches arrive.
    dtype
        Of the images: float32, float16 or bfloat16.
    threads
        DALI's threads, and those that decompress where the cache is compressed.
    prefetch
        Batches in flight, and as many more whose volumes are being fetched.
    tier
        Where the volumes lie: ``disk``, ``device`` (loaded once as stored integers) or ``auto``.
    volumes
        Instead of a tier: volumes that are loaded already, which several readers may share. They
        are not closed with the reader.
    epoch, step
        The first step to read.
    fused
        False draws with DALI's operators on the CPU too, slowly: for tests.

    Raises
    ------
    InputError
        If the plan is empty or of another cache, or a number or type cannot be.
    """

    def __init__(
        self,
        cache: Cache,
        plan: Plan,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        threads: int = 2,
        prefetch: int = 2,
        tier: Tier = "disk",
        epoch: int = 0,
        step: int = 0,
        volumes: Volumes | None = None,
        fused: bool | None = None,
    ) -> None:
        check_start(plan, epoch, step)
        check_numbers(threads=threads, prefetch=prefetch)
        check_dtype(dtype)
        check_samples(cache, plan.samples)
        rows = plan.samples.rows
        self.plan = plan
        self.device = device = _with_index(device)
        self.dtype = dtype
        self._next = epoch, step
        self._in_flight: deque[tuple[Step, Any]] = deque()
        self._fused = device.type == "cpu" if fused is None else fused
        used = volumes or _loaded_volumes(cache, rows, tier, device, threads)
        on_gpu = device.type == "cuda" and isinstance(used, ResidentVolumes)
        self._feed = Feed(
            partial(prepare, plan, cache, used),
            steps=plan.steps,
            start=(epoch, step),
            ahead=prefetch,
        )
        # A reader that is dropped without being closed takes its threads with it.
        self._end = weakref.finalize(self, _end, self._feed, None if volumes else used)
        try:
            self._pipeline: Any = build_pipeline(
                _hand_over(self._feed, self._in_flight, device if on_gpu else None),
                GraphConfig(
                    crop=plan.crop,
                    augment=plan.augment,
                    stored_dtype=stored_dtype(cache, rows),
                    dtype=dtype if self._fused else torch.float32,
                    device="gpu" if device.type == "cuda" else "cpu",
                    device_id=device.index or 0,
                    views=plan.batch * plan.samples.row.shape[1],
                    threads=threads,
                    prefetch=prefetch,
                    fused=self._fused,
                    picked=on_gpu,
                ),
            )
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and let go of the memory; batches that were given stay valid."""
        self._pipeline = None
        self._in_flight.clear()
        self._end()

    @property
    def next_step(self) -> tuple[int, int]:
        """The (epoch, step) that comes next: what a run needs to go on in mid-epoch."""
        return self._next

    def epoch(self) -> Iterator[Batch]:
        """Yield the batches that are left of the current epoch; all of it, if none was read."""
        epoch = self._next[0]
        while self._next[0] == epoch:
            yield self._read()

    def _read(self) -> Batch:
        self._feed.check()
        try:
            batch = self._next_batch()
        except BaseException as error:
            # A step is lost, whatever was raised: what came next would be another than it says.
            self._feed.fail(error)
            self._end()
            raise
        epoch, number = self._next
        self._next = (epoch, number + 1) if number + 1 < self.plan.steps else (epoch + 1, 0)
        return batch

    def _next_batch(self) -> Batch:
        (images,) = self._run()
        step, _ = self._in_flight.popleft()
        return make_batch(
            # DALI's memory, without a copy where the type is right.
            as_drawn(from_dlpack(images.as_tensor()), self.dtype),
            step.requests,
            self.plan.samples,
            device=self.device,
            mix=step.mix,
        )

    def _run(self) -> Any:
        """Run the pipeline a step further, ordered with the stream that will read the images."""
        if self.device.type != "cuda":
            return self._pipeline.run(None)
        # DALI asks torch for the stream of the current device, whichever this reader's is.
        with torch.cuda.device(self.device):
            return self._pipeline.run(torch.cuda.current_stream())


def _with_index(device: torch.device) -> torch.device:
    """Return a device with its number: ``cuda`` alone is the current one."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _hand_over(
    feed: Feed, in_flight: deque[tuple[Step, Any]], gather_on: torch.device | None
) -> Source:
    """Return what DALI asks for the next step, in the thread that reads.

    DALI takes no copy of arrays on the host: they stay referenced until their batch comes out. Of
    a list of tensors on a GPU it takes one, in the order of torch's stream, so that their memory
    may be given to others afterwards. The source holds no reference to the reader, so that a reader
    that is dropped is gone.
    """

    def source(_: Any) -> tuple[Any, ...]:
        step = feed.next()
        volumes = step.volumes if gather_on is None else _picked_on(gather_on, step)
        in_flight.append((step, volumes))
        return volumes, step.slices, step.matrices, step.numbers, step.keys

    return source


def _picked_on(device: torch.device, step: Step) -> list[torch.Tensor]:
    """Gather the slices of each view on the device; one that is not there is any other."""
    indices = torch.from_numpy(np.maximum(step.slices, 0)).to(device, non_blocking=True)
    return [
        volume.index_select(0, slices).unsqueeze(3)
        for volume, slices in zip(step.volumes, indices, strict=True)
    ]


def _loaded_volumes(
    cache: Cache, rows: list[int], tier: Tier, device: torch.device, threads: int
) -> Volumes:
    """Open the volumes of a tier and load them; log which tier it is, and why."""
    chosen, why = choose_tier(tier, cache, rows, device)
    _log.info(why)
    volumes = open_volumes(cache, rows, tier=chosen, device=device, threads=threads)
    for _ in volumes.load():
        pass
    return volumes


def _end(feed: Feed, volumes: Volumes | None) -> None:
    """Stop what a reader runs; volumes only if they are its own."""
    feed.close()
    if volumes is not None:
        volumes.close()
