"""Thumbnails: a few slices of a series side by side, as one small JPEG."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from lumbar.cache.store import Cache


@dataclass(frozen=True, slots=True)
class Style:
    """How many slices are shown, how high in pixels, and the quality of the JPEG in percent."""

    slices: int
    height: int
    quality: int


STYLES = (Style(5, 112, 75), Style(5, 96, 60), Style(5, 80, 45), Style(3, 80, 40), Style(3, 56, 35))
"""From the best to the smallest, which is taken whatever it needs: about 2 kB."""

MOST_BYTES = 40_000_000
"""Of all thumbnails of a page together, if the smallest style allows it."""

MOST_BYTES_EACH = 20_000


@dataclass(frozen=True, slots=True)
class Strip:
    """Slices ``d`` side by side, each of ``width`` x ``height`` pixels, as one JPEG."""

    d: tuple[int, ...]
    width: int
    height: int
    jpeg: bytes


def bytes_each(n_series: int) -> int:
    """Return how many bytes the thumbnails of one series may have, among ``n_series``."""
    return min(MOST_BYTES_EACH, MOST_BYTES // max(n_series, 1))


def draw_strip(cache: Cache, row: int, annotated: Collection[int], most_bytes: int) -> Strip:
    """Draw the middle slices of a series and annotated ones, in the best style that fits.

    Raises
    ------
    FormatError
        If the volume is damaged or gone.
    """
    entry = cache.series.row(row, named=True)
    most = choose_thumbnails(entry["depth"], annotated, STYLES[0].slices)
    scale, offset = cache.scale_and_offset(row)
    aspect = entry["width"] * entry["spacing_w_mm"] / (entry["height"] * entry["spacing_h_mm"])
    largest = _size(STYLES[0].height, aspect)
    pictures = {}
    for d, stored_hw in zip(most, cache.slices(row, most), strict=True):
        small_hw = cv2.resize(stored_hw, largest, interpolation=cv2.INTER_AREA)
        grey_hw = small_hw * np.float32(255 * scale) + np.float32(255 * offset)
        pictures[d] = grey_hw.clip(0, 255).round().astype(np.uint8)
    for style in STYLES:
        chosen = choose_thumbnails(entry["depth"], annotated, style.slices)
        size = _size(style.height, aspect)
        jpeg = _encode([pictures[d] for d in chosen], size, style.quality)
        if len(jpeg) <= most_bytes:
            break
    return Strip(tuple(chosen), size[0], size[1], jpeg)


def choose_thumbnails(depth: int, annotated: Collection[int], count: int) -> list[int]:
    """Return ``count`` slices in order, annotated ones preferred, then those near the middle.

    A smaller count gives a subset.
    """
    middle = (depth - 1) / 2
    ranked = sorted(range(depth), key=lambda d: (d not in annotated, abs(d - middle), d))
    return sorted(ranked[:count])


def _size(height: int, aspect: float) -> tuple[int, int]:
    """Return width and height of a tile, at most four times as wide as high."""
    return max(1, min(round(height * aspect), 4 * height)), height


def _encode(
    pictures_hw: list[UInt8[np.ndarray, "h w"]], size: tuple[int, int], quality: int
) -> bytes:
    small = [cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in pictures_hw]
    _, jpeg = cv2.imencode(".jpg", np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes()
