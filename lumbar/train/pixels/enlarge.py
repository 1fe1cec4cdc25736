"""Step 2: a small grid of samples, brought to the output's size."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit


@njit(inline="always")
@no_type_check
def enlarge(
    out: Any, grid: Any, row: Any, height: int, width: int, grid_h: int, grid_w: int
) -> None:
    """Fill ``out`` (height, width) from ``grid`` (grid_h, grid_w), bilinear, half-pixel centres.

    Output pixel ``i`` lies at ``(i + 0.5) * grid / size - 0.5`` of the grid, and at an edge on the
    edge. ``row`` (grid_w) is scratch.
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
