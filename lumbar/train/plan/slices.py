"""Which slices of a stack a sample holds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64

NO_SLICE = -1
"""What stands for a slice that is not there; always after those that are."""

MOST_SLICES = 1024
"""In a sample; as many as a study of the data set has, and more."""

SlicePick = Literal["spread", "window", "all"]

Slices = Int32[np.ndarray, " d"]


def spread_slices(
    depth: int | Int64[np.ndarray, "*v"],
    wanted: int,
    within: float | Float64[np.ndarray, "*v"] = 0.5,
) -> Int32[np.ndarray, "*v {wanted}"]:
    """Choose ``wanted`` slices of each ``depth``, in order, evenly spaced.

    ``within``, from 0 to 1, shifts the whole comb within one step, so that no slice comes twice;
    at one half each slice is the middle of its stretch. A shallower stack is taken whole.
    """
    deep, shift = np.asarray(depth)[..., None], np.asarray(within)[..., None]
    comb = np.arange(wanted)
    drawn = (comb + shift) * (deep / wanted)
    # Rounding can carry a draw just below 1 to the end of the stack, one past its last slice.
    spread = np.minimum(drawn, deep - 1).astype(np.int32)
    return np.where(deep > wanted, spread, _below(comb, deep)).astype(np.int32)


def window_slices(
    depth: int | Int64[np.ndarray, "*v"],
    wanted: int,
    middle: float | Float64[np.ndarray, "*v"],
) -> Int32[np.ndarray, "*v {wanted}"]:
    """Choose ``wanted`` neighbouring slices of each ``depth`` around the place ``middle``.

    They are moved into the stack; a shallower one is taken whole.
    """
    deep, place = np.asarray(depth)[..., None], np.asarray(middle)[..., None]
    first = np.clip(np.rint(place - (wanted - 1) / 2), 0, np.maximum(deep - wanted, 0))
    return _below(first.astype(np.int32) + np.arange(wanted), deep)


def all_slices(depth: int | Int64[np.ndarray, "*v"], bucket: int) -> Int32[np.ndarray, "*v d"]:
    """Choose every slice of each ``depth``: whole buckets, as many as the deepest needs."""
    deepest = int(np.max(depth))
    return _below(np.arange(-(-deepest // bucket) * bucket), np.asarray(depth)[..., None])


def _below(
    slices: Int[np.ndarray, "*#v d"], depth: Int[np.ndarray, "*#v 1"]
) -> Int32[np.ndarray, "*v d"]:
    """Return the slices that a stack has; those behind its end are `NO_SLICE`."""
    return np.where(slices < depth, slices, NO_SLICE).astype(np.int32)


def thinned(
    slices: Int32[np.ndarray, "v d"],
    chance: Float64[np.ndarray, "v e"],
    probability: float,
) -> Int32[np.ndarray, "v d"]:
    """Leave out the slices whose ``chance`` is below ``probability``, as if never taken.

    Where there are any, the one of the greatest chance stays. ``e`` is ``d`` or more.
    """
    there = slices != NO_SLICE
    own = np.where(there, chance[:, : slices.shape[1]], -1)
    kept = there & ((own >= probability) | (own == own.max(axis=1, keepdims=True)))
    # A stable order of kept before left out: those that stay keep theirs.
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, slices, np.int32(NO_SLICE)), order, axis=1)


def turned_round(
    slices: Int32[np.ndarray, "v d"], turned: Bool[np.ndarray, " v"]
) -> Int32[np.ndarray, "v d"]:
    """Reverse the order of the slices of some views; what fills a view up stays behind them."""
    places = np.arange(slices.shape[1])
    there = (slices != NO_SLICE).sum(axis=1, keepdims=True)
    order = np.where(turned[:, None] & (places < there), there - 1 - places, places)
    return np.take_along_axis(slices, order, axis=1)


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
