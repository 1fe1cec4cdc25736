"""The last steps of a row: noise (6), conversion to the output's type, and cutout (7)."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba import njit

from lumbar.train.plan.pixel_params import CUTOUT, NOISE

NOISE_MEAN = 4 * 255 / 2
NOISE_STD = float(np.sqrt(4 * (256.0**2 - 1) / 12))
"""Mean and standard deviation of the sum of four uniform bytes."""

_MULTIPLIERS = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_BYTES = np.uint32(0x00FF00FF)
_LOW = np.uint32(0xFFFF)


@njit(inline="always")
@no_type_check
def hashed(x: Any) -> Any:
    """Return the hash of 32 bits (Chris Wellons' lowbias32)."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * _MULTIPLIERS[0])
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * _MULTIPLIERS[1])
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(inline="always")
@no_type_check
def add_noise(row: Any, columns: int, noise: Any, key: Any, first: int) -> None:
    """Add ``noise * z`` to a row whose first voxel has the index ``first``.

    ``z = (sum of the 4 bytes of hashed(index * (key[1] | 1) + key[0]) - 510) / std``: approximately
    standard normal, and a function of the key and the voxel alone.
    """
    step = np.float32(noise / NOISE_STD)
    shift = np.float32(-noise / NOISE_STD * NOISE_MEAN)
    factor = np.uint32(key[1] | np.uint32(1))
    start = np.uint32(np.uint32(first) * factor + key[0])
    for w in range(columns):
        bits = hashed(np.uint32(np.uint32(w) * factor + start))
        pairs = np.uint32((bits & _BYTES) + ((bits >> np.uint32(8)) & _BYTES))
        total = np.int32((pairs & _LOW) + (pairs >> np.uint32(16)))
        row[w] += np.float32(total) * step + shift


@njit(inline="always")
@no_type_check
def store_float32(out: Any, row: Any, columns: int) -> None:
    """Store a row as it is."""
    for w in range(columns):
        out[w] = row[w]


@njit(inline="always")
@no_type_check
def store_bfloat16(out: Any, row: Any, columns: int) -> None:
    """Store bfloat16: the upper halves of float32, rounded to nearest, ties to even."""
    bits = row.view(np.uint32)
    for w in range(columns):
        x = bits[w]
        odd = (x >> np.uint32(16)) & np.uint32(1)
        rounded = np.uint32(x + np.uint32(0x7FFF) + odd) >> np.uint32(16)
        quiet = (x >> np.uint32(16)) | np.uint32(0x40)
        nan = (x & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        out[w] = np.int16(np.uint16(quiet if nan else rounded))


@njit(inline="always")
@no_type_check
def store_float16(out: Any, row: Any, columns: int) -> None:
    """Store float16, rounded to nearest, ties to even, in integer arithmetic.

    Subnormal halves are multiples of 2**-24.
    """
    bits = row.view(np.uint32)
    for w in range(columns):
        x = bits[w]
        size = x & np.uint32(0x7FFFFFFF)
        odd = (size >> np.uint32(13)) & np.uint32(1)
        # The exponent's bias of 127 becomes 15; the bits that are cut off round the rest.
        normal = np.uint32(size - np.uint32(112 << 23) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        tiny = np.uint32(np.int32(np.rint(min(abs(row[w]), np.float32(1)) * np.float32(2**24))))
        half = tiny if size < np.uint32(113 << 23) else normal
        half = np.uint32(0x7C00) if size >= np.uint32(143 << 23) else half
        half = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else half
        out[w] = np.int16(np.uint16(half | ((x >> np.uint32(16)) & np.uint32(0x8000))))


@njit(inline="always")
@no_type_check
def finish_row(out: Any, row: Any, d: int, h: int, numbers: Any, key: Any, store: Any) -> None:
    """Add noise to a row, store it in ``out[d, h]`` by ``store``, and set the cutout to 0."""
    height, columns = out.shape[1], out.shape[2]
    if numbers[NOISE] > 0:
        add_noise(row, columns, numbers[NOISE], key, (d * height + h) * columns)
    store(out[d, h], row, columns)
    box = numbers[CUTOUT : CUTOUT + 6]
    if box[0] <= d < box[3] and box[1] <= h < box[4]:
        for w in range(max(np.int64(box[2]), 0), min(np.int64(box[5]), columns)):
            out[d, h, w] = 0
