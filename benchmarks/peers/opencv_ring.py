"""The OpenCV DataLoader of `lumbar bench` with its batches in a ring of shared memory.

To map and clear fresh pages takes as long as to warp, so memory is used again once its batch has
been left behind. `open_fours` also interleaves four slices to one picture of four channels, for
which OpenCV computes places and weights once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import cv2
import numpy as np
import torch
from contest.contest import Contest
from torch.utils.data import Dataset, get_worker_info

from lumbar.bench.loaders.dataloader import PREFETCH, Steps, open_dataloader
from lumbar.bench.loaders.opencv_crops import (
    FLAGS,
    PlanSteps,
    WarpPictures,
    scratch,
    start_worker,
    warp_each_slice,
)
from lumbar.cache.store import Cache

CHANNELS = 4
"""OpenCV warps up to four channels at once."""


class Ring:
    """Batches in shared memory, some for each worker, which fills one after the other.

    When a worker begins a batch, the one before the `PREFETCH` last ones has been given; the one
    whose place it takes was given before that. So a batch is valid until its worker's next but one.
    """

    def __init__(self, contest: Contest, workers: int) -> None:
        crop = contest.crop
        self.each = PREFETCH + 2
        shape = (contest.batch, crop.slices, crop.height, crop.width)
        self.batches = torch.empty(max(1, workers) * self.each, *shape).share_memory_()
        self.filled = 0

    def next_place(self) -> int:
        """Return where the worker that asks writes its next batch."""
        worker = get_worker_info()
        self.filled += 1
        return (worker.id if worker else 0) * self.each + self.filled % self.each


class RingSteps(Dataset[int]):
    """The batches of a plan by (epoch, step): the place of each in a ring."""

    def __init__(self, steps: PlanSteps, ring: Ring) -> None:
        self.steps, self.ring = steps, ring

    def __getitem__(self, place: tuple[int, int]) -> int:
        """Return where in the ring a batch is."""
        number = self.ring.next_place()
        self.steps.fill(self.ring.batches[number].numpy(), self.steps.views(place))
        return number


def warp_four_slices(
    image_nhw: np.ndarray,
    slices: Sequence[np.ndarray],
    matrix: np.ndarray,
    gain: float,
    offset: float,
) -> None:
    """Warp four slices at a time, as the channels of one picture."""
    size = image_nhw.shape[:0:-1]
    stored = scratch("stored", (*slices[0].shape, CHANNELS), slices[0].dtype.name)
    picture = scratch("picture", stored.shape)
    warped = scratch("warped", (*image_nhw.shape[1:], CHANNELS))
    for first in range(0, len(slices), CHANNELS):
        taken = slices[first : first + CHANNELS]
        places = image_nhw[first : first + len(taken)]
        filled = [*taken, *taken[-1:] * (CHANNELS - len(taken))]
        cv2.merge(filled, dst=stored)
        np.copyto(picture, stored)
        cv2.warpAffine(picture, matrix, size, dst=warped, flags=FLAGS)
        for channel, place in enumerate(places):
            cv2.extractChannel(warped, channel, dst=place)
            cv2.addWeighted(place, gain, place, 0, offset, dst=place)


@contextmanager
def open_ring(
    contest: Contest, workers: int, *, warp: WarpPictures
) -> Iterator[Iterator[torch.Tensor]]:
    """Open the loader as an endless stream of images (b, d, 1, h, w)."""
    ring = Ring(contest, workers)
    steps = PlanSteps(contest.root, contest.plan(Cache(contest.root)), warp=warp)
    with open_dataloader(
        RingSteps(steps, ring),
        workers,
        start_worker=start_worker,
        batch_size=None,
        sampler=Steps(steps.plan.steps),
    ) as numbers:
        images = (ring.batches[number].unsqueeze(2) for number in numbers)
        # A copy ends before its memory is filled again.
        yield (image.to(contest.device).to(contest.dtype) for image in images)


open_reused = partial(open_ring, warp=warp_each_slice)
open_fours = partial(open_ring, warp=warp_four_slices)
