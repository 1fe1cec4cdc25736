"""One series as a sample sees it: its slices, its crop, its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from jaxtyping import Float32

from lumbar.train.augment import AugmentConfig, Draws, Intensity, draw_intensity
from lumbar.train.geometry import CropConfig, Matrix, coarsened, draw_matrix, mirrored
from lumbar.train.samples import ABSENT, SERIES_TYPES, Samples
from lumbar.train.slices import NO_SLICE, Slices, all_slices, padded, spread_slices, window_slices


@dataclass(frozen=True, slots=True)
class View:
    """One series to read.

    ``slices`` are indices into the volume, `NO_SLICE` at the end where there are fewer than the
    box holds, and everywhere where a study has no such series: its ``row`` is then another's.
    ``position`` is where each lies in the stack, 0 to 1, in the order in which the model sees them.
    ``matrix`` maps the pixels of ``intensity.grid_hw`` to source pixels.
    """

    row: int
    slices: Slices
    position: Float32[np.ndarray, " d"]
    matrix: Matrix
    intensity: Intensity

    def filled_to(self, depth: int) -> View:
        """Return the view with places for ``depth`` slices."""
        if len(self.slices) == depth:
            return self
        position = np.zeros(depth, np.float32)
        position[: len(self.position)] = self.position
        return replace(self, slices=padded(self.slices, depth), position=position)


def draw_view(
    samples: Samples,
    index: int,
    slot: int,
    crop: CropConfig,
    augment: AugmentConfig,
    *,
    mirrors: Sequence[int],
    draws: Draws,
    shuffle: bool,
) -> View:
    """Draw how one series of a sample is seen.

    ``mirrors`` are the patient's axes to mirror: 0 left-right, 1 front-back, 2 head-foot. Without
    ``shuffle`` the slices are the evenly spaced or the middle ones.
    """
    row = int(samples.row[index, slot])
    depth, height, width = map(int, samples.shape[index, slot])
    centre_d, *centre_hw = samples.centre_dhw[index, slot]
    series_type = SERIES_TYPES[samples.series_type[index, slot]]
    pixel_mm = crop.pixel_mm_for(series_type)
    within = draws.unit() if shuffle else 0.5
    absent = row == ABSENT
    start, stop = map(int, samples.stack[index, slot])
    # The shape of an absent series is another's, whose depth is not to fill up the batch.
    if absent:
        slices = padded(np.arange(0), crop.slices)
    elif crop.pick != "all" and not np.isnan(centre_d):
        slices = _around(float(centre_d), start, stop, crop.slices)
    else:
        slices = _pick(crop, depth, within)
    matrix = draw_matrix(
        crop,
        augment,
        source_hw=(height, width),
        spacing_mm=samples.spacing_mm[index, slot],
        centre_hw=np.array(centre_hw),
        pixel_mm=pixel_mm,
        draws=draws,
    )
    size_hw = crop.height, crop.width
    intensity = draw_intensity(augment, (len(slices), *size_hw), pixel_mm, draws)
    if augment.slice_dropout > 0 and not absent:
        slices = _drop(slices, augment.slice_dropout, draws)
    if absent:
        row = int(samples.row[index].max())
    view = View(row, slices, _positions(slices, depth), matrix, intensity)
    for axis in mirrors:
        view = _mirror(view, int(samples.patient_axes[index, slot, axis]), size_hw)
    if intensity.grid_hw == size_hw:
        return view
    return replace(view, matrix=coarsened(view.matrix, size_hw, intensity.grid_hw))


def _around(centre: float, start: int, stop: int, wanted: int) -> Slices:
    """Choose the slices around a place, of its own stack: the next one shows another disc."""
    within = window_slices(stop - start, wanted, centre - start)
    return np.where(within == NO_SLICE, within, within + np.int32(start))


def _pick(crop: CropConfig, depth: int, within: float) -> Slices:
    """Choose the slices as the configuration says."""
    match crop.pick:
        case "all":
            return all_slices(depth, crop.slices)
        case "window":
            # Each first slice with the same chance: rounded, so half a slice more on both sides.
            first = within * (max(depth - crop.slices, 0) + 1) - 0.5
            return window_slices(depth, crop.slices, first + (crop.slices - 1) / 2)
        case "spread":
            return spread_slices(depth, crop.slices, within)
        case _:
            assert_never(crop.pick)


def _drop(slices: Slices, probability: float, draws: Draws) -> Slices:
    """Leave slices out at random, as if they had not been taken; one always stays."""
    chance = draws.units(len(slices))
    present = slices != NO_SLICE
    kept = present & ((chance >= probability) | (chance == chance[present].max()))
    return padded(slices[kept], len(slices))


def _positions(slices: Slices, depth: int) -> Float32[np.ndarray, " d"]:
    return np.where(slices != NO_SLICE, (slices + 0.5) / depth, 0).astype(np.float32)


def _mirror(view: View, axis: int, size_hw: tuple[int, int]) -> View:
    """Mirror one array axis of a view: reverse the slices, or mirror the picture."""
    if axis > 0:
        return replace(view, matrix=mirrored(view.matrix, axis, size_hw[axis - 1]))
    present = view.slices != NO_SLICE
    slices, position = view.slices.copy(), view.position.copy()
    slices[present] = slices[present][::-1]
    position[present] = 1 - position[present][::-1]
    return replace(view, slices=slices, position=position)
