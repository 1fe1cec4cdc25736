"""One sample on the CPU: its stored slices, warped, changed and stored, in one compiled call.

The steps and their order are those of `lumbar.train.plan.pixel_params`; a GPU makes the same:

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

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, no_type_check
from zlib import crc32

import numpy as np
from numba import njit

from lumbar.cache.errors import LumbarError
from lumbar.train.kernels.finish_row import finish_row, store_bfloat16, store_float16, store_float32
from lumbar.train.kernels.optional_steps import change, change_nothing, prepare, prepare_nothing
from lumbar.train.kernels.simd import SLICES, copy_elements
from lumbar.train.kernels.warp import TILE_H, TILE_PIXELS, box_size, warp_band
from lumbar.train.plan import pixel_params
from lumbar.train.plan.pixel_params import GAIN, GRID_H, GRID_W, OFFSET

store: Any = store_float32
"""How a row is stored: each compiled function has its own."""


@contextmanager
def kept_on_disk() -> Iterator[None]:
    """Compile within it; raise `LumbarError` where numba finds no folder to keep the code in."""
    try:
        yield
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        raise LumbarError(
            what="no folder for compiled functions",
            where=Path(__file__).parents[1],
            got="neither it nor the user's cache folder can be written to",
            expected="a folder that stays, so that only the first run compiles",
            cure="name one in the environment variable NUMBA_CACHE_DIR",
        ) from error


@njit(inline="always")
@no_type_check
def _pick(places: Any, volume: Any, slices: Any, out: Any, d: int) -> tuple[int, int]:
    """Find the next slices that are present, from ``d`` on; those that are absent become 0.

    ``places[0]`` says where in the output they come, ``places[1]`` where in the volume they begin;
    what is left over repeats the last. Returns how many, and the first slice behind them.
    """
    n = 0
    while d < slices.size and n < SLICES:
        if slices[d] < 0:
            for h in range(out.shape[1]):
                for w in range(out.shape[2]):
                    out[d, h, w] = 0
        else:
            for k in range(n, SLICES):
                places[0, k] = d
                places[1, k] = np.int64(slices[d]) * volume.shape[1] * volume.shape[2]
            n += 1
        d += 1
    return n, d


@no_type_check
def _compiled(function: Any) -> Any:
    """Return a function compiled, at its first call, to machine code that is kept on disk."""
    with kept_on_disk():
        return njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})(function)


@_compiled
@no_type_check
def gather_slices(out: Any, volume: Any, slices: Any) -> None:
    """Copy the slices named into ``out`` (d, height, width, 1); a slice below 0 becomes 0."""
    plane = volume.shape[1] * volume.shape[2]
    for d in range(out.shape[0]):
        if slices[d] < 0:
            out[d] = 0
        else:
            copy_elements(out, d * plane, volume, np.int64(slices[d]) * plane, plane)


@no_type_check
def _render(out: Any, volume: Any, slices: Any, matrix: Any, numbers: Any, key: Any) -> None:
    height, width = out.shape[1], out.shape[2]
    grid_h, grid_w = np.int64(numbers[GRID_H]), np.int64(numbers[GRID_W])
    changed, planes, blur_weights, blur_row = prepare(numbers, height, width)
    band_h = grid_h if changed else TILE_H
    # Rows a little longer than a power of two, or those of eight slices share one set of a cache.
    band = np.empty((SLICES, band_h, (grid_w + 15) // 16 * 16 + 16), np.float32)
    box = np.empty(box_size(volume, matrix), volume.dtype)
    corners = np.empty(TILE_PIXELS, np.int32)
    weights = np.empty((TILE_PIXELS, 4), np.float32)
    places = np.empty((2, SLICES), np.int64)
    d = 0
    while d < slices.size:
        n, d = _pick(places, volume, slices, out, d)
        for h0 in range(0, grid_h if n else 0, band_h):
            rows = min(band_h, grid_h - h0)
            warp_band(
                band, (rows, grid_w), h0, volume, places[1], matrix, numbers[GAIN],
                numbers[OFFSET], box, corners, weights,
            )  # fmt: skip
            for k in range(n):
                picture = change(band[k], numbers, height, width, planes, blur_weights, blur_row)
                for r in range(height if changed else rows):
                    finish_row(out, picture[r], places[0, k], h0 + r, numbers, key, store)


@cache
def sources_checksum() -> int:
    """Return a checksum of all that is compiled here."""
    files = [*Path(__file__).parent.glob("*.py"), Path(pixel_params.__file__)]
    return crc32(b"".join(file.read_bytes() for file in sorted(files)))


@no_type_check
def _renderer(name: str, store: Any, prepare: Any, change: Any) -> Any:
    """Return `_render` compiled with its own ``store``, ``prepare`` and ``change``.

    They are globals of it: the compiler does not keep on disk what was compiled with functions as
    arguments or in a closure, and takes seconds longer to draw one large function into another. It
    looks at this file alone to see whether what it kept is of today: so the name says it.
    """
    names = {**globals(), "store": store, "prepare": prepare, "change": change}
    draw = FunctionType(_render.__code__, names, name)
    draw.__qualname__ = f"{name}_{sources_checksum():08x}"
    return _compiled(draw)


render_float32 = _renderer("render_float32", store_float32, prepare, change)
"""Fill ``out`` (d, h, w) float32 from ``volume`` (depth, height, width) uint8 or int16.

The arguments are ``out, volume, slices, matrix, numbers, key``. ``slices`` (d) int32: below 0 the
slice is absent. ``matrix`` (2, 3) float32 maps output ``(w, h, 1)`` to source ``(w, h)``, centres
at whole numbers. ``numbers`` float32: see `lumbar.train.plan.pixel_params`. ``key`` (2)
uint32: what the noise is a function of.
"""
render_bfloat16 = _renderer("render_bfloat16", store_bfloat16, prepare, change)
"""Fill ``out`` (d, h, w) int16 with the bits of bfloat16; else as `render_float32`."""
render_float16 = _renderer("render_float16", store_float16, prepare, change)
"""Fill ``out`` (d, h, w) int16 with the bits of IEEE half; else as `render_float32`."""

_LIGHT = prepare_nothing, change_nothing
render_light_float32 = _renderer("render_light_float32", store_float32, *_LIGHT)
"""Do what `render_float32` does where the steps 2 to 5 are off; it compiles in half the time."""
render_light_bfloat16 = _renderer("render_light_bfloat16", store_bfloat16, *_LIGHT)
"""Do what `render_bfloat16` does where the steps 2 to 5 are off."""
render_light_float16 = _renderer("render_light_float16", store_float16, *_LIGHT)
"""Do what `render_float16` does where the steps 2 to 5 are off."""
