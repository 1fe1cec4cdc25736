"""What all contestants do: the same series, the same box, the same augmentation, the same batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import DataLoader

from lumbar.cache.store import Cache
from lumbar.pipeline.notebook_reader import NotebookReader
from lumbar.train.augment import AugmentConfig
from lumbar.train.geometry import CropConfig
from lumbar.train.plan import Plan
from lumbar.train.samples import Samples

PREFETCH = 2
"""Batches in flight a worker, torch's default, and of the reader, its default."""


@dataclass(frozen=True, slots=True)
class Contest:
    """The task; it is handed to worker processes and to fresh ones, so it can be pickled.

    ``decode`` reads the series from its DICOM files, where there are any.
    """

    root: Path
    rows: list[int]
    decode: NotebookReader | None = None
    crop: CropConfig = field(
        default_factory=lambda: CropConfig(slices=20, height=256, width=256, pixel_mm=1.0)
    )
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            rotation_degrees=8, scale=0.1, shift_mm=8, brightness=0.1, contrast=0.2, noise=0
        )
    )
    batch: int = 8
    seed: int = 0

    def of_rows(self, rows: list[int]) -> Contest:
        """Return the contest over other rows."""
        return replace(self, rows=rows)

    def plan(self, cache: Cache) -> Plan:
        """Return the plan whose requests lumbar, OpenCV and the DICOM reader execute."""
        return Plan(
            Samples.of_series(cache, self.rows),
            self.crop,
            self.augment,
            batch=self.batch,
            shuffle=True,
            seed=self.seed,
        )


@contextmanager
def open_loader(
    dataset: Any,
    workers: int,
    *,
    start_worker: Callable[[int], None],
    loader: type[DataLoader[Any]] = DataLoader,
    **options: Any,
) -> Iterator[Iterator[torch.Tensor]]:
    """Open a DataLoader as an endless stream of batches; its processes end with it.

    Workers are forked from a server that has run nothing: forking this process may deadlock, for
    DALI, OpenCV and torch run threads in it. They live as long as the stream.
    """
    with warnings.catch_warnings():
        # More workers than cores are tried on purpose.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        opened = loader(
            dataset,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context="forkserver" if workers else None,
            worker_init_fn=start_worker,
            **options,
        )
        # The loader's iterator lives in the generator alone, so closing that ends the workers.
        stream = (batch for batch in opened)
    with closing(stream) as batches:
        yield batches


@dataclass(frozen=True, slots=True)
class Steps:
    """The (epoch, step) of a plan, epoch after epoch, as a DataLoader's sampler."""

    steps: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = 0
        while True:
            yield from ((epoch, step) for step in range(self.steps))
            epoch += 1


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Lists of ``batch`` indices into a data set, each once an epoch, as a batch sampler."""

    dataset: Sized
    batch: int
    seed: int

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self.seed)
        waiting: list[int] = []
        while True:
            while len(waiting) < self.batch:
                waiting += rng.permutation(len(self.dataset)).tolist()
            yield waiting[: self.batch]
            del waiting[: self.batch]


def empty_batch(shape: tuple[int, ...]) -> torch.Tensor:
    """Return uninitialised float32 memory; in a worker process shared, so that none copies it.

    It is what `torch.utils.data.default_collate` does.
    """
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape)
    storage = torch.empty(0)._typed_storage()._new_shared(math.prod(shape))
    return torch.empty(0).new(storage).view(shape)


def stack_padded(images: list[torch.Tensor], slices: int) -> torch.Tensor:
    """Stack images (d, h, w) of up to ``slices`` slices to (b, slices, 1, h, w), filled with 0."""
    batch = empty_batch((len(images), slices, 1, *images[0].shape[1:]))
    for image, place in zip(images, batch, strict=True):
        place[: len(image), 0] = image
        place[len(image) :] = 0
    return batch


def read_at_pixel_size(cache: Cache, row: int, pixel_mm: float) -> Float32[np.ndarray, "d h w"]:
    """Return a volume as float32, 0 to 1, its slices scaled to square pixels of ``pixel_mm``.

    The libraries' preprocessing does so once, ahead of training; all begin with its result.
    """
    entry = cache.series.row(row, named=True)
    height = round(entry["height"] * entry["spacing_h_mm"] / pixel_mm)
    width = round(entry["width"] * entry["spacing_w_mm"] / pixel_mm)
    volume_dhw = np.empty((entry["depth"], height, width), np.float32)
    for stored, scaled in zip(cache.volume(row), volume_dhw, strict=True):
        value = stored.astype(np.float32) * np.float32(entry["scale"]) + np.float32(entry["offset"])
        cv2.resize(value, (width, height), dst=scaled, interpolation=cv2.INTER_LINEAR)
    return volume_dhw
