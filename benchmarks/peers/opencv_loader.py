"""A torch DataLoader on the cache, written by hand with OpenCV, in two ways.

Both execute the requests of lumbar's plan, a whole batch a call: volumes are memory maps, opened
once a worker; slices are warped as float32, which OpenCV does faster than uint8 and more exactly;
results are written where the batch lies, which is shared memory in a worker. `warp_each_slice` is
the plain way. `warp_four_slices` interleaves four slices to one picture of four channels, so that
OpenCV computes places and weights once for four: half as fast again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from lumbar.cache.store import Cache
from lumbar.train.plan import Plan
from lumbar.train.views import View
from peers.contest import Contest, Steps, empty_batch, open_loader

FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
CHANNELS = 4
"""OpenCV warps up to four channels at once."""

WarpView = Callable[[np.ndarray, np.ndarray, View, float, float], None]
"""Fills (d, h, w) from a stored volume: warps the view's slices, multiplies, adds."""


class OpenCVBatches(Dataset[torch.Tensor]):
    """The batches of a plan by (epoch, step)."""

    def __init__(self, contest: Contest, warp: WarpView) -> None:
        self.contest = contest
        self.warp = warp

    @cached_property
    def _opened(self) -> tuple[Cache, Plan, Any, Any]:
        """Open the cache where it is read, once a process."""
        cache = Cache(self.contest.root)
        table = cache.series
        return cache, self.contest.plan(cache), table["scale"].to_list(), table["offset"].to_list()

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
        """Return a batch (b, d, 1, h, w)."""
        cache, plan, scale, offset = self._opened
        requests = plan.requests(*place)
        crop = plan.crop
        batch = empty_batch((len(requests), crop.slices, 1, crop.height, crop.width))
        for request, image in zip(requests, batch.numpy()[:, :, 0], strict=True):
            (view,) = request.views
            gain = scale[view.row] * view.intensity.gain
            shift = offset[view.row] * view.intensity.gain + view.intensity.offset
            self.warp(image, cache.volume(view.row), view, gain, shift)
        return batch


def warp_each_slice(
    image_dhw: np.ndarray, volume_dhw: np.ndarray, view: View, gain: float, offset: float
) -> None:
    """Warp slice by slice."""
    size = image_dhw.shape[:0:-1]
    picture = np.empty(volume_dhw.shape[1:], np.float32)
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
    slices = view.slices[view.slices >= 0].tolist()
    for first in range(0, len(slices), CHANNELS):
        taken = slices[first : first + CHANNELS]
        places = image_dhw[first : first + len(taken)]
        picture = cv2.merge([volume_dhw[source] for source in taken]).astype(np.float32)
        warped = cv2.warpAffine(picture, view.matrix, size, flags=FLAGS)
        cv2.split(warped, list(places)) if len(taken) > 1 else np.copyto(places[0], warped)
        for place in places:
            cv2.addWeighted(place, gain, place, 0, offset, dst=place)
    image_dhw[len(slices) :] = 0


def start_worker(_: int) -> None:
    """One thread a worker: OpenCV's own would fight over the cores."""
    cv2.setNumThreads(0)


@contextmanager
def open_batches(
    contest: Contest, workers: int, *, warp: WarpView, pin_memory: bool = False
) -> Iterator[Iterator[torch.Tensor]]:
    """Open the loader as an endless stream of batches."""
    with open_loader(
        OpenCVBatches(contest, warp),
        workers,
        start_worker=start_worker,
        batch_size=None,
        sampler=Steps(contest.plan(Cache(contest.root)).steps),
        pin_memory=pin_memory,
    ) as batches:
        yield batches


open_each_slice = partial(open_batches, warp=warp_each_slice)
open_four_slices = partial(open_batches, warp=warp_four_slices)
