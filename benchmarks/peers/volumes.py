"""What the libraries' loaders share: scaled volumes, an endless order, batches of one depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float32

from lumbar.bench.loaders.dataloader import empty_batch
from lumbar.cache.store import Cache


def read_at_pixel_size(cache: Cache, row: int, pixel_mm: float) -> Float32[np.ndarray, "d h w"]:
    """Return a volume, 0 to 1, its slices scaled to square pixels of ``pixel_mm``.

    The libraries' preprocessing does so once, ahead of training; all begin with its result.
    """
    entry = cache.series.row(row, named=True)
    height = round(entry["height"] * entry["spacing_h_mm"] / pixel_mm)
    width = round(entry["width"] * entry["spacing_w_mm"] / pixel_mm)
    volume_dhw = np.empty((entry["depth"], height, width), np.float32)
    size_wh = volume_dhw.shape[:0:-1]
    for stored, scaled in zip(cache.volume(row), volume_dhw, strict=True):
        value = stored.astype(np.float32) * np.float32(entry["scale"]) + np.float32(entry["offset"])
        cv2.resize(value, size_wh, dst=scaled, interpolation=cv2.INTER_LINEAR)
    return volume_dhw


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Lists of ``batch`` of ``count`` indices, each once an epoch, as a batch sampler."""

    count: int
    batch: int
    seed: int

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self.seed)
        waiting: list[int] = []
        while True:
            while len(waiting) < self.batch:
                waiting += rng.permutation(self.count).tolist()
            yield waiting[: self.batch]
            del waiting[: self.batch]


def stack_padded(
    images: Sequence[Float32[torch.Tensor, "_ h w"]], slices: int
) -> Float32[torch.Tensor, "b {slices} 1 h w"]:
    """Stack images of up to ``slices`` slices, filled up with 0."""
    batch = empty_batch((len(images), slices, 1, *images[0].shape[1:]))
    for image, place in zip(images, batch, strict=True):
        place[: len(image), 0] = image
        place[len(image) :] = 0
    return batch
