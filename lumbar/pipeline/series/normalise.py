"""Intensities: two percentiles of a series become 0 and 1, which are stored as integers.

``normalised = (rescaled - low) / (high - low)``, clipped, and ``stored = normalised * levels``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32

from lumbar.cache.format import IntensityWindow
from lumbar.pipeline.dicom.decode import Picture
from lumbar.pipeline.reject import Reason, RejectedError

LEVELS = {"uint8": 255, "int16": 32767}
"""The stored integer of 1; 0 is stored as 0."""

_LEAST_CODE = -(2**15)
_N_CODES = 2**15 + 2**16
"""All values of signed and of unsigned 16 bits."""


class Rescale(NamedTuple):
    """``rescaled = stored * slope + intercept`` of one slice."""

    slope: float
    intercept: float


def find_window(
    pictures: Sequence[Picture], rescales: Sequence[Rescale], percentiles: tuple[float, float]
) -> tuple[IntensityWindow, bool]:
    """Return the window of a series, and whether its two percentiles are equal.

    Percentiles are over all pixels that are not padding, with linear interpolation as in numpy. If
    both are one value, the window runs from the least to the greatest value.

    Raises
    ------
    RejectedError
        If all pixels have one value.
    """
    values, counts = _count_values(pictures, rescales)
    low, high = _percentiles(values, counts, percentiles)
    is_sparse = not low < high
    if is_sparse:
        low, high = (float(values[0]), float(values[-1])) if len(values) else (0.0, 0.0)
    if not low < high:
        raise RejectedError(Reason.CONSTANT, f"every pixel is {low}" if counts.any() else "padding")
    return IntensityWindow(low, high), is_sparse


def rescale(picture: Picture, factors: Rescale, low: float) -> Float32[np.ndarray, "rows columns"]:
    """Return the rescaled values of a picture; padding becomes ``low``, which is stored as 0."""
    values = picture.values.astype(np.float32)
    if factors != (1.0, 0.0):
        values *= np.float32(factors.slope)
        values += np.float32(factors.intercept)
    if picture.padding is not None:
        values[picture.padding] = low
    return values


def quantise(rescaled: Float32[np.ndarray, "h w"], window: IntensityWindow, dtype: str) -> Any:
    """Return stored integers, rounded and clipped to the window."""
    gain = LEVELS[dtype] / (window.high - window.low)
    depth = cv2.CV_8U if dtype == "uint8" else cv2.CV_16S
    # One pass that rounds and saturates; a signed type also needs a lower bound of 0.
    stored = cv2.addWeighted(rescaled, gain, rescaled, 0.0, -window.low * gain, dtype=depth)
    return stored if dtype == "uint8" else np.maximum(stored, 0)


def _count_values(
    pictures: Sequence[Picture], rescales: Sequence[Rescale]
) -> tuple[Float[np.ndarray, " values"], Float[np.ndarray, " values"]]:
    """Return the distinct rescaled values in ascending order, and the count of each."""
    totals: dict[Rescale, Any] = {}
    for picture, factors in zip(pictures, rescales, strict=True):
        least, counts = _histogram(picture)
        total = totals.setdefault(factors, np.zeros(_N_CODES))
        total[least - _LEAST_CODE :][: len(counts)] += counts
    parts = []
    for factors, total in totals.items():
        codes = np.flatnonzero(total)
        stored = codes + _LEAST_CODE
        parts.append((stored * factors.slope + factors.intercept, total[codes]))
    values = np.concatenate([values for values, _ in parts])
    counts = np.concatenate([counts for _, counts in parts])
    order = np.argsort(values, kind="stable")
    return values[order], counts[order]


def _histogram(picture: Picture) -> tuple[int, Float[np.ndarray, " codes"]]:
    """Return the least value that is counted, and the counts of it and of each value above."""
    values = picture.values
    # As few bins as possible: clearing and adding 65,536 bins takes longer than counting.
    least, greatest = int(values.min()), int(values.max())
    if values.dtype.kind == "i":
        values = (values.astype(np.int32) - least).astype(np.uint16)
    else:
        least = 0
    n_codes = greatest - least + 1
    mask = None if picture.padding is None else (~picture.padding).astype(np.uint8)
    counts = cv2.calcHist(
        [np.ascontiguousarray(values, np.uint16)], [0], mask, [n_codes], [0, n_codes]
    )
    return least, np.asarray(counts, np.float64).ravel()  # a column, or since OpenCV 5 a row of one


def _percentiles(
    values: Float[np.ndarray, " values"],
    counts: Float[np.ndarray, " values"],
    percentiles: tuple[float, float],
) -> tuple[float, float]:
    """Return percentiles of counted values by numpy's linear definition."""
    if not len(values):
        return 0.0, 0.0
    last_rank = np.cumsum(counts) - 1
    low, high = (
        _at_rank(values, last_rank, percent / 100 * float(last_rank[-1])) for percent in percentiles
    )
    return low, high


def _at_rank(
    values: Float[np.ndarray, " values"], last_rank: Float[np.ndarray, " values"], rank: float
) -> float:
    below, above = (
        float(values[np.searchsorted(last_rank, whole)])
        for whole in (np.floor(rank), np.ceil(rank))
    )
    return below + (above - below) * (rank - float(np.floor(rank)))
