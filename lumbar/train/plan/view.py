"""One series as a sample sees it: its slices, its crop, its numbers."""

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
    spread_slices,
    thinned,
    turned_round,
    window_slices,
)

N_UNIFORM = 32
"""Uniform numbers that each view takes; leaving out slices takes numbers of its own."""


@dataclass(frozen=True, slots=True)
class View:
    """One series to read.

    ``slices`` are indices into the volume, `NO_SLICE` at the end where there are fewer than the
    box holds, and everywhere where a study has no such series: its ``row`` is then another's.
    ``position`` is where each lies in the stack, 0 to 1, in the order in which the model sees them.
    ``matrix`` maps the pixels of ``intensity.grid_hw`` to source pixels. ``numbers`` are
    `lumbar.train.plan.pixel_params` for normalised values; the noise is a function of ``key``.
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
    """Draw how the series of some samples are seen: the ``s`` views of one after the other's.

    All have places for as many slices as the deepest. ``mirrors`` tells which of the patient's axes
    are mirrored: left-right, front-back, head-foot. By ``left_out`` slices are left out, if at all:
    numbers from 0 to 1, as many as the deepest has slices or more. Without ``shuffle`` the slices
    are the evenly spaced or the middle ones.
    """
    size_hw = crop.height, crop.width
    absent = (samples.row[index] == ABSENT).ravel()
    shape = samples.shape[index].reshape(-1, 3)
    centre = samples.centre_dhw[index].reshape(-1, 3)
    of_type = np.array([crop.pixel_mm_for(series_type) for series_type in SERIES_TYPES])
    pixel_mm = of_type[samples.series_type[index].ravel()]
    within = uniform.unit()
    if not shuffle:
        within = np.full_like(within, 0.5)
    # The shape of an absent series is another's, whose depth is not to fill up the batch.
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
    drawn, keys = sample_intensity(augment, _room(crop, depth), size_hw, pixel_mm, uniform)
    if left_out is not None:
        slices = thinned(slices, left_out, augment.slice_dropout)
    along = _array_axes(mirrors, samples.patient_axes[index])
    slices = turned_round(slices, along[:, 0])
    matrices = mirrored(matrices, along[:, 1:], size_hw)
    matrices = coarsened(matrices, size_hw, drawn[:, GRID_H : GRID_W + 1])
    parts = (
        _rows_to_read(samples.row[index]),
        slices,
        _positions(slices, shape[:, 0], along[:, 0]),
        matrices.astype(np.float32),
        drawn,
        keys,
    )
    return [View(*of_view) for of_view in zip(*parts, strict=True)]


def most_slices(samples: Samples, crop: CropConfig) -> int:
    """Return for how many slices the deepest view of some samples has places."""
    room = _room(crop, samples.shape[..., 0].ravel())
    return int(room.max(initial=crop.slices))


def _room(crop: CropConfig, depth: Int64[np.ndarray, " v"]) -> Int64[np.ndarray, " v"]:
    """Return for how many slices each view would have places by itself."""
    if crop.pick != "all":
        return np.full_like(depth, crop.slices)
    room: Int64[np.ndarray, " v"] = np.maximum(-(-depth // crop.slices), 1) * crop.slices
    return room


def _pick(
    crop: CropConfig, depth: Int64[np.ndarray, " v"], within: Float64[np.ndarray, " v"]
) -> Int32[np.ndarray, "v d"]:
    """Choose the slices as the configuration says."""
    match crop.pick:
        case "all":
            return all_slices(depth, crop.slices)
        case "window":
            # Each first slice with the same chance: rounded, so half a slice more on both sides.
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
    """Choose the slices around each place that there is, of its own stack.

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
    """Tell of each view along which array axes it is mirrored: slices, rows, columns."""
    along = np.zeros(patient_axes.shape, bool)
    np.put_along_axis(along, patient_axes, mirrors[:, None], axis=2)
    return along.reshape(-1, 3)


def _positions(
    slices: Int32[np.ndarray, "v d"],
    depth: Int64[np.ndarray, " v"],
    turned: Bool[np.ndarray, " v"],
) -> Float32[np.ndarray, "v d"]:
    """Return where slices lie in their stack, from its other end where their order is reversed."""
    place = (slices + 0.5) / depth[:, None]
    place = np.where(turned[:, None], 1 - place, place)
    return np.where(slices == NO_SLICE, 0, place).astype(np.float32)


def _rows_to_read(row: Int64[np.ndarray, "n s"]) -> list[int]:
    """Return the row of each view; of an absent series another one of its study."""
    there: list[int] = np.where(row == ABSENT, row.max(axis=1, keepdims=True), row).ravel().tolist()
    return there
