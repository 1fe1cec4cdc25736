"""A view: the slices, the crop matrix and the augmentation of one series in a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt32

from lumbar.cache.names import SERIES_TYPES
from lumbar.train.plan.augment import AugmentConfig, Intensity, sample_intensity
from lumbar.train.plan.crop import CropConfig, Matrix, coarsened, mirrored, sample_matrices
from lumbar.train.plan.pixel_params import GRID_H, GRID_W
from lumbar.train.plan.random_numbers import UniformNumbers
from lumbar.train.plan.samples import ABSENT, Samples
from lumbar.train.plan.slices import (
    NO_SLICE,
    Slices,
    all_slices,
    drop_slices,
    reverse_slices,
    spread_slices,
    window_slices,
)

N_UNIFORM = 32
"""Uniform numbers that each view takes; leaving out slices takes numbers of its own."""


@dataclass(frozen=True, slots=True)
class View:
    """One series to read.

    ``slices`` are indices into the volume, padded with `NO_SLICE`. An absent series of a study has
    only padding, and borrows the ``row`` of another. ``position`` is each slice's place in the
    stack, 0 to 1, in the order of the model's input. ``matrix`` maps the pixels of
    ``intensity.grid_hw`` to source pixels. ``numbers`` are `lumbar.train.plan.pixel_params` for
    normalised values; the noise is a function of ``key``.
    """

    row: int
    slices: Slices
    position: Float32[np.ndarray, " d"]
    matrix: Matrix
    numbers: Float64[np.ndarray, "18"]
    key: UInt32[np.ndarray, "2"]

    @property
    def intensity(self) -> Intensity:
        """The numbers by their names."""
        return Intensity.of(self.numbers, self.key)


def sample_views(
    samples: Samples,
    index: Int64[np.ndarray, " n"],
    crop: CropConfig,
    augment: AugmentConfig,
    *,
    mirrors: Bool[np.ndarray, "n 3"],
    uniform: UniformNumbers,
    left_out: Float64[np.ndarray, "v d"] | None,
    shuffle: bool,
) -> list[View]:
    """Sample the views of some samples: the ``s`` views of the first, then those of the second.

    All are padded to as many slices as the deepest. ``mirrors`` says which of the patient's axes
    are mirrored: left-right, front-back, head-foot. ``left_out`` are numbers from 0 to 1, at least
    one per slice, for slice dropout; None switches it off. Without ``shuffle`` the slices are the
    evenly spaced or the middle ones.
    """
    size_hw = crop.height, crop.width
    row = samples.row[index]
    absent = (row == ABSENT).ravel()
    shape = samples.shape[index].reshape(-1, 3)
    centre = samples.centre_dhw[index].reshape(-1, 3)
    of_type = np.array([crop.pixel_mm_for(series_type) for series_type in SERIES_TYPES])
    pixel_mm = of_type[samples.series_type[index].ravel()]
    within = uniform.unit()
    if not shuffle:
        within = np.full_like(within, 0.5)
    # An absent series borrows another's shape; its depth must not count for the padding.
    depth = np.where(absent, 0, shape[:, 0])
    slices = _pick(crop, depth, within)
    if crop.pick != "all":
        stack = samples.stack[index].reshape(-1, 2)
        slices = _around(slices, np.where(absent, np.nan, centre[:, 0]), stack)
    matrices = sample_matrices(
        crop,
        augment,
        source_hw=shape[:, 1:],
        spacing_mm=samples.spacing_mm[index].reshape(-1, 2),
        centre_hw=centre[:, 1:],
        pixel_mm=pixel_mm,
        uniform=uniform,
    )
    numbers, keys = sample_intensity(
        augment, _padded_depth(crop, depth), size_hw, pixel_mm, uniform
    )
    if left_out is not None:
        slices = drop_slices(slices, left_out, augment.slice_dropout)
    along = _array_axes(mirrors, samples.patient_axes[index])
    slices = reverse_slices(slices, along[:, 0])
    matrices = mirrored(matrices, along[:, 1:], size_hw)
    matrices = coarsened(matrices, size_hw, numbers[:, GRID_H : GRID_W + 1])
    parts = (
        # An absent series borrows another row of its study.
        np.where(row == ABSENT, row.max(axis=1, keepdims=True), row).ravel().tolist(),
        slices,
        _positions(slices, shape[:, 0], along[:, 0]),
        matrices.astype(np.float32),
        numbers,
        keys,
    )
    return [View(*of_view) for of_view in zip(*parts, strict=True)]


def most_slices(samples: Samples, crop: CropConfig) -> int:
    """Return the padded number of slices of the deepest view of some samples."""
    depth = _padded_depth(crop, samples.shape[..., 0].ravel())
    return int(depth.max(initial=crop.slices))


def _padded_depth(crop: CropConfig, depth: Int64[np.ndarray, " v"]) -> Int64[np.ndarray, " v"]:
    """Return the padded number of slices of each view by itself."""
    if crop.pick != "all":
        return np.full_like(depth, crop.slices)
    padded: Int64[np.ndarray, " v"] = np.maximum(-(-depth // crop.slices), 1) * crop.slices
    return padded


def _pick(
    crop: CropConfig, depth: Int64[np.ndarray, " v"], within: Float64[np.ndarray, " v"]
) -> Int32[np.ndarray, "v d"]:
    """Choose the slices by ``crop.pick``."""
    match crop.pick:
        case "all":
            return all_slices(depth, crop.slices)
        case "window":
            # Rounded below, so half a slice more on both sides: each first slice is equally likely.
            first = within * (np.maximum(depth - crop.slices, 0) + 1) - 0.5
            return window_slices(depth, crop.slices, first + (crop.slices - 1) / 2)
        case "spread":
            return spread_slices(depth, crop.slices, within)
        case _:
            assert_never(crop.pick)


def _around(
    slices: Int32[np.ndarray, "v d"],
    centre: Float64[np.ndarray, " v"],
    stack: Int64[np.ndarray, "v 2"],
) -> Int32[np.ndarray, "v d"]:
    """Replace the slices of views with a centre by those around it, from its own stack.

    The next stack shows another disc.
    """
    placed = ~np.isnan(centre)
    if not placed.any():
        return slices
    start, stop = stack.T
    middle = np.where(placed, centre - start, 0)
    inside = window_slices(stop - start, slices.shape[1], middle)
    around = np.where(inside == NO_SLICE, inside, inside + start[:, None])
    return np.where(placed[:, None], around, slices).astype(np.int32)


def _array_axes(
    mirrors: Bool[np.ndarray, "n 3"], patient_axes: Int64[np.ndarray, "n s 3"]
) -> Bool[np.ndarray, "v 3"]:
    """Return along which array axes each view is mirrored: slices, rows, columns."""
    along = np.zeros(patient_axes.shape, bool)
    np.put_along_axis(along, patient_axes, mirrors[:, None], axis=2)
    return along.reshape(-1, 3)


def _positions(
    slices: Int32[np.ndarray, "v d"],
    depth: Int64[np.ndarray, " v"],
    is_reversed: Bool[np.ndarray, " v"],
) -> Float32[np.ndarray, "v d"]:
    """Return the places of slices in their stack, from its end where the order is reversed."""
    place = (slices + 0.5) / depth[:, None]
    place = np.where(is_reversed[:, None], 1 - place, place)
    return np.where(slices == NO_SLICE, 0, place).astype(np.float32)
