"""The baselines' data set: the steps of a plan, each cut to one batch with OpenCV.

A whole batch is one item, written where the DataLoader needs it: in a worker process that is shared
memory. Slices are warped as float32, which OpenCV does as fast as uint8 and more exactly.

Worker processes import this module and what it imports, and nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import Dataset

from lumbar.bench.loaders.dataloader import empty_batch
from lumbar.cache.store import Cache
from lumbar.cache.volumes import Stored
from lumbar.train.plan import pixel_params as places
from lumbar.train.plan.augment import Intensity, for_stored
from lumbar.train.plan.crop import Matrix
from lumbar.train.plan.plan import Plan
from lumbar.train.plan.slices import compacted
from lumbar.train.plan.view import View

Volume = Stored | Float32[np.ndarray, "_ h w"]

DecodeSeries = Callable[[str, str, tuple[int, int]], Float32[np.ndarray, "d h w"]]
"""Decodes a series on the fly: study id, series id, (height, width) -> values from 0 to 1.

It goes to worker processes, so it has to be picklable.
"""

WarpPictures = Callable[[np.ndarray, Sequence[np.ndarray], Matrix, float, float], None]
"""Fills (n, h, w) from n stored slices: warps each, multiplies by a gain, adds an offset."""

FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def warp_each_slice(
    image_nhw: Float32[np.ndarray, "n h w"],
    slices: Sequence[np.ndarray],
    matrix: Matrix,
    gain: float,
    offset: float,
) -> None:
    """Warp slice by slice."""
    size = image_nhw.shape[:0:-1]
    for stored, image in zip(slices, image_nhw, strict=True):
        picture = scratch("picture", stored.shape)
        np.copyto(picture, stored)
        cv2.warpAffine(picture, matrix, size, dst=image, flags=FLAGS)
        cv2.addWeighted(image, gain, image, 0, offset, dst=image)


@lru_cache(maxsize=16)
def scratch(_name: str, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return an array that is used again and again, one for each process."""
    return np.empty(shape, dtype)


class PlanSteps(Dataset[torch.Tensor]):
    """The batches of a plan by (epoch, step), from the cache or decoded anew for every sample.

    Parameters
    ----------
    root
        The cache's folder; each process opens it for itself.
    plan
        Whose requests are cut.
    decode
        Decodes the series from its DICOM files; None reads the cache.
    warp
        Warps the slices of a view.
    """

    def __init__(
        self,
        root: Path,
        plan: Plan,
        decode: DecodeSeries | None = None,
        *,
        warp: WarpPictures = warp_each_slice,
    ) -> None:
        self.root, self.plan, self.decode, self.warp = root, plan, decode, warp

    def __getitem__(self, place: tuple[int, int]) -> Float32[torch.Tensor, "v d h w"]:
        """Return the views of a step, the samples one after the other."""
        views = self.views(place)
        crop = self.plan.crop
        batch = empty_batch((len(views), len(views[0].slices), crop.height, crop.width))
        self.fill(batch.numpy(), views)
        return batch

    def views(self, place: tuple[int, int]) -> list[View]:
        """Return the views of a step (epoch, step)."""
        return [view for request in self.plan.requests(*place) for view in request.views]

    def fill(self, images_vdhw: Float32[np.ndarray, "v d h w"], views: Sequence[View]) -> None:
        """Write the crop of each view."""
        for image_dhw, view in zip(images_vdhw, views, strict=True):
            cut_crop(image_dhw, *self._open(view), warp=self.warp)

    @cached_property
    def _cache(self) -> Cache:
        """The cache, opened by the process that reads it."""
        return Cache(self.root)

    def _open(self, view: View) -> tuple[Volume, View, float, float]:
        """Return a volume, the view into it, scale and offset.

        Of a compressed volume only the view's slices are read, and the view is moved to them.
        """
        cache = self._cache
        if self.decode is not None:
            entry = cache.series.row(view.row, named=True)
            size_hw = entry["height"], entry["width"]
            return self.decode(entry["study_id"], entry["series_id"], size_hw), view, 1.0, 0.0
        if cache.profile == "fast":
            return cache.volume(view.row), view, *cache.scale_and_offset(view.row)
        picked, slices = compacted(view.slices)
        moved = replace(view, slices=slices)
        return cache.slices(view.row, picked), moved, *cache.scale_and_offset(view.row)


def start_worker(_: int) -> None:
    """Use one thread in each worker: OpenCV's own would compete for the cores."""
    cv2.setNumThreads(0)


def cut_crop(
    image_dhw: Float32[np.ndarray, "cd ch cw"],
    volume_dhw: Volume,
    view: View,
    scale: float = 1.0,
    offset: float = 0.0,
    *,
    warp: WarpPictures = warp_each_slice,
) -> None:
    """Fill a crop: pick the slices of a view, warp each, and apply the view's augmentation.

    A slice beyond the volume is its last one: a decoder may leave files out or take more.
    """
    numbers, intensity = for_stored(view.numbers, scale, offset), view.intensity
    gain, shift = float(numbers[places.GAIN]), float(numbers[places.OFFSET])
    last = len(volume_dhw) - 1
    slices = [volume_dhw[min(place, last)] for place in view.slices.tolist() if place >= 0]
    present, absent = image_dhw[: len(slices)], image_dhw[len(slices) :]
    if intensity.grid_hw == image_dhw.shape[1:]:
        warp(present, slices, view.matrix, gain, shift)
    else:
        coarse = np.empty((len(slices), *intensity.grid_hw), np.float32)
        warp(coarse, slices, view.matrix, gain, shift)
        for picture, enlarged in zip(coarse, present, strict=True):
            size = enlarged.shape[::-1]
            cv2.resize(picture, size, dst=enlarged, interpolation=cv2.INTER_LINEAR)
    absent[:] = 0
    for picture in present:
        _change_picture(picture, intensity)
    if intensity.noise > 0:
        _add_noise(present, intensity)
    d0, h0, w0, d1, h1, w1 = intensity.cutout_dhw
    image_dhw[d0:d1, h0:h1, w0:w1] = 0


def _change_picture(picture: Float32[np.ndarray, "ch cw"], intensity: Intensity) -> None:
    """Blur, bias field and gamma of one slice; most samples have few of them or none."""
    height, width = picture.shape
    if intensity.blur_sigma > 0:
        side = 2 * math.ceil(3 * intensity.blur_sigma) + 1
        cv2.GaussianBlur(picture, (side, side), intensity.blur_sigma, dst=picture)
    if any(intensity.bias):
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        a, b, c, d, e = intensity.bias
        picture[:] = picture * np.exp(a * x + b * y + c * x * x + d * x * y + e * y * y)
    if intensity.gamma != 1:
        picture[:] = np.maximum(picture, 0) ** intensity.gamma


def _add_noise(image_dhw: Float32[np.ndarray, "d h w"], intensity: Intensity) -> None:
    """Add normal noise in place, drawn by OpenCV, at five times NumPy's speed."""
    depth, height, width = image_dhw.shape
    noise = np.empty((depth * height, width), np.float32)
    cv2.setRNGSeed(intensity.key[0] >> 1)
    cv2.randn(noise, np.zeros(1), np.array([intensity.noise]))
    image_dhw += noise.reshape(image_dhw.shape)
