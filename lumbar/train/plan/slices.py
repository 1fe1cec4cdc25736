"""Choose the slices of a stack that a sample has."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64

NO_SLICE = -1
"""Padding; always behind the slices that are there."""

MOST_SLICES = 1024
"""Per sample; more than any study of the data set has."""

SlicePick = Literal["spread", "window", "all"]

Slices = Int32[np.ndarray, " d"]


def spread_slices(
    depth: int | Int64[np.ndarray, "*v"],
    wanted: int,
    within: float | Float64[np.ndarray, "*v"] = 0.5,
) -> Int32[np.ndarray, "*v {wanted}"]:
    """Choose ``wanted`` slices of each ``depth``, in order, evenly spaced.

    ``within``, from 0 to 1, shifts all of them within one interval; at one half each slice is the
    middle of its interval. No slice comes twice. A shallower stack is taken whole.
    """
    deep, shift = np.asarray(depth)[..., None], np.asarray(within)[..., None]
    numbers = np.arange(wanted)
    # With a shift just below 1 rounding can give one past the last slice.
    spread = np.minimum((numbers + shift) * (deep / wanted), deep - 1).astype(np.int32)
    return np.where(deep > wanted, spread, _below(numbers, deep)).astype(np.int32)


def window_slices(
    depth: int | Int64[np.ndarray, "*v"],
    wanted: int,
    middle: float | Float64[np.ndarray, "*v"],
) -> Int32[np.ndarray, "*v {wanted}"]:
    """Choose ``wanted`` neighbouring slices of each ``depth`` around the place ``middle``.

    The window is moved into the stack; a shallower stack is taken whole.
    """
    deep, place = np.asarray(depth)[..., None], np.asarray(middle)[..., None]
    first = np.clip(np.rint(place - (wanted - 1) / 2), 0, np.maximum(deep - wanted, 0))
    return _below(first.astype(np.int32) + np.arange(wanted), deep)


def all_slices(depth: int | Int64[np.ndarray, "*v"], bucket: int) -> Int32[np.ndarray, "*v d"]:
    """Choose every slice of each ``depth``, padded to whole buckets for the deepest."""
    deepest = int(np.max(depth))
    return _below(np.arange(-(-deepest // bucket) * bucket), np.asarray(depth)[..., None])


def _below(
    slices: Int[np.ndarray, "*#v d"], depth: Int[np.ndarray, "*#v 1"]
) -> Int32[np.ndarray, "*v d"]:
    """Replace slices behind the end of a stack by `NO_SLICE`."""
    return np.where(slices < depth, slices, NO_SLICE).astype(np.int32)


def drop_slices(
    slices: Int32[np.ndarray, "v d"],
    chance: Float64[np.ndarray, "v e"],
    probability: float,
) -> Int32[np.ndarray, "v d"]:
    """Leave out the slices whose ``chance`` is below ``probability``.

    The one with the greatest chance always stays. ``e`` is at least ``d``.
    """
    there = slices != NO_SLICE
    own = np.where(there, chance[:, : slices.shape[1]], -1)
    kept = there & ((own >= probability) | (own == own.max(axis=1, keepdims=True)))
    # A stable sort moves those left out to the end, and keeps the order of the others.
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, slices, np.int32(NO_SLICE)), order, axis=1)


def reverse_slices(
    slices: Int32[np.ndarray, "v d"], is_reversed: Bool[np.ndarray, " v"]
) -> Int32[np.ndarray, "v d"]:
    """Reverse the order of the slices of some views; the padding stays behind them."""
    places = np.arange(slices.shape[1])
    there = (slices != NO_SLICE).sum(axis=1, keepdims=True)
    order = np.where(is_reversed[:, None] & (places < there), there - 1 - places, places)
    return np.take_along_axis(slices, order, axis=1)


def compacted(slices: Slices) -> tuple[Int32[np.ndarray, " n"], Slices]:
    """Return the slices that are there (at least one), and the sample's indices into them."""
    picked = slices[slices != NO_SLICE]
    places = padded(np.arange(len(picked)), len(slices))
    return (picked if len(picked) else np.zeros(1, np.int32)), places


def padded(slices: np.ndarray, length: int) -> Slices:
    """Return slices, padded to a length with `NO_SLICE`."""
    filled = np.full(length, NO_SLICE, np.int32)
    filled[: len(slices)] = slices
    return filled
