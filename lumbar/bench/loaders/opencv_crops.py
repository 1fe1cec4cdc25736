"""The baselines' data sets: the requests of a plan, cut by hand with OpenCV, one at a time.

Worker processes import this module and what it imports, and nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import Dataset

from lumbar.cache.compressed_slices import read_slices
from lumbar.cache.format import Profile
from lumbar.cache.store import Cache
from lumbar.cache.volumes import Stored, map_volume
from lumbar.train.plan import pixel_params as places
from lumbar.train.plan.augment import Intensity, for_stored
from lumbar.train.plan.crop import CropConfig
from lumbar.train.plan.plan import Request
from lumbar.train.plan.slices import compacted
from lumbar.train.plan.view import View

DecodeSeries = Callable[[str, str, tuple[int, int]], Float32[np.ndarray, "d h w"]]
"""Decodes a series on the fly: study id, series id, (height, width) -> values from 0 to 1.

It goes to worker processes, so it has to be picklable.
"""

LoadedCrops = tuple[torch.Tensor, Request]


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """Where a cached series lies and what its numbers mean."""

    study_id: str
    series_id: str
    path: Path
    dtype: str
    shape: tuple[int, int, int]
    nbytes: int
    profile: Profile
    scale: float
    offset: float


def volume_files(cache: Cache, rows: Sequence[int]) -> dict[int, VolumeFile]:
    """Return the files of some rows of a cache's series table."""
    table = cache.series
    files = {}
    for row in rows:
        entry = table.row(row, named=True)
        files[row] = VolumeFile(
            study_id=entry["study_id"],
            series_id=entry["series_id"],
            path=cache.root / entry["path"],
            dtype=entry["dtype"],
            shape=(entry["depth"], entry["height"], entry["width"]),
            nbytes=entry["nbytes"],
            profile=cache.profile,
            scale=entry["scale"],
            offset=entry["offset"],
        )
    return files


@dataclass(frozen=True, slots=True)
class CachedCrops(Dataset[LoadedCrops]):
    """Crops from memory-mapped volumes: the usual good way with a torch DataLoader."""

    files: dict[int, VolumeFile]
    crop: CropConfig

    def __getitem__(self, request: Request) -> LoadedCrops:
        """Return the views (v, d, h, w) float32 of one sample."""
        crops = []
        for view in request.views:
            file = self.files[view.row]
            volume_dhw, picked = _open(file, view)
            crops.append(cut_crop(volume_dhw, picked, self.crop, file.scale, file.offset))
        return torch.from_numpy(np.stack(crops)), request


@dataclass(frozen=True, slots=True)
class DecodedCrops(Dataset[LoadedCrops]):
    """Crops from DICOM files that are decoded anew for every sample: the way it was."""

    files: dict[int, VolumeFile]
    crop: CropConfig
    decode: DecodeSeries

    def __getitem__(self, request: Request) -> LoadedCrops:
        """Return the views (v, d, h, w) float32 of one sample."""
        crops = []
        for view in request.views:
            file = self.files[view.row]
            volume_dhw = self.decode(file.study_id, file.series_id, file.shape[1:])
            crops.append(cut_crop(volume_dhw, view, self.crop))
        return torch.from_numpy(np.stack(crops)), request


def collate(samples: list[LoadedCrops]) -> tuple[torch.Tensor, list[Request]]:
    """Put the views of a step together, (v, d, h, w)."""
    images = torch.cat([image for image, _ in samples])
    return images, [request for _, request in samples]


def start_worker(_: int) -> None:
    """One thread a worker: OpenCV's own would fight over the cores."""
    cv2.setNumThreads(0)


def _open(file: VolumeFile, view: View) -> tuple[Stored, View]:
    """Map a volume; of a compressed one read the view's slices alone, in their order."""
    if file.profile == "fast":
        return map_volume(file.path, dtype=file.dtype, shape=file.shape), view
    picked, places = compacted(view.slices)
    volume_dhw = read_slices(
        file.path,
        dtype=file.dtype,
        shape=file.shape,
        nbytes=file.nbytes,
        slices=picked.tolist(),
    )
    return volume_dhw, replace(view, slices=places)


def cut_crop(
    volume_dhw: Stored | Float32[np.ndarray, "d h w"],
    view: View,
    crop: CropConfig,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Float32[np.ndarray, "cd ch cw"]:
    """Pick the slices of a view, warp each, and take the steps of its numbers, by OpenCV.

    A slice beyond the volume is its last one: a decoder may leave files out or take more.
    """
    numbers, intensity = for_stored(view.numbers, scale, offset), view.intensity
    image_dhw = np.zeros((len(view.slices), crop.height, crop.width), np.float32)
    present = np.flatnonzero(view.slices >= 0)
    grid = intensity.grid_hw[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for d in present:
        # Warping float32 is both faster and more exact than warping the stored integers.
        picture = volume_dhw[min(view.slices[d], len(volume_dhw) - 1)].astype(np.float32)
        warped = cv2.warpAffine(picture, view.matrix, grid, flags=flags)
        warped = warped * numbers[places.GAIN] + numbers[places.OFFSET]
        image_dhw[d] = _change_picture(warped, intensity, crop)
    if intensity.noise > 0:
        _add_noise(image_dhw[: len(present)], intensity)
    d0, h0, w0, d1, h1, w1 = intensity.cutout_dhw
    image_dhw[d0:d1, h0:h1, w0:w1] = 0
    return image_dhw


def _change_picture(
    picture: Float32[np.ndarray, "gh gw"], intensity: Intensity, crop: CropConfig
) -> Float32[np.ndarray, "ch cw"]:
    """Take the steps that a slice has for itself; most samples have few of them or none."""
    if picture.shape != (crop.height, crop.width):
        picture = cv2.resize(picture, (crop.width, crop.height), interpolation=cv2.INTER_LINEAR)
    if intensity.blur_sigma > 0:
        side = 2 * math.ceil(3 * intensity.blur_sigma) + 1
        picture = cv2.GaussianBlur(picture, (side, side), intensity.blur_sigma)
    if any(intensity.bias):
        y, x = np.linspace(-1, 1, crop.height)[:, None], np.linspace(-1, 1, crop.width)
        a, b, c, d, e = intensity.bias
        picture = picture * np.exp(a * x + b * y + c * x * x + d * x * y + e * y * y)
    if intensity.gamma != 1:
        picture = np.maximum(picture, 0) ** intensity.gamma
    return picture.astype(np.float32, copy=False)


def _add_noise(image_dhw: Float32[np.ndarray, "d h w"], intensity: Intensity) -> None:
    """Add normal noise in place, drawn by OpenCV, at five times NumPy's speed."""
    depth, height, width = image_dhw.shape
    noise = np.empty((depth * height, width), np.float32)
    cv2.setRNGSeed(intensity.key[0] >> 1)
    cv2.randn(noise, np.zeros(1), np.array([intensity.noise]))
    image_dhw += noise.reshape(image_dhw.shape)
