"""Where the pixels of a crop lie in a slice, as one 2x3 matrix, and the patient's mirror images."""

from __future__ import annotations

from typing import Literal, assert_never

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from lumbar.cache.names import SeriesType
from lumbar.train.augment import AugmentConfig, Draws
from lumbar.train.slices import MOST_SLICES, SlicePick

Matrix = Float32[np.ndarray, "2 3"]
"""Maps output pixels ``(w, h, 1)`` to source pixels ``(w, h)``, centres at whole numbers."""


class CropConfig(BaseModel):
    """The box that every sample fills: slices, and pixels of ``pixel_mm`` millimetres.

    ``pick`` says which slices: ``spread`` evenly over the stack, a ``window`` of neighbours, or
    ``all``, filled up to a multiple of ``slices`` and to the deepest of the batch. ``centre`` is
    the ``image``'s middle or ``random``, wherever the crop fits; a disc is always in the middle of
    its crop. ``pixel_mm_of`` has other pixels for some series types.
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
        """Return the millimetres of a pixel of a series type's crops."""
        return self.pixel_mm_of.get(series_type, self.pixel_mm)


def draw_matrix(
    crop: CropConfig,
    augment: AugmentConfig,
    *,
    source_hw: tuple[int, int],
    spacing_mm: Float64[np.ndarray, "2"],
    centre_hw: Float64[np.ndarray, "2"],
    pixel_mm: float,
    draws: Draws,
) -> Matrix:
    """Return the map from output to source pixels: crop, scale, rotation, shear, shift in one.

    Rotation, shear and scale are those of the patient's millimetres, whatever the pixel spacing.
    ``spacing_mm`` is (height, width); a ``centre_hw`` of NaN is that of the configuration.
    """
    angle = np.deg2rad(draws.within(augment.rotation_degrees))
    slant = np.tan(np.deg2rad(draws.within(augment.shear_degrees)))
    zoom = draws.factor(augment.scale)
    shift_mm = np.array([draws.within(augment.shift_mm), draws.within(augment.shift_mm)])
    place = np.array([draws.unit(), draws.unit()])
    pixels_per_mm = 1 / spacing_mm[::-1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn[:, 1] += turn[:, 0] * slant
    linear = pixels_per_mm[:, None] * turn * (pixel_mm * zoom)
    source_wh = np.array(source_hw[::-1], np.float64)
    size_wh = np.array([crop.width, crop.height])
    centre_wh = (source_wh - 1) / 2
    if not np.isnan(centre_hw).any():
        centre_wh = centre_hw[::-1]
    else:
        match crop.centre:
            case "random":
                room = np.maximum(source_wh - size_wh * pixel_mm * pixels_per_mm, 0)
                centre_wh = centre_wh + room * (place - 0.5)
            case "image":
                pass
            case _:
                assert_never(crop.centre)
    translation = centre_wh + shift_mm * pixels_per_mm - linear @ ((size_wh - 1) / 2)
    return np.column_stack([linear, translation]).astype(np.float32)


def mirrored(matrix: Matrix, axis: int, size: int) -> Matrix:
    """Return the matrix of the mirror image along output axis 1 (rows) or 2 (columns)."""
    mirror = np.eye(3)
    across = 2 - axis
    mirror[across, across], mirror[across, 2] = -1, size - 1
    return (matrix @ mirror).astype(np.float32)


def coarsened(matrix: Matrix, size_hw: tuple[int, int], grid_hw: tuple[int, int]) -> Matrix:
    """Return the matrix of a smaller grid of samples over the same crop.

    Both grids cover the same area, edge to edge: grid pixel ``i`` lies at output pixel
    ``(i + 0.5) * size / grid - 0.5``.
    """
    larger = np.eye(3)
    for across, (size, grid) in enumerate(zip(size_hw[::-1], grid_hw[::-1], strict=True)):
        larger[across, across] = size / grid
        larger[across, 2] = size / grid / 2 - 0.5
    return (matrix @ larger).astype(np.float32)
