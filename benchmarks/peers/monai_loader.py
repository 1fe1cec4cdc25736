"""MONAI: what is the same every time is cached, on disk or in memory; its transforms do the rest.

The slices are channels of a 2D picture, so that one grid serves all of them: a 3D affine would
cost several times as much. Tensors carry no metadata, the grid is cached, and cached items are not
copied, as MONAI's guide to fast training says.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import monai.data.utils
import torch
from contest.contest import Contest
from monai.data import CacheDataset, PersistentDataset, get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAffine,
    Randomizable,
    RandScaleIntensity,
    RandShiftIntensity,
    Transform,
)

from lumbar.bench.loaders.dataloader import open_dataloader
from lumbar.cache.store import Cache
from lumbar.train.plan.slices import spread_slices
from peers.volumes import Shuffled, read_at_pixel_size, stack_padded


class ReadSeries(Transform):
    """Reads a series from the cache; the same every time, so MONAI caches it."""

    def __init__(self, contest: Contest) -> None:
        self.contest = contest

    def __call__(self, row: int) -> torch.Tensor:
        """Return (d, h, w) in pixels of the box."""
        cache = Cache(self.contest.root)
        return torch.from_numpy(read_at_pixel_size(cache, row, self.contest.crop.pixel_mm))


class SpreadSlices(Randomizable, Transform):
    """Takes evenly spaced slices of a stack that is deeper than the box."""

    def __init__(self, slices: int) -> None:
        self.slices = slices

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return at most ``slices`` slices."""
        if len(image) <= self.slices:
            return image
        return image[spread_slices(len(image), self.slices, self.R.random())]


def transforms(contest: Contest) -> Compose:
    """Return the steps of a sample, first those that are cached."""
    crop, augment = contest.crop, contest.augment
    zoom = (1 / (1 + augment.scale) - 1, augment.scale)
    shift = augment.shift_mm / crop.pixel_mm
    return Compose(
        [
            ReadSeries(contest),
            SpreadSlices(crop.slices),
            RandAffine(
                prob=1,
                rotate_range=math.radians(augment.rotation_degrees),
                scale_range=(zoom, zoom),
                translate_range=(shift, shift),
                spatial_size=(crop.height, crop.width),
                padding_mode="zeros",
                cache_grid=True,
            ),
            RandScaleIntensity(factors=augment.contrast, prob=1),
            RandShiftIntensity(offsets=augment.brightness, prob=1),
        ]
    )


def start_worker(worker: int) -> None:
    """Give each worker its own random numbers, and tensors without metadata."""
    set_track_meta(False)
    monai.data.utils.worker_init_fn(worker)


@contextmanager
def open_cache_dataset(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open CacheDataset as an endless stream of batches: all series in memory, as float32."""
    with _no_metadata():
        dataset = CacheDataset(
            contest.rows, transforms(contest), num_workers=None, progress=False, copy_cache=False
        )
        with _open(dataset, contest, workers) as batches:
            yield batches


@contextmanager
def open_persistent_dataset(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open PersistentDataset as an endless stream of batches: all series on disk, as tensors.

    They lie in a temporary folder, which is gone when the stream is closed.
    """
    with _no_metadata(), tempfile.TemporaryDirectory() as folder:
        dataset = PersistentDataset(contest.rows, transforms(contest), cache_dir=folder)
        for index in range(len(dataset)):
            dataset[index]
        with _open(dataset, contest, workers) as batches:
            yield batches


@contextmanager
def _no_metadata() -> Iterator[None]:
    """Let MONAI give plain tensors, as long as a stream is open."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _open(
    dataset: Any, contest: Contest, workers: int
) -> AbstractContextManager[Iterator[torch.Tensor]]:
    return open_dataloader(
        dataset,
        workers,
        start_worker=start_worker,
        batch_sampler=Shuffled(len(contest.rows), contest.batch, contest.seed),
        collate_fn=partial(stack_padded, slices=contest.crop.slices),
    )
