"""Steps 2 to 5 on one slice: resize to the output, blur, bias field, gamma; most samples have none.

`prepare` allocates what they need, once per view, and `apply_filters` runs those that are on.
"""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.kernels.fastmath import exp2, log2
from lumbar.train.plan.pixel_params import BIAS, BLUR_SIGMA, GAMMA, GRID_H, GRID_W

REACH = 3
"""Standard deviations from the centre of the blur's weights to their end."""

_LOG2_E = np.float32(np.log2(np.e))
_SMALLEST = np.float32(2.0**-126)


@njit(inline="always")
@no_type_check
def fill_weights(weights: Any, sigma: Any) -> None:
    """Fill the weights at distance 0, 1, ... of a Gaussian; both sides together sum to 1."""
    total = 0.0
    for t in range(weights.size):
        weights[t] = math.exp(-0.5 * (t / sigma) ** 2)
        total += weights[t] if t == 0 else 2 * weights[t]
    for t in range(weights.size):
        weights[t] /= total


@njit(inline="always")
@no_type_check
def reflected(i: int, size: int) -> int:
    """Return the mirror of pixel ``i`` beyond an edge, about the edge's pixel."""
    if size == 1:
        return 0
    place = abs(i) % (2 * size - 2)
    return min(place, 2 * size - 2 - place)


@njit(inline="always")
@no_type_check
def blur(plane: Any, weights: Any, between: Any, padded: Any, height: int, width: int) -> None:
    """Blur ``plane`` (height, width) by symmetric ``weights``: down the columns, then along rows.

    ``between`` is scratch of its shape; ``padded`` is scratch for a row and both margins.
    """
    radius = weights.size - 1
    for h in range(height):
        for w in range(width):
            between[h, w] = plane[h, w] * weights[0]
        for t in range(1, radius + 1):
            up, down = reflected(h - t, height), reflected(h + t, height)
            weight = weights[t]
            for w in range(width):
                between[h, w] += weight * (plane[up, w] + plane[down, w])
    for h in range(height):
        for w in range(width):
            padded[radius + w] = between[h, w]
            plane[h, w] = between[h, w] * weights[0]
        for t in range(1, radius + 1):
            padded[radius - t] = between[h, reflected(-t, width)]
            padded[radius + width - 1 + t] = between[h, reflected(width - 1 + t, width)]
        for t in range(1, radius + 1):
            weight, left, right = weights[t], padded[radius - t :], padded[radius + t :]
            for w in range(width):
                plane[h, w] += weight * (left[w] + right[w])


@njit(inline="always")
@no_type_check
def enlarge(
    out: Any, grid: Any, row: Any, height: int, width: int, grid_h: int, grid_w: int
) -> None:
    """Fill ``out`` (height, width) from ``grid`` (grid_h, grid_w), bilinear, half-pixel centres.

    Output pixel ``i`` lies at ``(i + 0.5) * grid / size - 0.5`` of the grid, clamped to its edges.
    ``row`` (grid_w) is scratch.
    """
    half = np.float32(0.5)
    step_x, step_y = np.float32(grid_w / width), np.float32(grid_h / height)
    for h in range(height):
        y = (np.float32(h) + half) * step_y - half
        y = min(max(y, np.float32(0)), np.float32(grid_h - 1))
        above = np.int64(y)
        below = min(above + 1, grid_h - 1)
        part = y - np.float32(above)
        for w in range(grid_w):
            row[w] = grid[above, w] + part * (grid[below, w] - grid[above, w])
        for w in range(width):
            x = (np.float32(np.int32(w)) + half) * step_x - half
            x = min(max(x, np.float32(0)), np.float32(grid_w - 1))
            left = np.int32(x)
            right = min(np.int32(left + 1), np.int32(grid_w - 1))
            out[h, w] = row[left] + (x - np.float32(left)) * (row[right] - row[left])


@njit(inline="always")
@no_type_check
def fill_field(field: Any, numbers: Any, height: int, width: int) -> None:
    """Fill ``field`` with ``exp(c0 x + c1 y + c2 x x + c3 x y + c4 y y)``.

    x and y go from -1 at the centre of the first column and row to 1 at that of the last; they are
    0 in a slice of one column or row.
    """
    step_x = np.float32(2.0 / (width - 1) if width > 1 else 0.0)
    step_y = np.float32(2.0 / (height - 1) if height > 1 else 0.0)
    first_x = np.float32(-1.0 if width > 1 else 0.0)
    first_y = np.float32(-1.0 if height > 1 else 0.0)
    for h in range(height):
        y = first_y + np.float32(np.int32(h)) * step_y
        flat = (numbers[BIAS + 1] + numbers[BIAS + 4] * y) * y * _LOG2_E
        slope = (numbers[BIAS] + numbers[BIAS + 3] * y) * _LOG2_E
        bend = numbers[BIAS + 2] * _LOG2_E
        for w in range(width):
            x = first_x + np.float32(np.int32(w)) * step_x
            field[h, w] = exp2(flat + (slope + bend * x) * x)


@njit(inline="always")
@no_type_check
def multiply(plane: Any, field: Any, height: int, width: int) -> None:
    """Multiply a slice by a field."""
    for h in range(height):
        for w in range(width):
            plane[h, w] *= field[h, w]


@njit(inline="always")
@no_type_check
def bend(plane: Any, gamma: Any, height: int, width: int) -> None:
    """Raise a slice to a power; values below 0 become 0."""
    for h in range(height):
        for w in range(width):
            value = plane[h, w]
            power = exp2(gamma * log2(max(value, _SMALLEST)))
            plane[h, w] = power if value >= _SMALLEST else np.float32(0)


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
    """Return whether any step is on, and what `apply_filters` needs: planes, blur weights, a row.

    The first plane holds the bias field.
    """
    grid_h, grid_w = np.int64(numbers[GRID_H]), np.int64(numbers[GRID_W])
    biased = has_bias(numbers)
    radius = math.ceil(REACH * numbers[BLUR_SIGMA])
    filtered = grid_h != height or grid_w != width or radius > 0 or biased or numbers[GAMMA] != 1
    planes = np.empty((3, height if filtered else 1, max(grid_w, width)), np.float32)
    weights = np.empty(radius + 1, np.float32)
    if radius:
        fill_weights(weights, numbers[BLUR_SIGMA])
    if biased:
        fill_field(planes[0], numbers, height, width)
    return filtered, planes, weights, np.empty(width + 2 * radius, np.float32)


@njit(nogil=True, fastmath={"contract"})
@no_type_check
def apply_filters(
    image: Any, numbers: Any, height: int, width: int, planes: Any, weights: Any, row: Any
) -> Any:
    """Return the slice after steps 2 to 5: in place, or in one of the planes."""
    grid_h, grid_w = np.int64(numbers[GRID_H]), np.int64(numbers[GRID_W])
    if grid_h != height or grid_w != width:
        enlarge(planes[1], image, planes[2, 0], height, width, grid_h, grid_w)
        image = planes[1]
    if weights.size > 1:
        blur(image, weights, planes[2], row, height, width)
    if has_bias(numbers):
        multiply(image, planes[0], height, width)
    if numbers[GAMMA] != 1:
        bend(image, numbers[GAMMA], height, width)
    return image


@njit(inline="always")
@no_type_check
def prepare_nothing(numbers: Any, height: int, width: int) -> tuple[Any, ...]:
    """Return what `prepare` does where all these steps are off."""
    return False, 0, 0, 0


@njit(inline="always")
@no_type_check
def apply_nothing(
    image: Any, numbers: Any, height: int, width: int, planes: Any, weights: Any, row: Any
) -> Any:
    """Return the slice as it is."""
    return image
