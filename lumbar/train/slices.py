"""Which slices of a stack a sample holds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int32

NO_SLICE = -1
"""What stands for a slice that is not there; always after those that are."""

MOST_SLICES = 1024
"""In a sample; as many as a study of the data set has, and more."""

SlicePick = Literal["spread", "window", "all"]

Slices = Int32[np.ndarray, " d"]


def spread_slices(depth: int, wanted: int, within: float = 0.5) -> Slices:
    """Choose ``wanted`` slices of ``depth``, in order, evenly spaced.

    ``within``, from 0 to 1, shifts the whole comb within one step, so that no slice comes twice;
    at one half each slice is the middle of its stretch. A shallower stack is taken whole.
    """
    if depth <= wanted:
        return padded(np.arange(depth), wanted)
    drawn = (np.arange(wanted) + within) * (depth / wanted)
    # Rounding can carry a draw just below 1 to the end of the stack, one past its last slice.
    return padded(np.minimum(drawn, depth - 1), wanted)


def window_slices(depth: int, wanted: int, middle: float) -> Slices:
    """Choose ``wanted`` neighbouring slices around the place ``middle``, moved into the stack."""
    first = round(middle - (wanted - 1) / 2)
    first = min(max(first, 0), max(depth - wanted, 0))
    return padded(np.arange(first, min(first + wanted, depth)), wanted)


def all_slices(depth: int, bucket: int) -> Slices:
    """Choose every slice, filled up to a whole number of buckets."""
    return padded(np.arange(depth), -(-depth // bucket) * bucket)


def compacted(slices: Slices) -> tuple[Int32[np.ndarray, " n"], Slices]:
    """Return the slices that are there, one at least, and the places that a sample's are then at.

    What is picked of a volume by the first has its slices in the order of the second.
    """
    picked = slices[slices != NO_SLICE]
    places = padded(np.arange(len(picked)), len(slices))
    return (picked if len(picked) else np.zeros(1, np.int32)), places


def padded(slices: np.ndarray, length: int) -> Slices:
    """Return slices filled up to a length with `NO_SLICE`."""
    filled = np.full(length, NO_SLICE, np.int32)
    filled[: len(slices)] = slices
    return filled
