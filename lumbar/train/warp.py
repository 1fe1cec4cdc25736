"""The CPU's one pass over the pixels: slices picked, warped, scaled, and noise added.

DALI runs these compiled functions in its own threads, without the GIL, on memory maps. All slices
of a sample share one matrix, so the source index and four weights of an output row are computed
once and used for every slice, and reads and writes run along memory.

What is compiled is marked `no_type_check`, so that no wrapper that checks shapes comes between.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

_SUM_OF_FOUR_MEAN = 4 * 65535 / 2
_SUM_OF_FOUR_STD = float(np.sqrt(4 * (65536.0**2 - 1) / 12))


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
@no_type_check
def warp_slices(out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any) -> None:
    """Fill ``out`` (d, h, w) float32 from ``volume`` (depth, height, width) uint8 or int16.

    ``matrix`` (2, 3) maps output ``(w, h, 1)`` to source ``(w, h)``, pixel centres at whole
    numbers, linear interpolation; outside of the source the stored value is 0. ``numbers`` are
    gain, offset, noise, noise seed: ``out = stored * gain + offset + noise * z``, z approximately
    standard normal (the sum of four uniform numbers), a function of the seed and the voxel alone. A
    slice below 0 becomes 0.
    """
    depth, height, width = out.shape
    source_height, source_width = volume.shape[1], volume.shape[2]
    source = volume.reshape(volume.shape[0], source_height * source_width)
    gain, offset, noise = numbers[0], numbers[1], numbers[2]
    top_left = np.empty(width, np.int32)
    weight = np.empty((4, width), np.float32)
    for h in range(height):
        _row_weights(top_left, weight, matrix, h, source_height, source_width)
        for w in range(width):
            for corner in range(4):
                weight[corner, w] *= gain
        for d in range(depth):
            row = out[d, h]
            if slices[d] < 0:
                row[:] = 0
                continue
            pixels = source[slices[d]]
            for w in range(width):
                i = top_left[w]
                row[w] = (
                    weight[0, w] * pixels[i]
                    + weight[1, w] * pixels[i + 1]
                    + weight[2, w] * pixels[i + source_width]
                    + weight[3, w] * pixels[i + source_width + 1]
                    + offset
                )
            if noise > 0:
                _add_noise(row, noise, np.uint64(numbers[3]), d * height + h)


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
@no_type_check
def _row_weights(
    top_left: Any, weight: Any, matrix: Any, h: int, source_height: int, source_width: int
) -> None:
    """Find the source pixel and the four weights of each pixel of output row ``h``.

    At an edge the four neighbours are shifted inward so that they exist, and the weights with them.
    """
    zero = np.float32(0)
    one = np.float32(1)
    for w in range(weight.shape[1]):
        x = matrix[0, 0] * w + matrix[0, 1] * h + matrix[0, 2]
        y = matrix[1, 0] * w + matrix[1, 1] * h + matrix[1, 2]
        x = min(max(x, np.float32(-1)), np.float32(source_width))
        y = min(max(y, np.float32(-1)), np.float32(source_height))
        x0, y0 = np.int32(np.floor(x)), np.int32(np.floor(y))
        right, below = np.float32(x - x0), np.float32(y - y0)
        left, above = one - right, one - below
        if x0 < 0:
            left, right, x0 = right, zero, np.int32(0)
        elif x0 == source_width - 1:
            left, right, x0 = zero, left, np.int32(source_width - 2)
        elif x0 >= source_width:
            left, right, x0 = zero, zero, np.int32(source_width - 2)
        if y0 < 0:
            above, below, y0 = below, zero, np.int32(0)
        elif y0 == source_height - 1:
            above, below, y0 = zero, above, np.int32(source_height - 2)
        elif y0 >= source_height:
            above, below, y0 = zero, zero, np.int32(source_height - 2)
        top_left[w] = y0 * source_width + x0
        weight[0, w] = left * above
        weight[1, w] = right * above
        weight[2, w] = left * below
        weight[3, w] = right * below


@njit(nogil=True, cache=True)
@no_type_check
def _add_noise(row: Any, noise: Any, seed: Any, line: int) -> None:
    """Add noise to one row; SplitMix64 (Steele, Lea and Flood, 2014) of seed, line and column."""
    start = (seed << np.uint64(32)) ^ (np.uint64(line) << np.uint64(12))
    step = np.float32(noise / _SUM_OF_FOUR_STD)
    low = np.uint64(0xFFFF)
    for w in range(row.shape[0]):
        bits = (start + np.uint64(w)) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        total = (
            np.int64(bits & low)
            + np.int64((bits >> np.uint64(16)) & low)
            + np.int64((bits >> np.uint64(32)) & low)
            + np.int64(bits >> np.uint64(48))
        )
        row[w] += step * np.float32(np.float32(total) - np.float32(_SUM_OF_FOUR_MEAN))


@njit(nogil=True, cache=True)
@no_type_check
def gather_slices(out: Any, volume: Any, slices: Any) -> None:
    """Copy the slices named into ``out`` (d, height, width, 1); a slice below 0 becomes 0."""
    for d in range(out.shape[0]):
        if slices[d] < 0:
            out[d] = 0
        else:
            out[d, :, :, 0] = volume[slices[d]]
