"""Step 3: a Gaussian blur in the plane of a slice."""

from __future__ import annotations

import math
from typing import Any, no_type_check

from numba import njit

REACH = 3
"""Standard deviations from the middle of the weights to their end."""


@njit(inline="always")
@no_type_check
def fill_weights(weights: Any, sigma: Any) -> None:
    """Fill the weights of distance 0, 1, ... of a Gaussian whose both sides sum to 1."""
    total = 0.0
    for t in range(weights.size):
        weights[t] = math.exp(-0.5 * (t / sigma) ** 2)
        total += weights[t] if t == 0 else 2 * weights[t]
    for t in range(weights.size):
        weights[t] /= total


@njit(inline="always")
@no_type_check
def reflected(i: int, size: int) -> int:
    """Return the pixel that stands for pixel ``i`` beyond an edge, mirrored at the edge's pixel."""
    if size == 1:
        return 0
    place = abs(i) % (2 * size - 2)
    return min(place, 2 * size - 2 - place)


@njit(inline="always")
@no_type_check
def blur(plane: Any, weights: Any, between: Any, padded: Any, height: int, width: int) -> None:
    """Blur ``plane`` (height, width) by symmetric ``weights``, down the columns, then along rows.

    ``between`` is scratch of its shape, ``padded`` of a row with the weights' reach on both sides.
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
