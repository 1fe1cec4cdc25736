"""One sample on the CPU: its stored slices, warped, changed and stored, in one compiled call.

The steps and their order are those of `lumbar.train.numbers`; a GPU makes the same:

1. ``stored * GAIN + OFFSET``, bilinear at the matrix, stored values of 0 outside of the source.
2. The grid that was sampled is brought to the output's size.
3. A Gaussian blur in the plane.
4. The bias field.
5. Gamma.
6. Noise.
7. Cutout.
8. An absent slice is 0.

Without steps 2 to 5 a band of rows at a time is sampled, finished and stored while it lies in the
innermost caches; with them it is eight whole slices.

What is compiled is marked `no_type_check`, so that no wrapper that checks shapes comes between.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.numbers import GAIN, GRID_H, GRID_W, OFFSET
from lumbar.train.pixels.change import change, is_changed, prepare
from lumbar.train.pixels.finish import finish_row, store_bfloat16, store_float16, store_float32
from lumbar.train.pixels.vectors import SLICES
from lumbar.train.pixels.warp import TILE_H, TILE_PIXELS, box_size, warp_band


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def draw_float32(out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any, key: Any) -> None:
    """Fill ``out`` (d, h, w) float32 from ``volume`` (depth, height, width) uint8 or int16.

    ``slices`` (d) int32: below 0 the slice is absent. ``matrix`` (2, 3) float32 maps output
    ``(w, h, 1)`` to source ``(w, h)``, centres at whole numbers. ``numbers`` float32: see
    `lumbar.train.numbers`. ``key`` (2) uint32: what the noise is a function of.
    """
    _draw(out, volume, slices, matrix, numbers, key, store_float32)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def draw_bfloat16(out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any, key: Any) -> None:
    """Fill ``out`` (d, h, w) int16 with the bits of bfloat16; else as `draw_float32`."""
    _draw(out, volume, slices, matrix, numbers, key, store_bfloat16)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def draw_float16(out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any, key: Any) -> None:
    """Fill ``out`` (d, h, w) int16 with the bits of IEEE half; else as `draw_float32`."""
    _draw(out, volume, slices, matrix, numbers, key, store_float16)


@njit(inline="always")
@no_type_check
def _draw(
    out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any, key: Any, store: Any
) -> None:
    depth, height, width = out.shape
    grid_h, grid_w = np.int64(numbers[GRID_H]), np.int64(numbers[GRID_W])
    changed = is_changed(numbers, height, width)
    band_h = grid_h if changed else min(TILE_H, height)
    band_w = (max(grid_w, width) + 15) // 16 * 16 + 16
    band = np.empty((SLICES, band_h, band_w), np.float32)
    box = np.empty(box_size(volume, matrix), volume.dtype)
    corners = np.empty(TILE_PIXELS, np.int32)
    weights = np.empty(4 * TILE_PIXELS, np.float32)
    starts = np.empty(SLICES, np.int64)
    places = np.empty(SLICES, np.int64)
    planes = np.empty((3, height if changed else 1, band_w), np.float32)
    blur_weights, blur_row = prepare(planes, numbers, height, width)
    d = 0
    while d < depth:
        n, d = _pick(places, starts, volume, slices, out, d)
        if n == 0:
            break
        for h0 in range(0, grid_h, band_h):
            rows = min(band_h, grid_h - h0)
            warp_band(
                band, (rows, grid_w), h0, volume, starts, matrix, numbers[GAIN], numbers[OFFSET],
                box, corners, weights,
            )  # fmt: skip
            for k in range(n):
                picture = band[k]
                if changed:
                    picture = change(
                        picture, planes, blur_weights, blur_row, numbers, height, width
                    )
                    rows = height
                for r in range(rows):
                    finish_row(out, picture[r], places[k], h0 + r, numbers, key, store)


@njit(inline="always")
@no_type_check
def _pick(places: Any, starts: Any, volume: Any, slices: Any, out: Any, d: int) -> tuple[int, int]:
    """Find the next slices that are present, from ``d`` on; those that are absent become 0.

    ``places`` says where in the output they come, ``starts`` where in the volume they begin; what
    is left over of ``starts`` repeats the last. Returns how many, and the first slice behind them.
    """
    n = 0
    while d < slices.size and n < SLICES:
        if slices[d] < 0:
            out[d] = 0
        else:
            places[n] = d
            starts[n:] = np.int64(slices[d]) * volume.shape[1] * volume.shape[2]
            n += 1
        d += 1
    return n, d


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def gather_slices(out: Any, volume: Any, slices: Any) -> None:
    """Copy the slices named into ``out`` (d, height, width, 1); a slice below 0 becomes 0."""
    for d in range(out.shape[0]):
        if slices[d] < 0:
            out[d] = 0
        else:
            out[d, :, :, 0] = volume[slices[d]]
