"""batchgeneratorsv2, nnU-Net's augmentation, in a DataLoader; the volumes already in memory.

As nnU-Net does with volumes of thick slices, the slices are channels of a 2D picture ("dummy 2D").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import (
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from contest.contest import Contest
from torch.utils.data import Dataset

from lumbar.bench.loaders.dataloader import open_dataloader
from lumbar.cache.store import Cache
from lumbar.train.plan.slices import spread_slices
from peers.volumes import Shuffled, read_at_pixel_size, stack_padded


class AugmentedVolumes(Dataset[torch.Tensor]):
    """Volumes in memory, through the library's transforms."""

    def __init__(self, contest: Contest) -> None:
        cache = Cache(contest.root)
        crop, augment = contest.crop, contest.augment
        self.slices = crop.slices
        self.volumes = [
            torch.from_numpy(read_at_pixel_size(cache, row, crop.pixel_mm)) for row in contest.rows
        ]
        self.shift = augment.shift_mm / crop.pixel_mm
        turn = math.radians(augment.rotation_degrees)
        self.spatial = SpatialTransform(
            patch_size=(crop.height, crop.width),
            patch_center_dist_from_border=0,
            random_crop=True,
            p_rotation=1,
            rotation=(-turn, turn),
            p_scaling=1,
            scaling=(1 / (1 + augment.scale), 1 + augment.scale),
            p_synchronize_scaling_across_axes=1,
        )
        self.contrast = MultiplicativeBrightnessTransform(
            (1 - augment.contrast, 1 + augment.contrast), synchronize_channels=True
        )
        # With synchronised channels the library draws evenly between its two numbers.
        self.brightness = BrightnessAdditiveTransform(-augment.brightness, augment.brightness)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return (d, h, w)."""
        image = self.volumes[index]
        if len(image) > self.slices:
            image = image[spread_slices(len(image), self.slices, np.random.random())]  # noqa: NPY002
        # A patch's centre is drawn this far from the border: `shift` around the middle.
        height, width = image.shape[1:]
        reach = [height / 2 - self.shift, width / 2 - self.shift]
        self.spatial.patch_center_dist_from_border = reach
        sample = self.brightness(**self.contrast(**self.spatial(image=image)))
        augmented: torch.Tensor = sample["image"]
        return augmented


def start_worker(worker: int) -> None:
    """Give each worker its own random numbers: the library draws from NumPy's global ones."""
    np.random.seed(worker)  # noqa: NPY002


@contextmanager
def open_batches(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open the loader as an endless stream of batches."""
    with open_dataloader(
        AugmentedVolumes(contest),
        workers,
        start_worker=start_worker,
        batch_sampler=Shuffled(len(contest.rows), contest.batch, contest.seed),
        collate_fn=partial(stack_padded, slices=contest.crop.slices),
    ) as batches:
        yield batches
