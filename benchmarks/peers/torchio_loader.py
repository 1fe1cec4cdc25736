"""TorchIO: SubjectsDataset in SubjectsLoader, the subjects already in memory.

The slice axis is the last, as TorchIO has it; rotation, scale and shift are in-plane. It has no
transform for brightness and contrast, so one `Lambda` does both. Transforms work in place, since
the data set copies each subject already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import SimpleITK
import torch
import torchio
from contest.contest import Contest

from lumbar.bench.loaders.dataloader import open_dataloader
from lumbar.cache.store import Cache
from lumbar.train.plan.slices import spread_slices
from peers.volumes import Shuffled, read_at_pixel_size, stack_padded


class SpreadSlices:
    """Takes evenly spaced slices of a stack that is deeper than the box."""

    def __init__(self, slices: int) -> None:
        self.slices = slices

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return at most ``slices`` slices of an image (1, w, h, d)."""
        depth = image.shape[3]
        if depth <= self.slices:
            return image
        return image[..., spread_slices(depth, self.slices, float(torch.rand(1)))]


class GainAndOffset:
    """Multiplies by a random contrast and adds a random brightness."""

    def __init__(self, contrast: float, brightness: float) -> None:
        self.contrast = contrast
        self.brightness = brightness

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the changed image."""
        contrast, brightness = (2 * torch.rand(2) - 1).tolist()
        return image.mul_(1 + self.contrast * contrast).add_(self.brightness * brightness)


def read_subject(contest: Contest, cache: Cache, row: int) -> torchio.Subject:
    """Return a series as a subject whose image (1, w, h, d) is in memory."""
    volume_dhw = read_at_pixel_size(cache, row, contest.crop.pixel_mm)
    spacing = cache.series.row(row, named=True)["spacing_d_mm"]
    pixel = contest.crop.pixel_mm
    return torchio.Subject(
        image=torchio.ScalarImage(
            tensor=torch.from_numpy(volume_dhw.T)[None],
            affine=np.diag([pixel, pixel, spacing, 1.0]),
        )
    )


def transforms(contest: Contest) -> torchio.Compose:
    """Return the steps of a sample."""
    crop, augment = contest.crop, contest.augment
    zoom = (1 / (1 + augment.scale), 1 + augment.scale)
    turn = (-augment.rotation_degrees, augment.rotation_degrees)
    shift = (-augment.shift_mm, augment.shift_mm)
    return torchio.Compose(
        [
            torchio.Lambda(SpreadSlices(crop.slices), copy=False),
            torchio.RandomAffine(
                scales=(*zoom, *zoom, 1, 1),
                degrees=(0, 0, 0, 0, *turn),
                translation=(*shift, *shift, 0, 0),
                default_pad_value=0,
                copy=False,
            ),
            torchio.Lambda(GainAndOffset(augment.contrast, augment.brightness), copy=False),
            torchio.CropOrPad((crop.width, crop.height, None), copy=False),
        ],
        copy=False,
    )


def collate(subjects: list[torchio.Subject], slices: int) -> torch.Tensor:
    """Put images (1, w, h, d) together to (b, d, 1, h, w)."""
    images = [subject["image"].data[0].permute(2, 1, 0) for subject in subjects]
    return stack_padded(images, slices)


def start_worker(_: int) -> None:
    """One thread a worker: SimpleITK's own would fight over the cores."""
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


@contextmanager
def open_batches(contest: Contest, workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Open the loader as an endless stream of batches."""
    cache = Cache(contest.root)
    subjects = [read_subject(contest, cache, row) for row in contest.rows]
    with open_dataloader(
        torchio.SubjectsDataset(subjects, transforms(contest)),
        workers,
        start_worker=start_worker,
        loader=torchio.SubjectsLoader,
        batch_sampler=Shuffled(len(subjects), contest.batch, contest.seed),
        collate_fn=partial(collate, slices=contest.crop.slices),
    ) as batches:
        yield batches
