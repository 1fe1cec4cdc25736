"""Steps 2 to 5 of one whole slice, those that most samples go without."""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.kernels.filters import (
    REACH,
    bend,
    blur,
    enlarge,
    fill_field,
    fill_weights,
    multiply,
)
from lumbar.train.plan.pixel_params import BIAS, BLUR_SIGMA, GAMMA, GRID_H, GRID_W


@njit(inline="always")
@no_type_check
def has_bias(numbers: Any) -> bool:
    """Return whether the bias field is on."""
    total = 0.0
    for term in range(5):
        total += abs(numbers[BIAS + term])
    return total != 0


@njit(nogil=True, fastmath={"contract"})
@no_type_check
def prepare(numbers: Any, height: int, width: int) -> tuple[Any, ...]:
    """Return whether any step is on, and for `change` planes, the blur's weights and its row.

    The bias field lies in the first of the planes.
    """
    grid_h, grid_w = np.int64(numbers[GRID_H]), np.int64(numbers[GRID_W])
    biased = has_bias(numbers)
    radius = math.ceil(REACH * numbers[BLUR_SIGMA])
    changed = grid_h != height or grid_w != width or radius > 0 or biased or numbers[GAMMA] != 1
    planes = np.empty((3, height if changed else 1, max(grid_w, width)), np.float32)
    weights = np.empty(radius + 1, np.float32)
    if radius:
        fill_weights(weights, numbers[BLUR_SIGMA])
    if biased:
        fill_field(planes[0], numbers, height, width)
    return changed, planes, weights, np.empty(width + 2 * radius, np.float32)


@njit(nogil=True, fastmath={"contract"})
@no_type_check
def change(
    picture: Any, numbers: Any, height: int, width: int, planes: Any, weights: Any, row: Any
) -> Any:
    """Return the slice after the steps 2 to 5: in the picture's own place, or in a plane."""
    grid_h, grid_w = np.int64(numbers[GRID_H]), np.int64(numbers[GRID_W])
    if grid_h != height or grid_w != width:
        enlarge(planes[1], picture, planes[2, 0], height, width, grid_h, grid_w)
        picture = planes[1]
    if weights.size > 1:
        blur(picture, weights, planes[2], row, height, width)
    if has_bias(numbers):
        multiply(picture, planes[0], height, width)
    if numbers[GAMMA] != 1:
        bend(picture, numbers[GAMMA], height, width)
    return picture


@njit(inline="always")
@no_type_check
def prepare_nothing(numbers: Any, height: int, width: int) -> tuple[Any, ...]:
    """Return what `prepare` does where these steps are off."""
    return False, 0, 0, 0


@njit(inline="always")
@no_type_check
def change_nothing(
    picture: Any, numbers: Any, height: int, width: int, planes: Any, weights: Any, row: Any
) -> Any:
    """Return the slice as it is."""
    return picture
