"""The reader: executes a plan with DALI and yields batches on the device."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from nvidia.dali.plugin.pytorch import feed_ndarray, to_torch_type
from torch.utils.dlpack import from_dlpack

from lumbar.cache.store import Cache
from lumbar.train.plan.plan import Plan
from lumbar.train.reader.batch import Batch, make_batch
from lumbar.train.reader.checks import (
    check_dtype,
    check_numbers,
    check_samples,
    check_start,
    stored_dtype,
)
from lumbar.train.reader.dali_numba import as_rendered
from lumbar.train.reader.dali_pipeline import GraphConfig, StepSource, build_pipeline
from lumbar.train.reader.placement import Draw, Tier, choose_placement
from lumbar.train.reader.prefetch import Prefetcher, PreparedStep, prepare_step
from lumbar.train.reader.verify_pixels import check_pixels
from lumbar.train.reader.volumes import ResidentVolumes, Volumes, open_volumes

_log = logging.getLogger(__name__)


class Reader:
    """Streams the batches of a plan, epoch after epoch, without a gap between epochs.

    The bytes of a step do not depend on where the reader started, the number of threads or the
    tier. After an error every call raises it again.

    Parameters
    ----------
    cache, plan
        What to read and in which order.
    device
        ``cpu``, or ``cuda`` with or without an index: where batches lie.
    dtype
        Of the images: float32, float16 or bfloat16.
    threads
        DALI's threads, and as many that decompress a compressed cache.
    prefetch
        Batches in DALI's pipeline, and as many more whose volumes are fetched.
    tier
        Where the volumes lie: ``disk``, ``device`` (loaded once as stored integers) or ``auto``.
    draw
        Where pixels are rendered. ``cpu``: by the compiled pass on the host; DALI copies batches to
        the device ahead of time. ``gpu``: by DALI's operators on the device (on the device ``cpu``
        slowly, for tests). ``auto``: see `lumbar.train.reader.placement.choose_placement`.
    volumes
        Loaded volumes instead of a tier. Several readers may share them; they are not closed with
        the reader.
    epoch, step
        The first step to read.
    verified_steps
        How many of the first steps are compared with the compiled pass on the host; by default one
        on a GPU, none on the CPU.

    Raises
    ------
    InputError
        If the plan is empty or of another cache, or a number or type is out of range.
    WrongPixelsError
        If a verified batch has wrong pixels.
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
        draw: Draw = "auto",
        volumes: Volumes | None = None,
        verified_steps: int | None = None,
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
        self._in_flight: deque[tuple[PreparedStep, Any]] = deque()
        first = 1 if device.type == "cuda" else 0
        self._unverified = first if verified_steps is None else verified_steps
        used, self._draw = _placed_volumes(
            cache, plan, device, tier=tier, draw=draw, threads=threads, volumes=volumes
        )
        resident = used if isinstance(used, ResidentVolumes) and used.on_gpu else None
        self._feed = Prefetcher(
            partial(prepare_step, plan, cache, used),
            steps=plan.steps,
            start=(epoch, step),
            ahead=prefetch,
        )
        # Ends the threads of a reader that is dropped without being closed.
        self._end = weakref.finalize(self, _end, self._feed, None if volumes else used)
        try:
            self._pipeline: Any = build_pipeline(
                _step_source(self._feed, self._in_flight, resident),
                GraphConfig(
                    crop=plan.crop,
                    augment=plan.augment,
                    stored_dtype=stored_dtype(cache, rows),
                    dtype=dtype if self._draw == "cpu" else torch.float32,
                    device="gpu" if device.type == "cuda" else "cpu",
                    device_id=device.index or 0,
                    views=plan.batch * plan.samples.row.shape[1],
                    threads=threads,
                    prefetch=prefetch,
                    draw=self._draw,
                    picked=resident is not None,
                ),
            )
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and free the memory; batches stay valid."""
        self._pipeline = None
        self._in_flight.clear()
        self._end()

    @property
    def next_step(self) -> tuple[int, int]:
        """The (epoch, step) that comes next, to resume at."""
        return self._next

    def epoch(self) -> Iterator[Batch]:
        """Yield the remaining batches of the current epoch."""
        epoch = self._next[0]
        while self._next[0] == epoch:
            yield self._read()

    def _read(self) -> Batch:
        self._feed.check()
        try:
            batch = self._next_batch()
        except BaseException as error:
            # After a failure the step numbers no longer match, so refuse to go on.
            self._feed.fail(error)
            self._end()
            raise
        epoch, number = self._next
        self._next = (epoch, number + 1) if number + 1 < self.plan.steps else (epoch + 1, 0)
        return batch

    def _next_batch(self) -> Batch:
        images = self._images()
        step, _ = self._in_flight.popleft()
        if self._unverified:
            check_pixels(images, step, augment=self.plan.augment, draw=self._draw)
            self._unverified -= 1
        return make_batch(
            images, step.requests, self.plan.samples, device=self.device, mix=step.mix
        )

    def _images(self) -> torch.Tensor:
        """Run one step of the pipeline and return its images in torch's memory.

        On the CPU it is DALI's memory, without a copy where the type is right.
        """
        (rendered,) = self._run()
        dense = rendered.as_tensor()
        if self.device.type != "cuda":
            return as_rendered(from_dlpack(dense), self.dtype)
        # Not by DLPack: DALI synchronises the whole device before it frees the memory.
        kind = to_torch_type[dense.dtype]
        images = torch.empty(dense.shape(), dtype=kind, device=self.device)
        feed_ndarray(dense, images, cuda_stream=torch.cuda.current_stream(self.device))
        return as_rendered(images, self.dtype)

    def _run(self) -> Any:
        """Run one step of the pipeline, ordered with the stream that reads the images."""
        if self.device.type != "cuda":
            return self._pipeline.run(None)
        # DALI takes torch's stream of the current device, so make this reader's current.
        with torch.cuda.device(self.device):
            return self._pipeline.run(torch.cuda.current_stream())


def _with_index(device: torch.device) -> torch.device:
    """Return a device with its index; ``cuda`` is the current one."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _step_source(
    feed: Prefetcher, in_flight: deque[tuple[PreparedStep, Any]], resident: ResidentVolumes | None
) -> StepSource:
    """Return the function that gives DALI the next step, in the thread that reads.

    DALI does not copy arrays on the host, so ``in_flight`` keeps them until their batch comes out.
    The function has no reference to the reader, so that a dropped reader can be collected.
    """

    def source(_: Any) -> tuple[Any, ...]:
        step = feed.next()
        rows = [view.row for request in step.requests for view in request.views]
        volumes = step.volumes if resident is None else resident.pick(rows, step.slices)
        in_flight.append((step, volumes))
        return volumes, step.slices, step.matrices, step.numbers, step.keys

    return source


def _placed_volumes(
    cache: Cache,
    plan: Plan,
    device: torch.device,
    *,
    tier: Tier,
    draw: Draw,
    threads: int,
    volumes: Volumes | None,
) -> tuple[Volumes, Literal["cpu", "gpu"]]:
    """Return the loaded volumes, and where pixels are rendered; log why."""
    rows = plan.samples.rows
    if volumes is not None:
        tier = "device" if isinstance(volumes, ResidentVolumes) else "disk"
    operators = draw == "gpu" and device.type == "cpu"
    placement = choose_placement(
        cache,
        rows,
        device,
        tier=tier,
        draw="auto" if operators else draw,
        threads=threads,
        augment=plan.augment,
    )
    if volumes is None:
        _log.info(placement.why)
        volumes = open_volumes(cache, rows, tier=placement.tier, device=device, threads=threads)
        for _ in volumes.load():
            pass
    return volumes, "gpu" if operators else placement.draw


def _end(feed: Prefetcher, volumes: Volumes | None) -> None:
    """Stop a reader's threads, and close volumes if they are its own."""
    feed.close()
    if volumes is not None:
        volumes.close()
