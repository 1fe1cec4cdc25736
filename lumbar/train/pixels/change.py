"""Steps 2 to 5 of one whole slice, those that most samples go without."""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.numbers import BIAS, BLUR_SIGMA, GAMMA, GRID_H, GRID_W
from lumbar.train.pixels.blur import REACH, blur, fill_weights
from lumbar.train.pixels.enlarge import enlarge
from lumbar.train.pixels.intensity import bend, fill_field, multiply


@njit(inline="always")
@no_type_check
def has_bias(numbers: Any) -> bool:
    """Return whether the bias field is on."""
    total = 0.0
    for term in range(5):
        total += abs(numbers[BIAS + term])
    return total != 0


@njit(nogil=True)
@no_type_check
def is_changed(numbers: Any, height: int, width: int) -> bool:
    """Return whether any of the steps 2 to 5 is on."""
    return (
        numbers[GRID_H] != height
        or numbers[GRID_W] != width
        or numbers[BLUR_SIGMA] > 0
        or has_bias(numbers)
        or numbers[GAMMA] != 1
    )


@njit(nogil=True, fastmath={"contract"})
@no_type_check
def prepare(planes: Any, numbers: Any, height: int, width: int) -> tuple[Any, Any]:
    """Return the weights of the blur and a padded row, and leave the bias field in plane 0."""
    radius = math.ceil(REACH * numbers[BLUR_SIGMA])
    weights = np.empty(radius + 1, np.float32)
    if radius:
        fill_weights(weights, numbers[BLUR_SIGMA])
    if has_bias(numbers):
        fill_field(planes[0], numbers, height, width)
    return weights, np.empty(width + 2 * radius, np.float32)


@njit(nogil=True, fastmath={"contract"})
@no_type_check
def change(
    picture: Any, planes: Any, weights: Any, row: Any, numbers: Any, height: int, width: int
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
