"""Steps 4 and 5: the bias field and gamma."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.numbers import BIAS
from lumbar.train.pixels.power import exp2, log2

_LOG2_E = np.float32(np.log2(np.e))
_SMALLEST = np.float32(2.0**-126)


@njit(inline="always")
@no_type_check
def fill_field(field: Any, numbers: Any, height: int, width: int) -> None:
    """Fill ``field`` with ``exp(c0 x + c1 y + c2 x x + c3 x y + c4 y y)``.

    x and y go from -1 at the middle of the first column and row to 1 at that of the last; a picture
    of one column or row has 0.
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
    """Multiply a picture by a field."""
    for h in range(height):
        for w in range(width):
            plane[h, w] *= field[h, w]


@njit(inline="always")
@no_type_check
def bend(plane: Any, gamma: Any, height: int, width: int) -> None:
    """Raise a picture to a power; what is below 0 becomes 0."""
    for h in range(height):
        for w in range(width):
            value = plane[h, w]
            power = exp2(gamma * log2(max(value, _SMALLEST)))
            plane[h, w] = power if value >= _SMALLEST else np.float32(0)
