"""The 2x3 matrix of a crop: it maps the crop's pixels to those of a slice; and its mirrors."""

from __future__ import annotations

from typing import Literal, assert_never

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from lumbar.cache.names import SeriesType
from lumbar.train.plan.augment import AugmentConfig
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.slices import MOST_SLICES, SlicePick

Matrix = Float32[np.ndarray, "2 3"]
"""Maps output pixels ``(w, h, 1)`` to source pixels ``(w, h)``, centres at whole numbers."""


class CropConfig(BaseModel):
    """The box that every sample fills: slices, and pixels of ``pixel_mm`` millimetres.

    ``pick`` chooses the slices: ``spread`` evenly over the stack, a ``window`` of neighbours, or
    ``all``, padded to a multiple of ``slices`` and to the deepest sample of the batch. The crop's
    ``centre`` is that of the ``image``, or ``random`` wherever the crop fits; a disc is always in
    the middle of its crop. ``pixel_mm_of`` overrides ``pixel_mm`` for some series types.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slices: int = Field(16, ge=1, le=MOST_SLICES)
    pick: SlicePick = "spread"
    height: int = Field(256, ge=16)
    width: int = Field(256, ge=16)
    pixel_mm: float = Field(1.0, gt=0)
    pixel_mm_of: dict[SeriesType, PositiveFloat] = {}
    centre: Literal["image", "random"] = "image"

    def pixel_mm_for(self, series_type: SeriesType) -> float:
        """Return the millimetres per pixel for a series type."""
        return self.pixel_mm_of.get(series_type, self.pixel_mm)


def sample_matrices(
    crop: CropConfig,
    augment: AugmentConfig,
    *,
    source_hw: Int64[np.ndarray, "v 2"],
    spacing_mm: Float64[np.ndarray, "v 2"],
    centre_hw: Float64[np.ndarray, "v 2"],
    pixel_mm: Float64[np.ndarray, " v"],
    uniform: UniformNumbers,
) -> Float64[np.ndarray, "v 2 3"]:
    """Sample the maps from output to source pixels: crop, scale, rotation, shear, shift in one.

    Rotation, shear and scale act in the patient's millimetres, whatever the pixel spacing.
    ``spacing_mm`` is (height, width); where ``centre_hw`` is NaN, ``crop.centre`` decides.
    """
    angle = np.deg2rad(uniform.within(augment.rotation_degrees))
    slant = np.tan(np.deg2rad(uniform.within(augment.shear_degrees)))
    zoom = pixel_mm * uniform.factor(augment.scale)
    shift_mm = np.stack(
        [uniform.within(augment.shift_mm), uniform.within(augment.shift_mm)], axis=1
    )
    place = np.stack([uniform.unit(), uniform.unit()], axis=1)
    pixels_per_mm = 1 / spacing_mm[:, ::-1]
    right = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    below = np.stack([-right[:, 1], right[:, 0]], axis=1) + right * slant[:, None]
    matrices = np.empty((len(zoom), 2, 3))
    matrices[:, :, 0] = pixels_per_mm * right * zoom[:, None]
    matrices[:, :, 1] = pixels_per_mm * below * zoom[:, None]
    centre_wh = (source_hw[:, ::-1] - 1) / 2
    match crop.centre:
        case "random":
            crop_wh = np.array([crop.width, crop.height]) * pixel_mm[:, None] * pixels_per_mm
            centre_wh += np.maximum(source_hw[:, ::-1] - crop_wh, 0) * (place - 0.5)
        case "image":
            pass
        case _:
            assert_never(crop.centre)
    centre_wh = np.where(np.isnan(centre_hw).any(axis=1)[:, None], centre_wh, centre_hw[:, ::-1])
    middle = np.array([(crop.width - 1) / 2, (crop.height - 1) / 2])
    matrices[:, :, 2] = centre_wh + shift_mm * pixels_per_mm - matrices[:, :, :2] @ middle
    return matrices


def mirrored(
    matrices: Float64[np.ndarray, "*v 2 3"],
    along_hw: Bool[np.ndarray, "*v 2"],
    size_hw: tuple[int, int],
) -> Float64[np.ndarray, "*v 2 3"]:
    """Return the matrices, mirrored along rows (h) and columns (w) where ``along_hw`` is true."""
    mirrors = matrices.copy()
    for across, axis in ((0, 1), (1, 0)):
        flipped, last = along_hw[..., axis, None], size_hw[axis] - 1
        mirrors[..., 2] += np.where(flipped, last * matrices[..., across], 0)
        mirrors[..., across] *= np.where(flipped, -1, 1)
    return mirrors


def coarsened(
    matrices: Float64[np.ndarray, "*v 2 3"],
    size_hw: tuple[int, int],
    grid_hw: Float64[np.ndarray, "*v 2"],
) -> Float64[np.ndarray, "*v 2 3"]:
    """Return the matrices of coarser pixel grids over the same crops.

    Both grids cover the same area, edge to edge: grid pixel ``i`` lies at output pixel
    ``(i + 0.5) * size / grid - 0.5``.
    """
    times_wh = (np.array(size_hw) / grid_hw)[..., None, ::-1]
    coarse = np.empty_like(matrices)
    coarse[..., :2] = matrices[..., :2] * times_wh
    coarse[..., 2] = matrices[..., 2] + (matrices[..., :2] * (times_wh / 2 - 0.5)).sum(axis=-1)
    return coarse
