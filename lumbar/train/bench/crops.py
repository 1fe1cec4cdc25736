"""The baselines' data sets: the requests of a plan, cut by hand with OpenCV, one at a time.

Worker processes import this module and what it imports, and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from torch.utils.data import Dataset

from lumbar.cache.store import Cache
from lumbar.cache.volumes import Stored, map_volume
from lumbar.train.plan import CropConfig, Request

DecodeSeries = Callable[[str, str, tuple[int, int]], Float32[np.ndarray, "d h w"]]
"""Decodes a series on the fly: study id, series id, (height, width) -> values from 0 to 1.

It goes to worker processes, so it has to be picklable.
"""

LoadedCrop = tuple[torch.Tensor, Request]


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """Where a cached series lies and what its numbers mean."""

    study_id: str
    series_id: str
    path: Path
    dtype: str
    shape: tuple[int, int, int]
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
            scale=entry["scale"],
            offset=entry["offset"],
        )
    return files


@dataclass(frozen=True, slots=True)
class CachedCrops(Dataset[LoadedCrop]):
    """Crops from memory-mapped volumes: the usual good way with a torch DataLoader."""

    files: dict[int, VolumeFile]
    crop: CropConfig

    def __getitem__(self, request: Request) -> LoadedCrop:
        """Return one sample (d, h, w) float32."""
        file = self.files[request.row]
        volume_dhw = map_volume(file.path, dtype=file.dtype, shape=file.shape)
        gain = file.scale * request.gain
        offset = file.offset * request.gain + request.offset
        image_dhw = cut_crop(volume_dhw, request, self.crop, gain=gain, offset=offset)
        return torch.from_numpy(image_dhw), request


@dataclass(frozen=True, slots=True)
class DecodedCrops(Dataset[LoadedCrop]):
    """Crops from DICOM files that are decoded anew for every sample: the way it was."""

    files: dict[int, VolumeFile]
    crop: CropConfig
    decode: DecodeSeries

    def __getitem__(self, request: Request) -> LoadedCrop:
        """Return one sample (d, h, w) float32."""
        file = self.files[request.row]
        volume_dhw = self.decode(file.study_id, file.series_id, file.shape[1:])
        image_dhw = cut_crop(
            volume_dhw, request, self.crop, gain=request.gain, offset=request.offset
        )
        return torch.from_numpy(image_dhw), request


def collate(samples: list[LoadedCrop]) -> tuple[torch.Tensor, list[Request]]:
    """Stack the samples of a step to (b, d, h, w)."""
    images = torch.stack([image for image, _ in samples])
    return images, [request for _, request in samples]


def start_worker(_: int) -> None:
    """One thread a worker: OpenCV's own would fight over the cores."""
    cv2.setNumThreads(0)


def cut_crop(
    volume_dhw: Stored | Float32[np.ndarray, "d h w"],
    request: Request,
    crop: CropConfig,
    *,
    gain: float,
    offset: float,
) -> Float32[np.ndarray, "cd ch cw"]:
    """Pick the slices of a request, warp each, then ``value * gain + offset + noise``.

    A slice beyond the volume is its last one: a decoder may leave files out or take more.
    """
    image_dhw = np.zeros((crop.slices, crop.height, crop.width), np.float32)
    size = crop.width, crop.height
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for d, source in enumerate(request.slices[request.slices >= 0]):
        # Warping float32 is both faster and more exact than warping the stored integers.
        picture = volume_dhw[min(source, len(volume_dhw) - 1)].astype(np.float32)
        warped = cv2.warpAffine(picture, request.matrix, size, flags=flags)
        np.add(warped * np.float32(gain), np.float32(offset), out=image_dhw[d])
    if request.noise > 0:
        _add_noise(image_dhw[: np.count_nonzero(request.slices >= 0)], request)
    return image_dhw


def _add_noise(image_dhw: Float32[np.ndarray, "d h w"], request: Request) -> None:
    """Add normal noise in place, drawn by OpenCV, at five times NumPy's speed."""
    depth, height, width = image_dhw.shape
    noise = np.empty((depth * height, width), np.float32)
    cv2.setRNGSeed(request.noise_seed)
    cv2.randn(noise, np.zeros(1), np.array([request.noise]))
    image_dhw += noise.reshape(image_dhw.shape)
