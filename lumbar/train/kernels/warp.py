"""Step 1: warp stored slices by a matrix, times gain plus offset.

The output is made in tiles. The part of the source that a tile needs is copied into a box: eight
slices interleaved, and zeros beyond the edges of the source. Every pixel of the tile then has its
four neighbours in the box, which fits the innermost caches. Nothing else reads the source.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.kernels.simd import BLOCK_BYTES, SLICES, interleave_block, interpolate_block

TILE_H = 32
TILE_W = 32
TILE_PIXELS = TILE_H * TILE_W
ROUNDING = 0.01
"""Pixels by which single precision may move a place beyond the computed range."""


@njit(inline="always")
@no_type_check
def box_size(volume: Any, matrix: Any) -> int:
    """Return the greatest number of elements of a tile's box."""
    size = SLICES
    for axis in range(2):
        limit = volume.shape[2 - axis] + 3.0
        reach = abs(matrix[axis, 0]) * TILE_W + abs(matrix[axis, 1]) * TILE_H + 4.0
        size *= np.int64(min(limit, reach))
    return size


@njit(inline="always")
@no_type_check
def warp_band(
    band: Any,
    shape: Any,
    first_row: int,
    volume: Any,
    starts: Any,
    matrix: Any,
    gain: Any,
    offset: Any,
    box: Any,
    corners: Any,
    weights: Any,
) -> None:
    """Fill ``band`` (8, rows, columns) with output rows from ``first_row`` on.

    ``shape`` is (rows, columns); up to seven further columns are overwritten. ``starts`` (8) are
    the first elements of the slices in ``volume``; ``box``, ``corners`` and ``weights`` are
    scratch.
    """
    rows, columns = shape
    height, width = volume.shape[1], volume.shape[2]
    m = matrix
    for r0 in range(0, rows, TILE_H):
        tile_h = min(TILE_H, rows - r0)
        for c0 in range(0, columns, TILE_W):
            blocks = (min(TILE_W, columns - c0) + SLICES - 1) // SLICES
            tile_w = blocks * SLICES
            h0 = first_row + r0
            left, right = _range(m[0, 0], m[0, 1], m[0, 2], c0, h0, tile_w, tile_h, width)
            top, bottom = _range(m[1, 0], m[1, 1], m[1, 2], c0, h0, tile_w, tile_h, height)
            _fill_box(box, volume, starts, left, right, top, bottom)
            across = right - left
            for r in range(tile_h):
                _place_row(
                    corners, weights, r * TILE_W, tile_w, m, c0, h0 + r,
                    width, height, left, right, top, bottom, gain,
                )  # fmt: skip
                for b in range(blocks):
                    interpolate_block(
                        band,
                        (r0 + r) * band.shape[2] + c0 + b * SLICES,
                        band.shape[1] * band.shape[2],
                        box,
                        across * SLICES,
                        corners,
                        weights,
                        r * TILE_W + b * SLICES,
                        offset,
                    )


@njit(inline="always")
@no_type_check
def _range(
    along: Any, down: Any, shift: Any, c0: int, h0: int, tile_w: int, tile_h: int, size: int
) -> tuple[int, int]:
    """Return the first source pixel that a tile needs along an axis, and the one behind its last.

    They lie between -1 and ``size + 1``, which includes the border of zeros.
    """
    corner = np.float64(along) * c0 + np.float64(down) * h0 + shift
    over = np.float64(along) * (tile_w - 1)
    under = np.float64(down) * (tile_h - 1)
    least = corner + min(over, 0.0) + min(under, 0.0) - ROUNDING
    most = corner + max(over, 0.0) + max(under, 0.0) + ROUNDING
    first = np.int64(np.floor(min(max(least, -1.0), np.float64(size))))
    last = np.int64(np.floor(min(max(most, -1.0), np.float64(size)))) + 1
    return first, last + 1


@njit(inline="always")
@no_type_check
def _fill_box(
    box: Any, volume: Any, starts: Any, left: int, right: int, top: int, bottom: int
) -> None:
    """Fill a box with interleaved source pixels, and 0 beyond the edges of the source."""
    height, width = volume.shape[1], volume.shape[2]
    lanes = BLOCK_BYTES // volume.itemsize
    begin, end = max(left, 0), min(right, width)
    for y in range(top, bottom):
        place = (y - top) * (right - left) * SLICES
        outside = y < 0 or y >= height or begin >= end
        if outside or begin > left or end < right:
            for i in range(place, place + (right - left) * SLICES):
                box[i] = 0
        if outside:
            continue
        place += (begin - left) * SLICES
        source = y * width + begin
        n = end - begin
        for x in range(0, n - lanes + 1, lanes):
            interleave_block(box, place + x * SLICES, volume, starts, source + x)
        if n >= lanes:
            # The last block ends with the row, so nothing behind the row is read.
            x = n - lanes
            interleave_block(box, place + x * SLICES, volume, starts, source + x)
        else:
            # The row is shorter than a block.
            for x in range(n):
                for k in range(SLICES):
                    z = starts[k] // (height * width)
                    box[place + x * SLICES + k] = volume[z, y, begin + x]


@njit(inline="always")
@no_type_check
def _place_row(
    corners: Any,
    weights: Any,
    place: int,
    tile_w: int,
    matrix: Any,
    c0: int,
    h: int,
    width: int,
    height: int,
    left: int,
    right: int,
    top: int,
    bottom: int,
    gain: Any,
) -> None:
    """Compute the corner in the box and the four weights of each pixel of a tile's row."""
    one, low = np.float32(1), np.float32(-1)
    most_x, most_y = np.float32(width), np.float32(height)
    along_x, along_y = matrix[0, 0], matrix[1, 0]
    start_x = np.float32(np.float64(matrix[0, 1]) * h + matrix[0, 2])
    start_y = np.float32(np.float64(matrix[1, 1]) * h + matrix[1, 2])
    across = np.int32(right - left)
    first_x, last_x = np.float32(left), np.float32(right - 2)
    first_y, last_y = np.float32(top), np.float32(bottom - 2)
    for c in range(tile_w):
        w = np.float32(np.int32(c0 + c))
        x = min(max(along_x * w + start_x, low), most_x)
        y = min(max(along_y * w + start_y, low), most_y)
        # Only a rounding error could leave the box; these bounds keep it inside.
        x0 = min(max(np.floor(x), first_x), last_x)
        y0 = min(max(np.floor(y), first_y), last_y)
        right_part, below = x - x0, (y - y0) * gain
        above = gain - below
        corners[place + c] = (np.int32(y0 - first_y) * across + np.int32(x0 - first_x)) * np.int32(
            SLICES
        )
        weights[place + c, 0] = (one - right_part) * above
        weights[place + c, 1] = right_part * above
        weights[place + c, 2] = (one - right_part) * below
        weights[place + c, 3] = right_part * below
