"""Render a view on the CPU, in one compiled call: warp its stored slices, augment, convert.

The steps and their order are those of `lumbar.train.plan.pixel_params`, as on a GPU:

1. ``stored * GAIN + OFFSET``, bilinear by the matrix; stored values outside of the source are 0.
2. Resize the sampled grid to the output.
3. Gaussian blur in the plane.
4. Bias field.
5. Gamma.
6. Noise.
7. Cutout.
8. An absent slice is 0.

Without steps 2 to 5 a band of rows at a time passes through all steps while it lies in the
innermost caches; with them eight whole slices do.

Compiled functions are marked `no_type_check`, which keeps the tests' shape checks away from them.
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
from lumbar.train.kernels.filters import apply_filters, apply_nothing, prepare, prepare_nothing
from lumbar.train.kernels.finish_row import finish_row, store_bfloat16, store_float16, store_float32
from lumbar.train.kernels.simd import SLICES, copy_elements
from lumbar.train.kernels.warp import TILE_H, TILE_PIXELS, box_size, warp_band
from lumbar.train.plan import pixel_params
from lumbar.train.plan.pixel_params import GAIN, GRID_H, GRID_W, OFFSET

store: Any = store_float32
"""Stores a row; each renderer has its own."""


@contextmanager
def kept_on_disk() -> Iterator[None]:
    """Compile in this context; raise `LumbarError` where numba finds no folder for its cache."""
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
    """Find the next eight present slices from ``d`` on, and set absent ones to 0.

    ``places[0]`` are their places in the output, ``places[1]`` their first elements in the volume;
    fewer than eight repeat the last. Returns how many, and the first slice behind them.
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
    """Return a function that is compiled at its first call, and cached on disk."""
    with kept_on_disk():
        return njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})(function)


@_compiled
@no_type_check
def gather_slices(out: Any, volume: Any, slices: Any) -> None:
    """Copy ``slices`` into ``out`` (d, height, width, 1); a slice below 0 becomes 0."""
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
    filtered, planes, blur_weights, blur_row = prepare(numbers, height, width)
    band_h = grid_h if filtered else TILE_H
    # Not a power of two: the rows of eight slices would share one set of a cache.
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
                image = apply_filters(
                    band[k], numbers, height, width, planes, blur_weights, blur_row
                )
                for r in range(height if filtered else rows):
                    finish_row(out, image[r], places[0, k], h0 + r, numbers, key, store)


@cache
def sources_checksum() -> int:
    """Return a checksum of the source of everything that is compiled here."""
    files = [*Path(__file__).parent.glob("*.py"), Path(pixel_params.__file__)]
    return crc32(b"".join(file.read_bytes() for file in sorted(files)))


@no_type_check
def _renderer(name: str, store: Any, prepare: Any, apply_filters: Any) -> Any:
    """Return `_render` compiled with its own ``store``, ``prepare`` and ``apply_filters``.

    They are globals of it: numba cannot cache on disk what was compiled with functions as arguments
    or in a closure, and takes seconds longer to inline one large function into another. Numba's
    cache checks this file only for changes, so the name holds a checksum of all files.
    """
    names = {**globals(), "store": store, "prepare": prepare, "apply_filters": apply_filters}
    own = FunctionType(_render.__code__, names, name)
    own.__qualname__ = f"{name}_{sources_checksum():08x}"
    return _compiled(own)


_STORES = {"float32": store_float32, "bfloat16": store_bfloat16, "float16": store_float16}

RENDERERS = {
    dtype: _renderer(f"render_{dtype}", store, prepare, apply_filters)
    for dtype, store in _STORES.items()
}
"""The function that renders a view, by the type of its pixels.

The arguments are ``out, volume, slices, matrix, numbers, key``. ``out`` (d, h, w) is float32, or
int16 for the bits of bfloat16 and float16. ``volume`` (depth, height, width) is uint8 or int16.
``slices`` (d) int32: below 0 the slice is absent. ``matrix`` (2, 3) float32 maps output
``(w, h, 1)`` to source ``(w, h)``, centres at whole numbers. ``numbers`` float32: see
`lumbar.train.plan.pixel_params`. ``key`` (2) uint32 seeds the noise.
"""
LIGHT_RENDERERS = {
    dtype: _renderer(f"render_light_{dtype}", store, prepare_nothing, apply_nothing)
    for dtype, store in _STORES.items()
}
"""The same bytes where steps 2 to 5 are off; these compile in half the time."""
