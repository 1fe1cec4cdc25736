"""A torch DataLoader on the cache, written by hand with OpenCV, in three ways.

All execute the requests of lumbar's plan, a whole batch a call: volumes are memory maps, opened
once a worker, slices are warped as float32, which OpenCV does as fast as uint8 and more exactly,
and results are written where the batch lies, which is shared memory in a worker.

`open_plain` warps slice by slice into fresh memory, as torch's own collation does. To map and clear
fresh pages takes as long as to warp, so `open_reused` writes to a `Ring`: memory that is used again
once its batch has been left behind. `open_fours` also interleaves four slices to one picture of
four channels, for which OpenCV computes places and weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from lumbar.bench.loaders.dataloader import PREFETCH, Steps, empty_batch, open_dataloader
from lumbar.bench.loaders.opencv_crops import start_worker
from lumbar.cache.store import Cache
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.view import View
from peers.contest import Contest

FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
CHANNELS = 4
"""OpenCV warps up to four channels at once."""

WarpView = Callable[[np.ndarray, np.ndarray, View, float, float], None]
"""Fills (d, h, w) from a stored volume: warps the view's slices, multiplies, adds."""


class Ring:
    """Batches in shared memory, some for each worker, which fills one after the other.

    When a worker begins a batch, the one before the `PREFETCH` last ones has been given; the one
    whose place it takes was given before that. So a batch is valid until its worker's next but one.
    """

    def __init__(self, contest: Contest, workers: int) -> None:
        crop = contest.crop
        self.each = PREFETCH + 2
        shape = (contest.batch, crop.slices, 1, crop.height, crop.width)
        self.batches = torch.empty(max(1, workers) * self.each, *shape).share_memory_()
        self.filled = 0

    def next_place(self) -> int:
        """Return where the worker that asks writes its next batch."""
        worker = get_worker_info()
        self.filled += 1
        return (worker.id if worker else 0) * self.each + self.filled % self.each


class OpenCVBatches(Dataset[Any]):
    """The batches of a plan by (epoch, step): fresh ones, or places in a ring."""

    def __init__(self, contest: Contest, warp: WarpView, ring: Ring | None) -> None:
        self.contest = contest
        self.warp = warp
        self.ring = ring

    @cached_property
    def _opened(self) -> tuple[Cache, Plan, list[float], list[float]]:
        """Open the cache where it is read, once a process."""
        cache = Cache(self.contest.root)
        table = cache.series
        return cache, self.contest.plan(cache), table["scale"].to_list(), table["offset"].to_list()

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor | int:
        """Return a batch (b, d, 1, h, w), or where in the ring it is."""
        if self.ring is not None:
            number = self.ring.next_place()
            self._fill(self.ring.batches[number], place)
            return number
        crop = self.contest.crop
        batch = empty_batch((self.contest.batch, crop.slices, 1, crop.height, crop.width))
        self._fill(batch, place)
        return batch

    def _fill(self, batch: torch.Tensor, place: tuple[int, int]) -> None:
        cache, plan, scale, offset = self._opened
        for request, image in zip(plan.requests(*place), batch.numpy()[:, :, 0], strict=True):
            (view,) = request.views
            gain = scale[view.row] * view.intensity.gain
            shift = offset[view.row] * view.intensity.gain + view.intensity.offset
            self.warp(image, cache.volume(view.row), view, gain, shift)


def warp_each_slice(
    image_dhw: np.ndarray, volume_dhw: np.ndarray, view: View, gain: float, offset: float
) -> None:
    """Warp slice by slice."""
    size = image_dhw.shape[:0:-1]
    picture = scratch("picture", volume_dhw.shape[1:])
    slices = view.slices[view.slices >= 0].tolist()
    for source, image in zip(slices, image_dhw, strict=False):
        np.copyto(picture, volume_dhw[source])
        cv2.warpAffine(picture, view.matrix, size, dst=image, flags=FLAGS)
        cv2.addWeighted(image, gain, image, 0, offset, dst=image)
    image_dhw[len(slices) :] = 0


def warp_four_slices(
    image_dhw: np.ndarray, volume_dhw: np.ndarray, view: View, gain: float, offset: float
) -> None:
    """Warp four slices at a time, as the channels of one picture."""
    size = image_dhw.shape[:0:-1]
    stored = scratch("stored", (*volume_dhw.shape[1:], CHANNELS), volume_dhw.dtype.name)
    picture = scratch("picture", stored.shape)
    warped = scratch("warped", (*image_dhw.shape[1:], CHANNELS))
    slices = view.slices[view.slices >= 0].tolist()
    for first in range(0, len(slices), CHANNELS):
        taken = slices[first : first + CHANNELS]
        places = image_dhw[first : first + len(taken)]
        filled = taken + taken[-1:] * (CHANNELS - len(taken))
        cv2.merge([volume_dhw[source] for source in filled], dst=stored)
        np.copyto(picture, stored)
        cv2.warpAffine(picture, view.matrix, size, dst=warped, flags=FLAGS)
        for channel, place in enumerate(places):
            cv2.extractChannel(warped, channel, dst=place)
            cv2.addWeighted(place, gain, place, 0, offset, dst=place)
    image_dhw[len(slices) :] = 0


@lru_cache(maxsize=16)
def scratch(_name: str, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return an array that is used again and again, one for each process."""
    return np.empty(shape, dtype)


@contextmanager
def open_batches(
    contest: Contest, workers: int, *, warp: WarpView, reuse: bool, pin_memory: bool = False
) -> Iterator[Iterator[torch.Tensor]]:
    """Open the loader as an endless stream of batches."""
    ring = Ring(contest, workers) if reuse else None
    with open_dataloader(
        OpenCVBatches(contest, warp, ring),
        workers,
        start_worker=start_worker,
        batch_size=None,
        sampler=Steps(contest.plan(Cache(contest.root)).steps),
        pin_memory=pin_memory and ring is None,
    ) as batches:
        yield batches if ring is None else map(ring.batches.__getitem__, batches)


open_plain = partial(open_batches, warp=warp_each_slice, reuse=False)
open_reused = partial(open_batches, warp=warp_each_slice, reuse=True)
open_fours = partial(open_batches, warp=warp_four_slices, reuse=True)
